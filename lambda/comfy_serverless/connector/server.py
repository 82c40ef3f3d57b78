"""Where a ComfyUI answers, how it is reached, and what it is told with every request. Connections to it begin here."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from comfy_serverless import proxies
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.proxies import Proxy
from comfy_serverless.redaction import redact_url
from comfy_serverless.settings import Settings

_PORTS = {"http": 80, "https": 443}
#: A secret of fewer characters would take half of every message with it.
_SHORTEST_SECRET = 4
_HIDDEN = "…"
#: What we call ourselves: some of what stands before a ComfyUI lets nobody in who has no name.
_NAME = "comfy-serverless"
#: What stands in an address between that of IPv6 and its zone, the network of this machine that it is in.
_ZONE = "%25"
_ZONED = re.compile(r"%25[^\]]*(?=\])")


@dataclass(frozen=True, slots=True)
class Server:
    """A ComfyUI's server. As a text it is for messages: no user name, no password, no query.

    Attributes:
        host: in ASCII, without brackets.
        path: what stands before every route, without a slash at the end; mostly "".
        headers: sent with every request, also that for the websocket. They are secrets.
        proxy: what stands between; None for a direct way.
        is_elsewhere: whether COMFYUI_URL names it; else it is a process of ours.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: Proxy | None = None
    is_elsewhere: bool = False
    _secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of_process(cls, host: str, port: int) -> Server:
        """That of a process on this machine: nothing stands between, and it is told nothing."""
        return cls("http", host, port)

    @classmethod
    def of_settings(cls, settings: Settings) -> Server:
        """That of COMFYUI_URL.

        Raises:
            InvalidSetting: it, or what is to be told with it, cannot be used.
        """
        return cls.at(settings.comfyui_url or "", token=settings.comfyui_token, headers=dict(settings.comfyui_headers))

    @classmethod
    def at(cls, url: str, *, token: str | None = None, headers: Mapping[str, str] | None = None) -> Server:
        """That at an address, which may have a user name and a password, percent-encoded.

        Raises:
            InvalidSetting: it is no address, what is to be told cannot be, two things are to be said as Authorization,
                or the proxy on the way cannot be used.
        """
        try:
            parts = urlsplit(url)
            host = _unzoned(parts.hostname or "").encode("idna").decode("ascii")
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):  # settings that a program has made, rather than the environment
            raise InvalidSetting("COMFYUI_URL cannot be used: it must be http://host:port") from None
        basic = proxies.basic_authorization(parts.username, parts.password)
        said = [
            *(("COMFYUI_URL (a user name)", value) for value in (basic,) if value),
            *(("COMFYUI_TOKEN", f"Bearer {value}") for value in (token,) if value),
            *(("COMFYUI_HEADERS", value) for name, value in (headers or {}).items() if name.lower() == "authorization"),
        ]
        if len(said) > 1:
            names = " and ".join(name for name, _ in said)
            raise InvalidSetting(f"{names} both say who asks (the header Authorization): set one of them only")
        others = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}
        authorization = {"Authorization": said[0][1]} if said else {}
        for name, value in (others | authorization).items():  # settings that a program has made, again
            if not f"{name}{value}".isprintable() or not f"{name}{value}".isascii() or not name or {*name} & {*": "}:
                raise InvalidSetting(f"what ComfyUI is to be told as {name!r} has characters that no header has")
        return cls(
            parts.scheme,
            host,
            port,
            quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._"),
            others | authorization,
            proxies.proxy_for(url),
            is_elsewhere=True,
            # Without a password the user name is one: that is how tokens are put into addresses.
            _secrets=_secrets_of(parts.password or parts.username, token, *others.values(), *authorization.values()),
        )

    def __str__(self) -> str:
        return redact_url(self.url)

    @property
    def url(self) -> str:
        """Its address as clients are given it: without user name and password."""
        return f"{self._origin}{self.path}"

    @property
    def websocket_url(self) -> str:
        """The address of its websocket, without client id."""
        return f"ws{self.url.removeprefix('http')}/ws"

    @property
    def _origin(self) -> str:
        is_default = self.port == _PORTS[self.scheme]
        host = self.host.replace("%", _ZONE, 1) if ":" in self.host else self.host
        bare = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{bare if is_default else proxies.host_and_port(host, self.port)}"

    def target(self, path: str) -> str:
        """What a request asks for: the path, or the whole address if a proxy has to know it."""
        is_forwarded = self.proxy is not None and self.scheme == "http"
        return f"{self._origin if is_forwarded else ''}{self.path}{path}"

    @property
    def head(self) -> str:
        """The lines that every request begins with, after the one that says what is asked for."""
        # The zone of an address is this machine's name for a network, and nobody else's business (RFC 6874).
        host = _ZONED.sub("", self._origin.partition("://")[2])
        to_proxy = self.proxy.headers if self.proxy is not None and self.scheme == "http" else {}
        given = {**to_proxy, **self.headers}
        lines = {"Host": host, "Accept-Encoding": "identity"}
        if "user-agent" not in map(str.lower, given):
            lines["User-Agent"] = _NAME
        lines |= given
        return "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def open_connection(self, *, timeout_s: float) -> socket.socket:
        """A connection for requests: to the server or, if that has to know the whole address, to its proxy.

        Raises:
            OSError: there is none.
        """
        if self.proxy is None or self.scheme != "http":
            return self.open_socket(timeout_s=timeout_s)
        sock = proxies.connect_to(self.proxy, timeout_s=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def open_socket(self, *, timeout_s: float) -> socket.socket:
        """A connection to the server itself, with TLS if its address says so.

        Raises:
            OSError: there is none.
        """
        sock = proxies.connect(self.host, self.port, proxy=self.proxy, timeout_s=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.scheme == "http":
            return sock
        try:
            return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise

    def without_secrets(self, text: str) -> str:
        """A text of this server for messages. It may repeat what it was told."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _unzoned(host: str) -> str:
    """The name of a host as sockets take it: an address has `%25` before its zone, they have `%`."""
    return host.replace(_ZONE, "%", 1) if ":" in host else host


def _secrets_of(*values: str | None) -> tuple[str, ...]:
    """What must not be shown, in every form it takes on the way, the longest first."""
    found = {
        part
        for value in values
        if value
        for part in (value, value.partition(" ")[2], quote(value, safe=""), unquote(value))
    }
    return tuple(sorted((part for part in found if len(part) >= _SHORTEST_SECRET), key=len, reverse=True))
