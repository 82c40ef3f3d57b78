"""`extra_data`: what ComfyUI gets beside a workflow. What may be kept of it, and what may not. No IO.

What ComfyUI's editor sends and is known to be harmless is part of the request, and is stored with it. All else may be
or hold a key of a service that nodes call, whatever its name is: it travels in the job's message only, never in the
table, S3 or a log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from comfy_serverless.errors import KeyInManifest
from comfy_serverless.graph.workflow import MAX_DEPTH, is_shallow


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_short(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 100)


#: What may be kept, if its value is of this form. The first is written into pictures by ComfyUI itself.
_HARMLESS: Mapping[str, Callable[[object], bool]] = {
    "extra_pnginfo": _is_object,
    "preview_method": _is_short,
    "create_time": _is_short,
}
#: Their names, for people.
KEPT = ", ".join(f"`{name}`" for name in _HARMLESS)
#: Of what is kept. An editor's workflow of a thousand nodes has a megabyte.
MAX_EXTRA_DATA_BYTES = 2_000_000
#: Of what is not: with the request (`stored_request.MAX_IN_MESSAGE_BYTES`) it fits into a message of SQS, and into the
#: 128,000 bytes of an invocation of SageMaker.
MAX_UNKEPT_BYTES = 64_000
_MOST_NAMES, _LONGEST_NAME = 20, 60
#: A shorter text in `extra_data` is no key, and may be a part of any word.
_SHORTEST_KEY = 6


def check_extra_data(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data. Raises ValueError if it is too large or too deep."""
    if not is_shallow(data):
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    kept, unkept = split(data)
    if (size_bytes := len(json.dumps(kept))) > MAX_EXTRA_DATA_BYTES:
        raise ValueError(f"has {size_bytes:,} bytes; at most {MAX_EXTRA_DATA_BYTES:,} are passed on")
    if (size_bytes := len(json.dumps(unkept))) > MAX_UNKEPT_BYTES:
        raise ValueError(
            f"has {size_bytes:,} bytes in {named(unkept)}; at most {MAX_UNKEPT_BYTES:,} beside {KEPT} are passed on, "
            "because they are kept nowhere and travel in the job's message"
        )
    return data


def split(data: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may be kept; and what may not, because it may be or hold a key."""
    kept: dict[str, Any] = {}
    unkept: dict[str, Any] = {}
    for name, value in (data or {}).items():
        is_harmless = name in _HARMLESS and _HARMLESS[name](value)
        (kept if is_harmless else unkept)[name] = value
    return kept, unkept


def keys_in(data: Mapping[str, Any] | None) -> list[str]:
    """All texts in it that may be keys, the longest first: one may be a part of another."""
    return sorted(_texts(split(data)[1]), key=len, reverse=True)


def without_keys(value: Any, keys: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON
    """A JSON value without these keys in its texts: a node may have written them there."""
    match value:
        case str():
            for key in keys:
                value = value.replace(key, "…")
            return value
        case Mapping():
            return {name: without_keys(part, keys) for name, part in value.items()}
        case list() | tuple():
            return [without_keys(part, keys) for part in value]
    return value


def _texts(value: object) -> set[str]:
    match value:
        case str():
            return {value} if len(value) >= _SHORTEST_KEY else set()
        case Mapping():
            return set[str]().union(*map(_texts, value.values()))
        case list() | tuple():
            return set[str]().union(*map(_texts, value))
    return set()


def named(names: Iterable[str]) -> str:
    """Names in alphabetical order, not too many and not too long ones, for people."""
    found = sorted(names)
    shown = ", ".join(name[:_LONGEST_NAME] for name in found[:_MOST_NAMES])
    return shown if len(found) <= _MOST_NAMES else f"{shown} and {len(found) - _MOST_NAMES} more"


def refuse_unkept(data: Mapping[str, Any] | None) -> None:
    """Raise KeyInManifest if a line of a manifest has data that may not be kept."""
    if unkept := split(data)[1]:
        raise KeyInManifest(
            f"`extra_data` has {named(unkept)}: a manifest is kept in S3, with a copy and a report, and what may be or "
            f"hold a key is not; a line may have {KEPT}. Send jobs that need more through the API."
        )
