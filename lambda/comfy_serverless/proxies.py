"""Who goes through a proxy. This is the one place that decides it, and that asks a proxy for a way.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY mean what they mean to curl and to Python's libraries:

    this machine                          never through a proxy, whatever the variables say
    what NO_PROXY names                   not through a proxy
    http://…, and websockets beside it    HTTP_PROXY, else ALL_PROXY
    https://…, and websockets beside it   HTTPS_PROXY, else ALL_PROXY

Each is read in lower case first: an empty `http_proxy` takes HTTP_PROXY away. The proxy itself is reached by http; one
that is reached by https or SOCKS is named as a wrong setting once something is to go through it.
"""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from comfy_serverless.errors import InvalidSetting
from comfy_serverless.hosts import names_this_machine

#: Every variable that says something about proxies.
VARIABLES = tuple(
    spelled for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for spelled in (name, name.upper())
)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PLAIN = {"ws": "http", "wss": "https"}
_DEFAULT_PROXY_PORT = 80
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_LONGEST_HEAD_BYTES = 1 << 16


class ProxyRefused(ConnectionError):
    """A proxy cannot be reached, or gives no way to the host."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is reached by http. As a text it is for messages: its address and the variable it comes from.

    Attributes:
        authorization: the value of `Proxy-Authorization`; None without a user name.
    """

    variable: str
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.url} ({self.variable})"

    @property
    def url(self) -> str:
        """Its address, without user name and password."""
        return f"http://{host_and_port(self.host, self.port)}"

    @property
    def headers(self) -> dict[str, str]:
        """What it is told with each request."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy on the way to a web address or a websocket's; None if there is to be none.

    Raises:
        InvalidSetting: the variable that names it cannot be used.
    """
    environment = os.environ if environment is None else environment
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if names_this_machine(host) or _is_excepted(host, port, _value(environment, "no_proxy")[1]):
        return None
    scheme = _PLAIN.get(parts.scheme, parts.scheme)
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, text = _value(environment, name)
        if text:
            return _parse(variable, text)
    return None


def connect(host: str, port: int, *, proxy: Proxy | None, timeout_s: float) -> socket.socket:
    """A connection to a host, through a proxy if one is given, whose timeout is that of this call.

    Raises:
        OSError: there is none; ProxyRefused if that is the proxy's doing.
    """
    if proxy is None:
        return socket.create_connection((host, port), timeout=timeout_s)
    until = time.monotonic() + timeout_s
    sock = connect_to(proxy, timeout_s=timeout_s)
    try:
        _ask_for_way(sock, host_and_port(host, port), proxy, until)
        sock.settimeout(timeout_s)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_to(proxy: Proxy, *, timeout_s: float) -> socket.socket:
    """A connection to a proxy itself, for requests that name the whole address.

    Raises:
        ProxyRefused: there is none.
    """
    try:
        return socket.create_connection((proxy.host, proxy.port), timeout=timeout_s)
    except OSError as error:
        raise ProxyRefused(f"the proxy {proxy} cannot be reached: {error}") from error


def spare_this_machine(environment: MutableMapping[str, str]) -> None:
    """Have the libraries that read these variables by themselves, boto3 and requests, leave this machine alone too."""
    _, text = _value(environment, "no_proxy")
    named = [entry for entry in text.replace(",", " ").split() if entry]
    if "*" in named or not any(environment.get(name) for name in VARIABLES if name.lower() != "no_proxy"):
        return
    spared = ",".join([*named, *(host for host in _THIS_MACHINE if host not in named)])
    environment["NO_PROXY"] = environment["no_proxy"] = spared


def host_and_port(host: str, port: int) -> str:
    """As it stands in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _value(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """A variable's spelling and value; the lower-case one counts if it is there at all."""
    spelled = name if name in environment else name.upper()
    return spelled, environment.get(spelled, "").strip()


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY names a host: `*`, a domain with all below it, an address, a network; each also `:port`."""
    return any(_names(entry.lower(), host.lower(), port) for entry in no_proxy.replace(",", " ").split())


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, colon, of_port = entry.rpartition(":")
    if colon and of_port.isdecimal() and ("]" in name or ":" not in name):
        if int(of_port) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        return ip_address(host.partition("%")[0]) in ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        domain = entry.removeprefix("*").strip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _parse(variable: str, text: str) -> Proxy:
    problem = f"{variable} cannot be used: it must be http://host:port, with user:password@ before the host if need be"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # raises for a name that no host can have
    except ValueError:
        raise InvalidSetting(problem) from None
    # Quotes around it are those of a shell or of a file; in a password one is a sign like any other.
    is_plain = text.isprintable() and " " not in text and not {text[0], text[-1], *(host or "")} & {'"', "'"}
    if parts.scheme != "http" and is_plain:
        raise InvalidSetting(
            f"{variable} cannot be used: proxies that are reached by {parts.scheme[:20]!r} are not supported, only http://"
            "host:port (also for https:// addresses). Or name the host in NO_PROXY"
        )
    if not host or not is_plain or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise InvalidSetting(problem)
    return Proxy(variable, host, port or _DEFAULT_PROXY_PORT, basic_authorization(parts.username, parts.password))


def basic_authorization(user: str | None, password: str | None) -> str | None:
    """The value of an Authorization header for the user name and the password of an address; None without them."""
    if user is None and password is None:
        return None
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _ask_for_way(sock: socket.socket, target: str, proxy: Proxy, until: float) -> None:
    """Have a proxy connect this socket to `host:port`."""
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = bytearray()
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        while not head.endswith(b"\r\n\r\n"):
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("timed out")
            sock.settimeout(remaining)
            # One at a time: what comes after the head belongs to the host.
            byte = sock.recv(1)
            if not byte or len(head) >= _LONGEST_HEAD_BYTES:
                raise ConnectionError("it sent no answer that HTTP knows")
            head += byte
    except OSError as error:
        raise ProxyRefused(f"the proxy {proxy} gives no way to {target}: {error}") from error
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if not status.partition(" ")[2].startswith("2"):
        hint = "; it wants a user and a password, as in http://user:password@host:port" if " 407" in status else ""
        shown = status if status.isprintable() else ascii(status)
        raise ProxyRefused(f"the proxy {proxy} gives no way to {target}: {shown[:200]}{hint}")
