"""Makes a value of a text that was written for an input, e.g. on a command line: by the input, never by the spelling.

What ComfyUI declares of the input decides; where that is not known, the value that stands in the graph. So a prompt of
`1.10`, `true` or `{"a": 1}` stays what it is, and `5` is a number for an input that takes numbers. A whole number in a
graph says only that a number is taken: JavaScript, and so the editor, writes 8.0 as `8`. No IO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from comfy_serverless.graph.workflow import is_link, kind_in_words

_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?")
_SHOWN_TEXT = 100


class Untyped(ValueError):
    """A text is no value for an input. The message is the rest of a sentence that begins with the input's name."""


class Kind(StrEnum):
    """What an input takes."""

    TEXT = "a text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    CHOICE = "one of a list"


@dataclass(frozen=True, slots=True)
class Takes:
    """What ComfyUI declares of an input.

    Attributes:
        name: ComfyUI's name of the type.
        kind: None for one whose values no text gives: MODEL, IMAGE, a type of a pack.
        choices: for `Kind.CHOICE`, in order.
    """

    name: str
    kind: Kind | None
    choices: tuple[object, ...] = ()


_KINDS = {"STRING": Kind.TEXT, "INT": Kind.WHOLE, "FLOAT": Kind.NUMBER, "BOOLEAN": Kind.BOOLEAN, "COMBO": Kind.CHOICE}


def declared_input(declaration: Mapping[str, Any] | None, name: str) -> Takes | None:
    """What the declaration of a class (an entry of `/object_info`) says of an input; None if it says nothing we know.

    Types of any kind (`*`) and of several (`INT,FLOAT`) are none that decides.
    """
    groups = declaration.get("input") if declaration is not None else None
    for group in groups.values() if isinstance(groups, Mapping) else ():
        spec = group.get(name) if isinstance(group, Mapping) else None
        if not isinstance(spec, Sequence) or isinstance(spec, str) or not spec:
            continue
        kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
        if isinstance(kind, list):
            return Takes("COMBO", Kind.CHOICE, tuple(kind))
        if isinstance(kind, str) and kind != "*" and "," not in kind and not kind.startswith("COMFY_"):
            choices = options.get("options")
            return Takes(kind, _KINDS.get(kind), tuple(choices) if isinstance(choices, list) else ())
    return None


def typed(text: str, *, standing: object, takes: Takes | None = None) -> object:
    """The value that a text is for an input.

    Args:
        standing: the value that the graph has.
        takes: what ComfyUI declares, as far as is known.

    Raises:
        Untyped: it is none; the message says what the input takes, or that JSON is needed.
    """
    kind = takes.kind if takes is not None else _kind_of(standing)
    match kind:
        case Kind.TEXT:
            return text
        case Kind.WHOLE:
            if _WHOLE.fullmatch(text.strip()):
                return int(text)
        case Kind.NUMBER:
            if _WHOLE.fullmatch(text.strip()):
                return int(text)
            if _NUMBER.fullmatch(text.strip()) and abs(number := float(text)) != float("inf"):
                return number
        case Kind.BOOLEAN:
            if text.strip().lower() in {"true", "false"}:
                return text.strip().lower() == "true"
        case Kind.CHOICE:
            # A list may have numbers. What is not in it ComfyUI refuses, with what it has.
            choices = takes.choices if takes is not None else ()
            return next((choice for choice in choices if _spelled(choice) == text), text)
        case None:
            _refuse_without_kind(standing, takes)
    raise Untyped(f"takes {kind.value}, and {_shown(text)} is none")


def from_json(text: str) -> object:
    """The value that a text is in JSON. Raises Untyped if it is none."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinite
    except (ValueError, RecursionError) as error:
        raise Untyped(f"is to be given as JSON, and {_shown(text)} is none: {error}") from None
    return value


def _kind_of(standing: object) -> Kind | None:
    for types, kind in ((bool, Kind.BOOLEAN), (str, Kind.TEXT), (int, Kind.NUMBER), (float, Kind.NUMBER)):
        if isinstance(standing, types):
            return kind
    return None


def _refuse_without_kind(standing: object, takes: Takes | None) -> NoReturn:
    what = f"is connected to node {standing[0]!r}" if is_link(standing) else f"has {kind_in_words(standing)}"  # type: ignore[index]
    why = f"takes {takes.name}, which no text gives" if takes is not None else "what else it takes is not known here"
    raise Untyped(f"{what}, and {why}: give the value as JSON (--set-json)")


def _spelled(choice: object) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
