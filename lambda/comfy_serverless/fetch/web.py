"""Fetches from a web address that a stranger chose, with nothing left to chance: see `open_web_address`.

Built on `http.client` because higher libraries lack three things: the connection goes to the very address that was
checked, one clock bounds everything from the handshake to the last byte, and no credentials are ever taken from the
environment.

A proxy of the environment is asked for a way to that checked address, not to the name: it would look the name up again,
and could be led into a private network. So TLS, which names the host, ends at the host itself, and what is refused
without a proxy is refused with one.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import certifi

from comfy_serverless.fetch.addresses import Resolver, checked_addresses, is_aws_here, system_resolver
from comfy_serverless.fetch.model_hosts import Headers, refusal
from comfy_serverless.fetch.sources import CHUNK_BYTES, Stream, Unusable
from comfy_serverless.fetch.tokens import NO_TOKENS, Tokens
from comfy_serverless.hosts import is_of_this_machine
from comfy_serverless.proxies import connect, proxy_for
from comfy_serverless.redaction import redact_url, redacted
from comfy_serverless.settings import Settings

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: One address of a host gets this long before the next one is tried, in seconds.
_CONNECT_TIMEOUT_S = 10.0
_MAX_URL_LENGTH = 8192
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "comfy-serverless"}
_REASONS = {
    401: "asks for credentials; use a presigned link or s3://",
    403: "refuses access; if the link was presigned, it may have expired",
    404: "has no such file",
    410: "has the file no longer",
}


@dataclass(frozen=True)
class Network:
    """The addresses that may be reached, and how names become addresses.

    Attributes:
        allow_private: whether addresses of private networks, and http without TLS, are allowed.
        allow_own_host: whether those of this machine are, too: for tests and `make dev`.
        closed: returns the services that may never be reached, each as `host:port` or as a web address.
        tls: the authorities that certificates are checked against; by default certifi's and the system's.
    """

    allow_private: bool = False
    allow_own_host: bool = False
    closed: Callable[[], Sequence[str]] = tuple
    resolve: Resolver = system_resolver
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: Settings, *, engine: Callable[[], str | None] = lambda: None) -> Network:
        """What the settings allow. `engine` returns where ComfyUI is: it is never reached, nor is the Runtime API."""

        def closed() -> list[str]:
            services = (engine(), settings.comfyui_url, os.environ.get("AWS_LAMBDA_RUNTIME_API"))
            return [service for service in services if service]

        is_allowed = settings.allow_private_addresses
        return cls(allow_private=is_allowed, allow_own_host=is_allowed and is_aws_here(), closed=closed)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The context of all connections; read once, because the authorities take some ten milliseconds."""
        if self.tls is not None:
            return self.tls
        context = ssl.create_default_context(cafile=certifi.where())
        context.load_default_certs()
        return context


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of a file: its first and last byte, of the version with this ETag ("": of any)."""

    first: int
    last: int
    etag: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask a server for it."""
        condition = {"If-Range": self.etag} if self.etag else {}
        return {"Range": f"bytes={self.first}-{self.last}", **condition}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says to one request.

    Attributes:
        refusal: why a host of models hands a file out to others only, and what to do; None if it is no such refusal.
    """

    status: int
    headers: Headers
    body: bytes = field(default=b"", repr=False)
    refusal: str | None = None

    @property
    def location(self) -> str:
        """Where a redirect leads; "" if it is none."""
        return _location(self.headers) if self.status in _REDIRECTS else ""


@contextmanager
def open_web_address(
    url: str, *, network: Network, deadline: float, byte_range: ByteRange | None = None, tokens: Tokens | None = None
) -> Iterator[Stream]:
    """Read a web address as a stream.

    The host is resolved once for each request, all its addresses are checked, and the connection goes to a checked
    one; TLS names and verifies the host itself. Each of at most five redirects is treated like a new address. The
    deadline, on the monotonic clock, holds for everything until the last byte. A server that is asked for a
    `byte_range` may send the whole file all the same. Where `tokens` are given it is a model: a token goes to its own
    host, as long as no redirect has led away from the first one.

    Raises:
        Unusable: not allowed, not found, not answered as it should be, or not in time.
        ComfyError: a token cannot be had.
    """
    first = _allowed_parts(url, network=network)
    for _ in range(MAX_REDIRECTS + 1):
        target = _allowed_parts(url, network=network)
        if (target.scheme, target.netloc) != (first.scheme, first.netloc):
            tokens = NO_TOKENS if tokens is not None else None
        token = tokens.headers_for(target) if tokens is not None else {}
        connection = _Connection(target, network=network, deadline=deadline)
        with _explained(deadline):
            try:
                response = connection.request("GET", {**(byte_range.headers if byte_range else {}), **token})
                if tokens is not None:
                    _check_refusal(target, response, with_token=bool(token))
                if response.status in _REDIRECTS and (location := _location(response.headers)):
                    url = urljoin(url, location)
                    continue
                _check_answer(response, is_part=byte_range is not None and response.status == 206)
                yield _stream_of(response)
                return
            finally:
                connection.close()
    raise Unusable(f"is redirected more than {MAX_REDIRECTS} times, last to {redact_url(url)}")


def ask(
    url: str,
    *,
    method: Literal["GET", "HEAD"],
    network: Network,
    deadline: float,
    tokens: Tokens = NO_TOKENS,
    most_bytes: int = 0,
) -> Answer:
    """Send one request, and return what the server says; redirects are not followed.

    The address is checked as for `open_web_address`, and Unusable raised alike: also if a body that may be read has
    more bytes than `most_bytes`. A body that is no answer to the question (of a redirect, of a failure) is not read.
    """
    target = _allowed_parts(url, network=network)
    token = tokens.headers_for(target)
    connection = _Connection(target, network=network, deadline=deadline)
    with _explained(deadline):
        try:
            response = connection.request(method, token)
            reason = refusal(target, response.status, response.headers, with_token=bool(token))
            body = b""
            if response.status == 200 and method == "GET":
                _check_answer(response, is_part=False)
                body = _read(response, most_bytes)
            return Answer(response.status, response.headers, body, reason)
        finally:
            connection.close()


def post(url: str, *, body: bytes, headers: Mapping[str, str], network: Network, deadline: float) -> int:
    """Send a body to a web address that a stranger chose, and return the status; the answer itself is not read.

    The address is checked as for `open_web_address`, and Unusable raised alike. Redirects are not followed.
    """
    connection = _Connection(_allowed_parts(url, network=network), network=network, deadline=deadline)
    with _explained(deadline):
        try:
            return connection.request("POST", headers, body).status
        finally:
            connection.close()


@contextmanager
def _explained(deadline: float) -> Iterator[None]:
    """Turn the network's exceptions into a reason."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unusable(f"the server's certificate is not valid: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) and time.monotonic() >= deadline - 0.01:
            raise _too_slow() from error
        reason = redacted(error) or type(error).__name__
        raise Unusable(f"the connection failed: {reason}", transient=True) from error


