"""The check of values by name: compiled once for a version, and every problem told at once, in plain words. No IO.

It accepts and refuses what the schema does (`schema.schema_of`), and numbers that JSON does not have besides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from comfy_serverless.graph.file_inputs import ASSET_TYPE
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.workflow import is_link, kind_in_words
from comfy_serverless.workflows.rules import MOST_FILE_LETTERS, MOST_FILES, MOST_LETTERS, Rule, rule_of, rules_of
from comfy_serverless.workflows.version import NamedInput, Version

#: What a problem shows of a value and of choices; and the most problems that are told.
_SHOWN: Final = 60
_MOST_LISTED: Final = 8
_MOST_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value.

    Attributes:
        field: the name of the input, as it was given.
        problem: the rest of a sentence that begins with it: `is above 100`.
    """

    field: str
    problem: str


#: What is wrong with a value; "" if nothing is.
_Check = Callable[[object, Guesses], str]


@dataclass(frozen=True, slots=True)
class InputCheck:
    """What a version takes, ready to be asked for each request."""

    _checks: Mapping[str, _Check]
    _required: frozenset[str]

    @classmethod
    def of(cls, version: Version, object_info: Mapping[str, Any] | None = None) -> Self:
        """The check for a version; arguments as for `schema_of`."""
        rules = rules_of(version, object_info)
        required = frozenset(rule.of.name for rule in rules if rule.of.is_required)
        return cls({rule.of.name: _check_of(rule) for rule in rules}, required)

    def problems(self, values: Mapping[str, Any]) -> list[Problem]:
        """All problems of the values: first the values', in their order, then what is missing."""
        found: list[Problem] = []
        guesses = Guesses()
        for name, value in values.items():
            check = self._checks.get(name)
            problem = self._unknown(name, guesses) if check is None else check(value, guesses)
            if problem:
                found.append(Problem(name, problem))
                if len(found) >= _MOST_PROBLEMS:
                    return found
        missing = sorted(self._required - values.keys()) if self._required else ()
        return [*found, *(Problem(name, "is required") for name in missing)]

    def _unknown(self, name: str, guesses: Guesses) -> str:
        near = guesses.near(name, self._checks)
        if near:
            return f"is no input of this workflow (did you mean {near[0]!r}?)"
        return f"is no input of this workflow, which has: {_listed([*self._checks])}"


def problem_of(one: NamedInput, value: object) -> str:
    """What is wrong with a value for an input, as the rest of a sentence; "" if nothing is."""
    return next(problems_of(one, [value]))


def problems_of(one: NamedInput, values: Iterable[object]) -> Iterator[str]:
    """What is wrong with each of several values, as `problem_of` says it."""
    check, guesses = _check_of(rule_of(one, {})), Guesses()
    return (check(value, guesses) for value in values)


def _check_of(rule: Rule) -> _Check:
    match rule.of.kind:
        case InputKind.TEXT:
            return _text
        case InputKind.INTEGER | InputKind.NUMBER:
            return _number(rule, is_whole=rule.of.kind is InputKind.INTEGER)
        case InputKind.BOOLEAN:
            return lambda value, _: "" if isinstance(value, bool) else f"takes true or false, and {said(value)} is not"
        case InputKind.CHOICE:
            return _any_choice if rule.of.is_open else _choice(rule)
        case InputKind.FILE:
            return _file(rule)
        case InputKind.OTHER:
            return lambda value, _: "takes a value, and this is a connection to a node" if is_link(value) else ""


def _text(value: object, _: Guesses) -> str:
    if not isinstance(value, str):
        return f"takes a text, and {said(value)} is none"
    return _too_long(value, MOST_LETTERS)


def _too_long(text: str, most: int) -> str:
    return f"has {len(text):,} characters, and takes at most {most:,}" if len(text) > most else ""


def _number(rule: Rule, *, is_whole: bool) -> _Check:
    minimum, maximum = rule.minimum, rule.of.maximum
    kind = "a whole number" if is_whole else "a number"
    extent = _extent(minimum, maximum)

    def check(value: object, _: Guesses) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"takes {kind}{extent}, and {said(value)} is none"
        if isinstance(value, float):
            if not math.isfinite(value):
                return f"takes {kind}{extent}, and {value} is none that JSON has"
            if is_whole and not value.is_integer():
                return f"takes {kind}{extent}, and {value!r} is none"
        if minimum is not None and value < minimum:
            return f"takes {kind}{extent}, and {said(value)} is too small"
        if maximum is not None and value > maximum:
            return f"takes {kind}{extent}, and {said(value)} is too large"
        return ""

    return check


def _extent(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" from {minimum} on"
    return f" up to {maximum}" if maximum is not None else ""


def _choice(rule: Rule) -> _Check:
    # 1, 1.0 and true are one key of a dictionary, but true is a choice of its own.
    choices = {(isinstance(choice, bool), choice) for choice in rule.choices}
    texts = [choice for choice in rule.choices if isinstance(choice, str)]
    listed = _listed(rule.choices)

    def check(value: object, guesses: Guesses) -> str:
        if isinstance(value, str | int | float) and (isinstance(value, bool), value) in choices:
            return ""
        near = guesses.near(value, texts) if isinstance(value, str) else []
        hint = f"did you mean {near[0]!r}?" if near else f"it takes: {listed}"
        return f"does not offer {said(value)} ({hint})"

    return check


def _any_choice(value: object, _: Guesses) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"takes one of a list, and {value} is no number that JSON has"
    if not isinstance(value, str | int | float):
        return f"takes one of a list, and {said(value)} is none"
    return _too_long(value, MOST_LETTERS) if isinstance(value, str) else ""


def _file(rule: Rule) -> _Check:
    may_be_many = rule.may_be_many
    kind = f"{_MEDIA.get(rule.of.media, 'a file')}: an address (s3://, https://, data:) or the name of a file"

    def check(value: object, _: Guesses) -> str:
        if isinstance(value, str):
            return _address(value, kind)
        if isinstance(value, Mapping):
            return "" if _is_asset(value) else f"takes {kind}, and this object is no uploaded file"
        if isinstance(value, list) and may_be_many:
            return _addresses(value, kind)
        return f"takes {kind}, and {said(value)} is none"

    return check


_MEDIA: Final[Mapping[str, str]] = {
    "image": "an image",
    "video": "a video",
    "audio": "a sound",
    "model3d": "a 3D model",
}


def _address(value: str, kind: str) -> str:
    return _too_long(value, MOST_FILE_LETTERS) if value else f"takes {kind}, and an empty text is none"


def _is_asset(value: Mapping[str, Any]) -> bool:
    """Whether it is a file that was uploaded, as an object."""
    return value.get("__type") == ASSET_TYPE and isinstance(value.get("info"), Mapping)


def _addresses(values: list[object], kind: str) -> str:
    if not 0 < len(values) <= MOST_FILES:
        return f"takes 1 to {MOST_FILES} files, and these are {len(values)}"
    for number, value in enumerate(values, 1):
        if isinstance(value, Mapping) and _is_asset(value):
            continue
        if not isinstance(value, str):
            return f"takes {kind}, and number {number} of the list, {said(value)}, is none"
        if problem := _address(value, kind):
            return f"{problem} (number {number} of the list)"
    return ""


def said(value: object) -> str:
    """A value in a message, without being long."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_SHOWN else "a number of more than 60 digits"
    return kind_in_words(value)


def _listed(names: list[str] | tuple[object, ...]) -> str:
    shown = ", ".join(said(name) for name in names[:_MOST_LISTED])
    more = len(names) - _MOST_LISTED
    return f"{shown} and {more} more" if more > 0 else shown or "none"
