"""Tokens of hosts of models: each is sent to its own host, over TLS, and nowhere else.

A token is a secret of the operator's. It is in no message, no log, no address and no `repr`, and a request that has
once left its host never carries it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from comfy_serverless.fetch.model_hosts import CIVITAI, HUGGING_FACE

if TYPE_CHECKING:
    from comfy_serverless.settings import Settings

_HTTPS_PORT = 443


class Tokens:
    """What lets us in at hosts.

    Args:
        by_host: for each host (`name`, or `name:port`) a function that returns its token, or None if there is none. It
            is called when a request goes there, and raises ComfyError if the token cannot be had.
    """

    __slots__ = ("_by_authority",)

    def __init__(self, by_host: Mapping[str, Callable[[], str | None]]) -> None:
        self._by_authority = {
            host if ":" in host else f"{host}:{_HTTPS_PORT}": token for host, token in by_host.items()
        }

    def headers_for(self, target: SplitResult) -> dict[str, str]:
        """The headers for a request to an address whose host and port have been read: exactly that host, over TLS."""
        if target.scheme != "https":
            return {}
        token_of = self._by_authority.get(f"{target.hostname}:{target.port or _HTTPS_PORT}")
        token = token_of() if token_of is not None else None
        return {"Authorization": f"Bearer {token}"} if token else {}


NO_TOKENS = Tokens({})


def tokens_of(settings: Settings) -> Tokens:
    """The tokens that the settings name: they themselves, or what keeps them on AWS, which is read when needed."""
    return Tokens(
        {
            HUGGING_FACE.host: _token(settings.hf_token, settings.hugging_face_token_parameter),
            CIVITAI.host: _token(settings.civitai_token, settings.civitai_token_parameter),
        }
    )


def _token(given: str | None, kept_at: str | None) -> Callable[[], str | None]:
    if given is not None or kept_at is None:
        return lambda: given
    from comfy_serverless.aws.kept_secrets import KeptSecret  # only a stack keeps tokens on AWS

    return KeptSecret(kept_at).value
