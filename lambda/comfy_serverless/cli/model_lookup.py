"""Asks the hosts of models for what a workflow does not say: SHA-256 and size. Nothing is downloaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from comfy_serverless.errors import ComfyError

if TYPE_CHECKING:
    from comfy_serverless.fetch.hashes import Get
    from comfy_serverless.fetch.tokens import Tokens

#: How many hosts are asked at once, and how long for all of them, in seconds.
_AT_ONCE, _PATIENCE_S = 8, 60.0
_MOST_NAMED = 10


def looked_up(models: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The models with the SHA-256 and sizes that their hosts tell, and what could not be looked up, in words."""
    asked = [model for model in models if model["url"] and (not model["sha256"] or model["size_bytes"] is None)]
    if not asked:
        return [dict(model) for model in models], []
    from comfy_serverless.fetch.hashes import hash_of
    from comfy_serverless.fetch.sources import Unusable

    get, tokens = hosts()

    def ask(model: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        try:
            pin = hash_of(model["url"], get=get, tokens=tokens)
        except (Unusable, ComfyError) as error:
            return dict(model), f"{model['name']}: {error}"
        if pin is None:
            return dict(model), "" if model["sha256"] else f"{model['name']}: its host tells no SHA-256"
        if model["sha256"] and model["sha256"] != pin.sha256:
            return dict(model), f"{model['name']}: {pin.said_by} says another SHA-256 than the workflow: {pin.sha256}"
        return {**model, "sha256": pin.sha256, "size_bytes": pin.size_bytes}, ""

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lookup") as pool:
        answers = dict(zip(map(id, asked), pool.map(ask, asked), strict=True))
    problems = [problem for _, problem in answers.values() if problem]
    return [answers[id(model)][0] if id(model) in answers else dict(model) for model in models], _in_words(problems)


def hosts() -> tuple[Get, Tokens]:
    """How hosts of models are asked from here, for a minute, and the tokens that let in."""
    from comfy_serverless.fetch.hashes import getting
    from comfy_serverless.fetch.tokens import tokens_of
    from comfy_serverless.fetch.web import Network
    from comfy_serverless.settings import Settings

    settings = Settings.from_environment()
    return getting(Network.of(settings), deadline=time.monotonic() + _PATIENCE_S), tokens_of(settings)


def _in_words(problems: Sequence[str]) -> list[str]:
    more = len(problems) - _MOST_NAMED
    return [*problems[:_MOST_NAMED], *([f"and {more} more could not be looked up"] if more > 0 else [])]