def _too_slow() -> Unusable:
    return Unusable("did not arrive in time (INPUT_TIMEOUT_S, or the job's deadline)", timed_out=True)


def _allowed_parts(url: str, *, network: Network) -> SplitResult:
    """The parts of an address that may be requested, its host in ASCII, its path and query encoded."""
    if len(url) > _MAX_URL_LENGTH or any(char <= " " or char in '\\\x7f<>"' for char in url):
        raise Unusable("is not a web address: it is too long, or has spaces (write %20) or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise Unusable(f"is not a web address: {error}") from None
    if parts.scheme not in _PORTS or (parts.scheme == "http" and not network.allow_private):
        raise Unusable(f"leads to {parts.scheme or 'no'}:, only https: is allowed")
    if parts.username is not None or parts.password is not None:
        raise Unusable("has a user name or password in it; use a presigned link or s3://")
    if not host or "%" in host:
        raise Unusable("is not a web address: it has no usable host")
    port = _PORTS[parts.scheme] if port is None else port
    if port < 1024 and port not in _PORTS.values() and not network.allow_private:
        raise Unusable(f"uses port {port}, which belongs to another service")
    return SplitResult(
        parts.scheme,
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._"),
        quote(parts.query, safe="/%:@!$&'()*+,;=~-._?"),
        "",
    )


def _stream_of(response: http.client.HTTPResponse) -> Stream:
    size, headers = response.length, response.headers
    content_range = headers.get("Content-Range", "") if response.status == 206 else ""
    return Stream(_body(response, size), size, headers.get("Content-Type", ""), content_range, headers.get("ETag", ""))


def _check_refusal(target: SplitResult, response: http.client.HTTPResponse, *, with_token: bool) -> None:
    if (reason := refusal(target, response.status, response.headers, with_token=with_token)) is not None:
        raise Unusable(reason)


def _check_answer(response: http.client.HTTPResponse, *, is_part: bool) -> None:
    status = response.status
    if status != 200 and not is_part:
        reason = _REASONS.get(status, "does not deliver the file")
        raise Unusable(f"the server {reason} (HTTP {status})", transient=status == 429 or status >= 500)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):  # a small body could unpack to an endless one
        raise Unusable(f"is sent compressed ({encoding[:40]}) although that was not asked for")


