"""Fetching from web addresses that a stranger chose, against a real server on loopback."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network, open_web_address
from tests.patience import PATIENCE_S, QuietClock
from tests.unit.hostile_server import HostileServer, make_certificate

CONTENT = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem", "files.example", "xn--mller-kva.example")


def loopback_network(certificate: Path | None = None) -> Network:
    """Every host name is this machine, as far as the test's network knows."""
    tls = ssl.create_default_context(cafile=str(certificate)) if certificate else None
    return Network(allow_private=True, allow_own_host=True, resolve=lambda *_: ["127.0.0.1"], tls=tls)


def fetch(url: str, *, network: Network | None = None, within_s: float = PATIENCE_S, limit: int = 10_000_000) -> bytes:
    """All of an address, read as the fetcher reads it: at most `limit` bytes."""
    content = b""
    with open_web_address(
        url, network=network or Network(allow_private=True, allow_own_host=True), deadline=time.monotonic() + within_s
    ) as stream:
        for chunk in stream.chunks:
            content += chunk
            if len(content) > limit:
                raise Unusable("over the limit")
    return content


def sending(answer: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """What answers with these bytes, whatever they are."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(answer)

    return send


class TestHonestServers:
    def test_a_file_arrives_as_it_is(self, server: HostileServer) -> None:
        assert fetch(server.serve("/a.png", CONTENT)) == CONTENT

    def test_size_and_type_are_what_the_server_says(self, server: HostileServer) -> None:
        url = server.serve("/a", b"123", content_type="video/mp4")
        with open_web_address(url, network=loopback_network(), deadline=time.monotonic() + PATIENCE_S) as stream:
            assert (stream.size_bytes, stream.content_type) == (3, "video/mp4")

    def test_a_chunked_body_arrives_whole(self, server: HostileServer) -> None:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (CONTENT[:7], CONTENT[7:]))
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.answers["/a"] = sending(start + chunks + b"0\r\n\r\n")
        assert fetch(server.url("/a")) == CONTENT

    def test_path_and_query_arrive_as_they_were_meant(self, server: HostileServer) -> None:
        server.serve("/%C3%A4%20b+c%2Fd.png", b"x")
        assert fetch(server.url("/ä%20b+c%2Fd.png?sig=a%2Bb&x=ö")) == b"x"
        assert server.requests[-1][0] == "/%C3%A4%20b+c%2Fd.png?sig=a%2Bb&x=%C3%B6"

    def test_the_request_asks_for_the_plain_file_and_carries_nothing_of_ours(
        self, server: HostileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        fetch(server.serve("/a", b"x"))
        headers = server.requests[-1][1]
        assert headers["Accept-Encoding"] == "identity"
        assert headers["Host"] == f"127.0.0.1:{server.port}"
        assert not {"Cookie", "Authorization", "Referer"} & set(headers)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_followed(self, server: HostileServer, status: int) -> None:
        server.serve("/end", b"x")
        server.redirect("/middle", "end?a=1")
        assert fetch(server.redirect("/start", server.url("/middle"), status)) == b"x"


class TestTls:
    def test_the_name_is_verified_while_the_checked_address_is_dialled(self, certificate: Path) -> None:
        with HostileServer(certificate=certificate) as server:
            server.serve("/a", b"x")
            assert fetch(server.url("/a", "files.example"), network=loopback_network(certificate)) == b"x"
            assert server.requests[-1][1]["Host"] == f"files.example:{server.port}"

    def test_an_international_name_is_verified_too(self, certificate: Path) -> None:
        with HostileServer(certificate=certificate) as server:
            server.serve("/a", b"x")
            assert fetch(server.url("/a", "müller.example"), network=loopback_network(certificate)) == b"x"

    def test_a_certificate_for_another_name_is_refused(self, certificate: Path) -> None:
        with (
            HostileServer(certificate=certificate) as server,
            pytest.raises(Unusable, match="certificate is not valid"),
        ):
            fetch(server.url("/a", "other.example"), network=loopback_network(certificate))
        assert server.requests == []

    def test_an_unknown_authority_is_refused(self, certificate: Path) -> None:
        with (
            HostileServer(certificate=certificate) as server,
            pytest.raises(Unusable, match="certificate is not valid"),
        ):
            fetch(server.url("/a", "files.example"), network=loopback_network())

    def test_a_server_that_does_not_speak_tls_is_refused(self, server: HostileServer) -> None:
        url = f"https://files.example:{server.port}/a"
        with pytest.raises(Unusable, match="the connection failed"):
            fetch(url, network=loopback_network())


class TestForbiddenAddresses:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("http://files.example/a", "only https"),
            ("ftp://files.example/a", "only https"),
            ("https://user:secret@files.example/a", "user name or password"),
            ("https://files.example@127.0.0.1/", "user name or password"),
            ("https://127.0.0.1\\@files.example/", "control characters"),
            ("https://files.example/a b", "write %20"),
            ("https://files.example/a\r\nX: y", "control characters"),
            ("https://files.example:99999/", "not a web address"),
            ("https://files.example:22/", "another service"),
            ("https://[::1/", "not a web address"),
            ("https:///a", "no usable host"),
            ("https://[fe80::1%25eth0]/", "not a web address"),
            ("https://a..b/", "not a web address"),
            ("https://" + "a" * 70 + ".example/", "not a web address"),
            ("https://files.example/" + "a" * 9000, "too long"),
        ],
    )
    def test_malformed_and_forbidden_addresses_are_refused_before_any_look_up(self, url: str, message: str) -> None:
        def resolve(*_: object) -> list[str]:
            raise AssertionError("nothing may be resolved")

        with pytest.raises(Unusable, match=message):
            fetch(url, network=Network(resolve=resolve))

    @pytest.mark.parametrize(
        "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "fd00:ec2::254"]
    )
    def test_a_public_name_with_a_private_address_is_refused(self, address: str) -> None:
        with pytest.raises(Unusable, match="is not allowed"):
            fetch("https://attacker.example/a.png", network=Network(resolve=lambda *_: [address]))

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f000001", "0", "localhost", "①②⑦.⓪.⓪.①"])
    def test_loopback_is_refused_in_every_spelling(self, host: str) -> None:
        with pytest.raises(Unusable, match=r"is not allowed|not a web address"):
            fetch(f"https://{host}/a.png", network=Network())

    def test_a_name_that_changes_its_address_is_asked_once_and_dialled_where_it_was_checked(
        self, server: HostileServer
    ) -> None:
        answers = iter([["127.0.0.1"], ["169.254.169.254"]])
        server.serve("/a", b"x")
        network = Network(allow_private=True, allow_own_host=True, resolve=lambda *_: next(answers))
        assert fetch(server.url("/a", "rebinding.example"), network=network) == b"x"
        with pytest.raises(Unusable, match="is not allowed"):
            fetch(server.url("/a", "rebinding.example"), network=network)

    @pytest.mark.parametrize(
        "location",
        ["file:///etc/passwd", "ftp://files.example/a", "gopher://127.0.0.1:6379/_x", "data:text/html,x", "//u:p@h/"],
    )
    def test_a_redirect_to_another_scheme_is_refused(self, server: HostileServer, location: str) -> None:
        with pytest.raises(Unusable, match=r"only https|user name"):
            fetch(server.redirect("/a", location))

    def test_a_redirect_to_the_metadata_service_is_refused(self, server: HostileServer) -> None:
        with pytest.raises(Unusable, match=r"not allowed: it is at 169\.254\.169\.254"):
            fetch(server.redirect("/a", "http://169.254.169.254/latest/meta-data/"))

    def test_a_redirect_to_a_private_address_is_refused(self, certificate: Path) -> None:
        # This machine stands in for a public server; everything else is judged as ever.
        network = Network(
            allow_own_host=True,
            resolve=lambda host, _: ["127.0.0.1"] if host == "files.example" else ["10.0.0.7"],
            tls=ssl.create_default_context(cafile=str(certificate)),
        )
        with HostileServer(certificate=certificate) as server:
            server.redirect("/a", "https://inside.example/")
            with pytest.raises(Unusable, match=r"'inside\.example' is not allowed"):
                fetch(server.url("/a", "files.example"), network=network)
            assert len(server.requests) == 1

    def test_redirects_come_to_an_end(self, server: HostileServer) -> None:
        with pytest.raises(Unusable, match="more than 5 times"):
            fetch(server.redirect("/a", "/a"))
        assert len(server.requests) == 6


class TestHostileServers:
    @pytest.mark.parametrize(
        "start",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nX-",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ],
        ids=["status", "header", "body", "endless body"],
    )
    def test_a_drip_ends_at_the_deadline_wherever_it_drips(self, server: HostileServer, start: bytes) -> None:
        with QuietClock() as clock:
            begin = clock()
            with pytest.raises(Unusable, match="in time") as caught:
                fetch(server.drip("/a", start), within_s=0.4)
            assert caught.value.timed_out
            assert clock() - begin < 5

    def test_a_server_that_never_finishes_the_handshake_ends_at_the_deadline(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://files.example:{silent.getsockname()[1]}/"
            with pytest.raises(Unusable, match="in time"):
                fetch(url, network=loopback_network(), within_s=0.3)

    def test_an_endless_body_can_be_left_at_any_time(self, server: HostileServer) -> None:
        with pytest.raises(Unusable, match="over the limit"):
            fetch(server.endless("/a"), limit=1_000_000)

    def test_a_body_shorter_than_announced_is_refused(self, server: HostileServer) -> None:
        with pytest.raises(Unusable, match="ended 90 bytes before") as caught:
            fetch(server.serve("/a", b"x" * 10, content_length="100"))
        assert caught.value.transient

    def test_a_body_longer_than_announced_ends_where_it_was_announced_to(self, server: HostileServer) -> None:
        assert fetch(server.serve("/a", b"0123456789", content_length="4")) == b"0123"

    @pytest.mark.parametrize("rest", [b"5\r\nabc", b"zz\r\nabc\r\n0\r\n\r\n"])
    def test_broken_chunks_are_refused(self, server: HostileServer, rest: bytes) -> None:
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.answers["/a"] = sending(start + rest)
        with pytest.raises(Unusable, match="the connection failed"):
            fetch(server.url("/a"))

    @pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
    def test_a_compressed_body_is_refused_unread(self, server: HostileServer, encoding: str) -> None:
        url = server.serve("/a", gzip.compress(b"\0" * 1_000_000), content_encoding=encoding)
        with pytest.raises(Unusable, match="is sent compressed"):
            fetch(url)

    def test_a_flood_of_headers_is_refused(self, server: HostileServer) -> None:
        flood = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"
        server.answers["/a"] = sending(flood)
        with pytest.raises(Unusable, match="the connection failed"):
            fetch(server.url("/a"))

    def test_something_that_is_not_http_is_refused(self, server: HostileServer) -> None:
        server.answers["/a"] = sending(b"SSH-2.0-OpenSSH_9\r\n")
        with pytest.raises(Unusable, match="the connection failed"):
            fetch(server.url("/a"))

    @pytest.mark.parametrize(
        ("status", "message", "transient"),
        [
            (401, "asks for credentials", False),
            (403, "may have expired", False),
            (404, "has no such file", False),
            (206, "HTTP 206", False),
            (304, "HTTP 304", False),
            (429, "HTTP 429", True),
            (503, "HTTP 503", True),
        ],
    )
    def test_any_answer_but_the_file_is_explained(
        self, server: HostileServer, status: int, message: str, transient: bool
    ) -> None:
        with pytest.raises(Unusable, match=message) as caught:
            fetch(server.serve("/a", b"", status=status))
        assert caught.value.transient is transient

    def test_a_closed_port_is_a_failed_connection(self, server: HostileServer) -> None:
        with pytest.raises(Unusable, match="the connection failed") as caught:
            fetch("http://127.0.0.1:1/a")
        assert caught.value.transient

    def test_the_next_address_is_tried_when_one_does_not_answer(self, server: HostileServer) -> None:
        server.serve("/a", b"x")
        network = Network(allow_private=True, allow_own_host=True, resolve=lambda *_: ["127.0.0.2", "::1", "127.0.0.1"])
        assert fetch(server.url("/a", "files.example"), network=network) == b"x"
