"""The way to the API over HTTP: its address, the key for it, and one request.

COMFY_BASE_URL and COMFY_API_KEY say where and who. The key goes to that address and to no other: redirects are not
followed. Which proxy is on the way, `proxies` decides.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from comfy_serverless.cli.remote_answers import refusal_of
from comfy_serverless.cli.remote_variables import KEY_VARIABLE, URL_VARIABLE
from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.proxies import Proxy, proxy_for
from comfy_serverless.redaction import redact_url, redacted

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 60.0
#: The beginning of all routes.
_ROUTES = "/api/v2"
_QUOTES = ('"', "'")
#: The variables that `requests` knows for a file or folder of certificates.
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is, and the key for it.

    Attributes:
        base_url: without a slash at its end, and without the beginning of all routes, which some write behind it. It
            may have another path.
    """

    base_url: str
    key: str = field(repr=False)
    _sessions: dict[Proxy | None, requests.Session] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls, base_url: str | None = None) -> Api:
        """The API at an address, by default that in COMFY_BASE_URL. Raises InvalidRequest for none, or a bad key."""
        base_url = os.environ.get(URL_VARIABLE, "").strip() if base_url is None else base_url
        key = os.environ.get(KEY_VARIABLE, "").strip()
        for name, value in ((URL_VARIABLE, base_url), (KEY_VARIABLE, key)):
            if value.startswith(_QUOTES) or value.endswith(_QUOTES):
                raise InvalidRequest(
                    f"{name} has quotation marks in it, as from a file of variables that no shell has read: write it "
                    "without them."
                )
        try:
            parts = urlsplit(base_url)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
            (parts.hostname or "").encode("idna")  # raises for a name that no host can have
        except ValueError:
            is_address = False
        if not is_address:
            raise InvalidRequest(
                f"set {URL_VARIABLE} to the address of the API, like https://….amazonaws.com (the stack's output "
                f"ApiUrl; with `make dev`: source out/dev/env.sh), and {KEY_VARIABLE} to a key of it."
            )
        if not all("!" <= letter <= "~" for letter in key):
            raise InvalidRequest(f"{KEY_VARIABLE} has characters that no key has: set it again.")
        return cls(base_url.rstrip("/").removesuffix(_ROUTES).rstrip("/"), key)

    @property
    def shown(self) -> str:
        """Its address, for people: without a password."""
        return redact_url(self.base_url)

    def refusal(self, answer: requests.Response) -> ComfyError:
        """The error that an answer of it means."""
        return refusal_of(answer, base_url=self.base_url, key=self.key)

    def is_own(self, url: str) -> bool:
        """Whether an address is this API's: the key may go there."""
        return _origin(url) == _origin(self.base_url)

    def send(self, method: str, url: str, *, with_key: bool, **arguments: Any) -> requests.Response:  # noqa: ANN401
        """One request, as it is answered; nothing is followed or repeated.

        JSON goes out as it came in: `requests` refuses the NaN that ComfyUI itself writes into graphs, and the API
        knows which of them may stay.

        Raises:
            requests.RequestException: there is no answer, or `url` is no address.
            InvalidSetting: the variable that names the proxy on the way cannot be used.
        """
        if (document := arguments.pop("json", None)) is not None:
            arguments["data"] = json.dumps(document).encode()
            arguments["headers"] = {"Content-Type": "application/json", **(arguments.get("headers") or {})}
        try:
            proxy = proxy_for(url)
            session = self._sessions.get(proxy)
            if session is None:
                session = self._sessions[proxy] = _session(proxy)
            return session.request(
                method,
                url,
                auth=_Bearer(self.key if with_key else ""),
                allow_redirects=False,
                timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
                **arguments,
            )
        except requests.RequestException:
            raise
        except ValueError as error:  # of urllib3 (LocationParseError) and of the standard library, about addresses
            raise requests.exceptions.InvalidURL(f"it is no address: {redacted(error)}") from error


class _Bearer(AuthBase):
    """Puts the key into a request; without one, nothing. As an `auth` it also keeps .netrc out."""

    def __init__(self, key: str = "") -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _ThroughProxy(HTTPAdapter):
    """Tells a proxy who asks, without writing it into its address."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        super().__init__()

    def proxy_headers(self, proxy: str) -> dict[str, str]:  # noqa: ARG002  (there is one)
        """What the proxy is told with each request."""
        return self._proxy.headers


def _session(proxy: Proxy | None) -> requests.Session:
    """Connections through a proxy, or without one. Of the environment they take only whose certificates are trusted."""
    session = requests.Session()
    session.trust_env = False
    session.verify = next(filter(None, map(os.environ.get, _CERTIFICATES)), True)
    if proxy is not None:
        session.proxies = {"http": proxy.url, "https": proxy.url}
        session.mount("http://", _ThroughProxy(proxy))
        session.mount("https://", _ThroughProxy(proxy))
    return session


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