def _location(headers: Headers) -> str:
    """Where a redirect leads. `http.client` reads all headers as Latin-1, but servers write UTF-8."""
    return headers.get("Location", "").encode("latin-1", "replace").decode("utf-8", "replace")


def _read(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    body = bytearray()
    for chunk in _body(response, response.length):
        body += chunk
        if len(body) > most_bytes:
            raise Unusable(f"the server's answer has more than {most_bytes:,} bytes")
    return bytes(body)


def _body(response: http.client.HTTPResponse, size: int | None) -> Iterator[bytes]:
    missing = size
    while missing != 0 and (chunk := response.read1(min(CHUNK_BYTES, missing or CHUNK_BYTES))):
        missing = None if missing is None else missing - len(chunk)
        yield chunk
    if missing:
        raise Unusable(f"ended {missing} bytes before the length the server had announced", transient=True)


class _Connection:
    """One request to a checked address of a host."""

    def __init__(self, target: SplitResult, *, network: Network, deadline: float) -> None:
        self._target, self._network, self._deadline = target, network, deadline
        self._connection = http.client.HTTPConnection("", blocksize=CHUNK_BYTES)

    def request(self, method: str, headers: Mapping[str, str], body: bytes = b"") -> http.client.HTTPResponse:
        """Connect, send the request and read the answer's head."""
        host, port = self._target.hostname or "", self._target.port or 0
        addresses = checked_addresses(
            host,
            port,
            allow_private=self._network.allow_private,
            allow_own_host=self._network.allow_own_host,
            closed=self._network.closed(),
            resolve=self._network.resolve,
        )
        sock = self._connect(addresses, port)
        self._connection.sock = sock
        if self._target.scheme == "https":
            sock = self._network.ssl_context.wrap_socket(sock, server_hostname=host)
            self._connection.sock = sock
        path = self._target.path + (f"?{self._target.query}" if self._target.query else "")
        is_default_port = port == _PORTS[self._target.scheme]
        named = f"[{host}]" if ":" in host else host
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        self._connection.putheader("Host", named if is_default_port else f"{named}:{port}")
        for header, value in (_HEADERS | dict(headers)).items():
            self._connection.putheader(header, value)
        sock.settimeout(_remaining(self._deadline))
        if body:
            self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders(body or None)
        response = http.client.HTTPResponse(_BoundedSocket(sock, self._deadline), method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def close(self) -> None:
        self._connection.close()

    def _connect(self, addresses: Sequence[str], port: int) -> socket.socket:
        is_here = any(map(is_of_this_machine, addresses))  # whatever its name is: tests, and `make dev`
        proxy = None if is_here else proxy_for(self._target.geturl())
        failure: OSError | None = None
        for address in addresses:
            timeout_s = min(_remaining(self._deadline), _CONNECT_TIMEOUT_S)
            try:
                sock = connect(address, port, proxy=proxy, timeout_s=timeout_s)
            except OSError as error:
                failure = error
            else:
                sock.settimeout(_remaining(self._deadline))
                return sock
        raise failure or OSError("no address")


class _BoundedSocket(io.RawIOBase):
    """A socket as `http.client` needs it for reading, with one deadline for all reads together."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock, self._deadline = sock, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"  # noqa: S101 - http.client's only use
        return io.BufferedReader(self, CHUNK_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        self._sock.settimeout(_remaining(self._deadline))
        return self._sock.recv_into(buffer)


def _remaining(deadline: float) -> float:
    """Seconds left; never 0, which would mean "do not wait at all"."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise _too_slow()
    return remaining
