"""Who goes through a proxy, and that nobody decides it but one place."""

from __future__ import annotations

import ast
import base64
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.utils import get_environ_proxies as boto_proxies
from requests.utils import get_environ_proxies as requests_proxies

from comfy_serverless.cli.remote import Api
from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.events import EventStream, NoWebsocket
from comfy_serverless.connector.server import Server
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network, open_web_address
from comfy_serverless.proxies import VARIABLES, ProxyRefused, connect, proxy_for, spare_this_machine
from tests.patience import PATIENCE_S
from tests.small_proxy import WAYS, SmallProxy
from tests.unit.hostile_server import HostileServer, make_certificate

PACKAGE = Path("lambda/comfy_serverless")
P = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_words_about_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem", "files.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "gpu.localhost", "[::1]", "0.0.0.0", "127.1", "LOCALHOST."])
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("variable", WAYS)
def test_this_machine_is_never_behind_a_proxy(variable: str, scheme: str, host: str) -> None:
    assert proxy_for(f"{scheme}://{host}:8188/", {variable: P}) is None
    assert proxy_for(f"{scheme}://{host}:8188/", {variable: "socks5://x:1", "NO_PROXY": "elsewhere"}) is None


@pytest.mark.parametrize(
    ("url", "named_by"),
    [
        ("http://gpu.example:8188/", {"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}),
        ("ws://gpu.example:8188/ws", {"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}),
        ("https://gpu.example/", {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}),
        ("wss://gpu.example/ws", {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}),
    ],
)
def test_what_is_elsewhere_is_behind_the_proxy_of_its_scheme(url: str, named_by: set[str]) -> None:
    for variable in WAYS:
        proxy = proxy_for(url, {variable: P})
        assert (proxy is not None) == (variable in named_by)
        assert proxy is None or (proxy.url, proxy.variable) == (P, variable)


def test_the_scheme_s_own_variable_counts_more_and_the_lower_case_one_takes_the_other_away() -> None:
    both = {"HTTP_PROXY": P, "ALL_PROXY": "http://other:1"}
    assert str(proxy_for("http://gpu.example", both)) == f"{P} (HTTP_PROXY)"
    assert proxy_for("http://gpu.example", {"HTTP_PROXY": P, "http_proxy": ""}) is None
    assert proxy_for("http://gpu.example", {"HTTP_PROXY": P, "NO_PROXY": "gpu.example", "no_proxy": ""}) is not None


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("no_proxy", "is_excepted"),
    [
        *((text, True) for text in ("*", "gpu.example", ".example", "example", "*.example", "a, gpu.example ,b")),
        *(
            (text, True)
            for text in ("a gpu.example", "GPU.example", "gpu.example:8188", ".example:8188", "gpu.example.")
        ),
        *((text, False) for text in ("", ",", ".", "pu.example", "gpu.example.org", "gpu.example:80", "10.0.0.0/8")),
    ],
)
def test_no_proxy_names_hosts_domains_and_ports(variable: str, no_proxy: str, is_excepted: bool) -> None:
    proxy = proxy_for("http://gpu.example:8188", {"HTTP_PROXY": P, variable: no_proxy})
    assert (proxy is None) == is_excepted


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_excepted"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3:8188", True),
        ("10.1.2.3", "169.254.169.254,.internal", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::7]", "fd00::/8", True),
        ("[fd00::7]", "[fd00::7]", True),
        ("[fd00::7]", "[fd00::7]:8188", True),
        ("[fd00::7]", "[fd00::7]:1", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(host: str, no_proxy: str, is_excepted: bool) -> None:
    proxy = proxy_for(f"http://{host}:8188", {"HTTP_PROXY": P, "NO_PROXY": no_proxy})
    assert (proxy is None) == is_excepted


@pytest.mark.parametrize("text", ["proxy.example:3128", "http://proxy.example:3128", "http://proxy.example:3128/"])
def test_a_proxy_may_be_written_without_its_scheme(text: str) -> None:
    proxy = proxy_for("http://gpu.example", {"HTTP_PROXY": text})
    assert proxy is not None
    assert proxy.url == P


@pytest.mark.parametrize(
    "text", ["socks5://me:s3cret@p:1", "https://me:s3cret@p:1", "http://", "p:99999", "a b", "[p", "http:/p:1", "p:0"]
)
def test_a_proxy_that_cannot_be_used_is_a_wrong_setting_once_something_is_to_go_through_it(text: str) -> None:
    with pytest.raises(InvalidSetting, match="HTTPS_PROXY") as raised:
        proxy_for("https://gpu.example", {"HTTPS_PROXY": text})
    assert "s3cret" not in str(raised.value)
    assert proxy_for("https://localhost", {"HTTPS_PROXY": text}) is None


def test_a_password_may_have_quotes() -> None:
    proxy = proxy_for("https://gpu.example", {"HTTPS_PROXY": 'http://me:it\'s"s3cret"@p:1'})
    assert proxy is not None
    assert proxy.authorization == "Basic " + base64.b64encode(b'me:it\'s"s3cret"').decode()


@pytest.mark.parametrize(
    "text", ['"http://p:1"', "'http://p:1'", "'http://p:1", 'http://"p"', "http:/p:1", "http://p:1/path"]
)
def test_a_slip_of_the_pen_in_a_proxy_s_address_is_told_how_it_is_written(text: str) -> None:
    with pytest.raises(InvalidSetting, match="HTTPS_PROXY cannot be used: it must be http://host:port"):
        proxy_for("https://gpu.example", {"HTTPS_PROXY": text})


# Who comes to a proxy that is really there.


@pytest.fixture
def comfyui(server: HostileServer) -> HostileServer:
    """Enough of a ComfyUI to be asked."""
    server.serve("/prompt", b'{"exec_info": {"queue_remaining": 0}}', content_type="application/json")
    return server


def ask(url: str) -> None:
    """HTTP, then the websocket, which this ComfyUI does not have."""
    server = Server.at(url)
    assert ComfyClient(server).queue_remaining() == 0
    with pytest.raises(NoWebsocket, match="404"):
        EventStream(server, app_name="test").connect()


@pytest.mark.parametrize("variable", WAYS)
def test_nothing_between_us_and_a_comfyui_on_this_machine(
    comfyui: HostileServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy(comfyui.port) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("NO_PROXY", "169.254.169.254,.internal")
        ask(f"http://127.0.0.1:{comfyui.port}")
        ask(f"http://localhost:{comfyui.port}")
        own = Server.of_process("127.0.0.1", comfyui.port)
        assert ComfyClient(own).queue_remaining() == 0
    assert proxy.asked == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_comfyui_elsewhere_is_asked_through_the_proxy(
    comfyui: HostileServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy(comfyui.port) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("://", "://us%20er:p%40ss@"))
        ask("http://gpu.example:8188")
    assert proxy.asked == ["GET http://gpu.example:8188/prompt", "CONNECT gpu.example:8188"]
    assert set(proxy.credentials) == {"Basic " + base64.b64encode(b"us er:p@ss").decode()}
    assert {headers["Host"] for _, headers in comfyui.requests} == {"gpu.example:8188"}
    assert not any("Proxy-Authorization" in headers for _, headers in comfyui.requests)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_comfyui_with_tls_is_reached_through_a_tunnel(
    certificate: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with HostileServer(certificate=certificate) as comfyui, SmallProxy(comfyui.port) as proxy:
        comfyui.serve("/prompt", b'{"exec_info": {"queue_remaining": 0}}')
        monkeypatch.setenv(variable, proxy.url)
        ask("https://files.example")
    assert proxy.asked == ["CONNECT files.example:443", "CONNECT files.example:443"]


def test_no_proxy_holds_for_a_comfyui_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with SmallProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "gpu.invalid")
        with pytest.raises(RequestFailed):
            ComfyClient(Server.at("http://gpu.invalid:8188")).queue_remaining()
    assert proxy.asked == []


def download(url: str, network: Network) -> bytes:
    with open_web_address(url, network=network, deadline=time.monotonic() + PATIENCE_S) as stream:
        return b"".join(stream.chunks)


def network_of(address: str, certificate: Path) -> Network:
    return Network(resolve=lambda *_: [address], tls=ssl.create_default_context(cafile=str(certificate)))


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_download_asks_the_proxy_for_the_address_that_was_checked(
    certificate: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileServer(certificate=certificate) as files, SmallProxy(files.port) as proxy:
        files.serve("/a", b"bytes")
        monkeypatch.setenv(variable, proxy.url)
        assert download("https://files.example/a", network_of("93.184.215.14", certificate)) == b"bytes"
    assert proxy.asked == ["CONNECT 93.184.215.14:443"]


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "::1", "fd00:ec2::254"])
def test_a_proxy_leads_no_download_into_a_private_network(
    certificate: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy() as proxy:
        for variable in WAYS:
            monkeypatch.setenv(variable, proxy.url)
        with pytest.raises(Unusable, match="not allowed"):
            download("https://files.example/a", network_of(address, certificate))
    assert proxy.asked == []


def test_a_redirect_is_checked_like_any_address_behind_a_proxy_too(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"files.example": "93.184.215.14", "inside.example": "10.0.0.1"}
    with HostileServer(certificate=certificate) as files, SmallProxy(files.port) as proxy:
        files.redirect("/a", "https://inside.example/secret")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        network = network_of("", certificate)
        network = Network(resolve=lambda host, _: [places[host]], tls=network.tls)
        with pytest.raises(Unusable, match="private network"):
            download("https://files.example/a", network)
    assert proxy.asked == ["CONNECT 93.184.215.14:443"]


@pytest.mark.parametrize(("base", "is_through"), [("http://127.0.0.1:{}", False), ("http://api.example", True)])
def test_the_command_line_goes_the_same_ways(
    server: HostileServer, base: str, is_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy(server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        url = base.format(server.port)
        Api(url, "key").send("POST", f"{url}/done", with_key=True)
    assert bool(proxy.asked) == is_through


@pytest.mark.parametrize(("status", "hint"), [(407, "user:password@"), (403, "Forbidden")])
def test_a_proxy_that_gives_no_way_is_named_with_its_answer(status: int, hint: str) -> None:
    with SmallProxy(status=status) as small:
        proxy = proxy_for("http://gpu.example", {"ALL_PROXY": small.url.replace("://", "://me:s3cret@")})
        with pytest.raises(ProxyRefused, match=rf"ALL_PROXY.*gpu\.example:80.*{status}.*{hint}") as raised:
            connect("gpu.example", 80, proxy=proxy, timeout_s=PATIENCE_S)
    assert "s3cret" not in str(raised.value)
    with pytest.raises(ProxyRefused, match="cannot be reached"):
        connect("gpu.example", 80, proxy=proxy_for("http://x.example", {"http_proxy": small.url}), timeout_s=PATIENCE_S)


@pytest.mark.parametrize("variable", WAYS)
@pytest.mark.parametrize("no_proxy", ["", "a.example, b.example", "*", "localhost"])
def test_libraries_that_decide_by_themselves_leave_this_machine_alone(
    variable: str, no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, P)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setattr("os.environ", dict(os.environ))  # what is changed there is not put back
    spare_this_machine(os.environ)
    for url in ("http://127.0.0.1:4566", "http://localhost:8189", "https://localhost"):
        assert not [proxy for proxy in requests_proxies(url).values() if proxy], os.environ["NO_PROXY"]
        assert not boto_proxies(url)
    for url in ("http://b.example", "https://s3.amazonaws.com"):
        is_named = no_proxy == "*" or (no_proxy.startswith("a.") and "b.example" in url)
        is_of_scheme = variable.lower().startswith((url.partition(":")[0] + "_", "all_"))
        assert (proxy_for(url) is not None) == (is_of_scheme and not is_named)


def test_an_environment_without_proxies_stays_as_it_is() -> None:
    environment = {"NO_PROXY": "a.example"}
    spare_this_machine(environment)
    assert environment == {"NO_PROXY": "a.example"}


# Nobody else decides.

#: What opens connections, in every library that we use.
OPENERS = frozenset(
    {"create_connection", "connect_ex", "PoolManager", "ProxyManager", "connection_from_url", "connection_from_host"}
    | {"HTTPConnection", "HTTPSConnection", "HTTPConnectionPool", "HTTPSConnectionPool", "urlopen", "urlretrieve"}
    | {"WebSocketApp", "WebSocket", "Session", "open_connection", "ClientSession"}
)
#: Where they may be called, and why that is right.
PLACES = {
    "proxies.py": "decides",
    "cli/remote_api.py": "requests decides by the same variables; its session for this machine reads none",
    "connector/http_connections.py": "its sockets are those of its server",
    "connector/events.py": "hands the library a socket of its server",
    "connector/ports.py": "looks whether a port of this machine is open",
    "handlers/runtime_api.py": "Lambda's own address beside the function; no variable leads there through a proxy",
    "tracing/sdk.py": "its session goes through what `proxies` decides, and reads no variable",
    "fetch/web.py": "its sockets are those of `proxies`; HTTPConnection only writes the request",
}


def calls_of_openers() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                is_http = ast.unparse(node.func).startswith(("requests.", "urllib3.request"))
                if name in OPENERS or is_http:
                    yield path.relative_to(PACKAGE).as_posix(), name


def test_no_other_place_opens_connections() -> None:
    strangers = sorted({(place, name) for place, name in calls_of_openers() if place not in PLACES})
    assert strangers == [], "let `proxies` decide: connect(…, proxy=proxy_for(url))"


def test_the_places_that_may_are_there() -> None:
    assert set(PLACES) - {place for place, _ in calls_of_openers()} == set()
