"""What can be said of a chosen input, and whether it fits what ComfyUI takes. No IO."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.near import Guesses
from comfy_serverless.workflows.check import problem_of, problems_of, said
from comfy_serverless.workflows.describing import plain_text
from comfy_serverless.workflows.version import NamedInput

#: Notes a mistake: the field, "" for the input itself, and what is wrong with it.
Tell = Callable[[str, str], None]

MEDIA: Final = ("image", "video", "audio", "model3d", "any")
_MOST_TARGETS: Final = 1_000
_MOST_FIELDS: Final = 50
_MOST_CHOICES: Final = 1_000
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 200, 2_000


class _Unsaid(Enum):
    """What stands for a field that is not there: null is a value."""

    UNSAID = "unsaid"


UNSAID: Final = _Unsaid.UNSAID


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What somebody says of an input; None and UNSAID for nothing.

    Attributes:
        targets: addresses.
    """

    targets: tuple[str, ...] = ()
    title: str | None = None
    description: str | None = None
    required: bool | None = None
    default: object = UNSAID
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str | int | float, ...] | None = None
    media: str | None = None


#: The fields by name, and what each is.
FIELDS: Final[Mapping[str, str]] = {
    "target": "an address like 6.text",
    "targets": "a list of addresses",
    "title": "a text",
    "description": "a text",
    "required": "true or false",
    "default": "a value",
    "minimum": "a number",
    "maximum": "a number",
    "step": "a number above 0",
    "choices": "a list of texts or numbers",
    "media": f"one of {', '.join(MEDIA)}",
}


def read_fields(raw: object, tell: Tell) -> Fields | None:
    """What is said of an input; None if nothing can be made of it. Mistakes are told."""
    if raw is None:
        return Fields()
    if isinstance(raw, str | list):
        raw = {"targets": raw} if isinstance(raw, list) else {"target": raw}
    if not isinstance(raw, Mapping):
        tell("", "is no address and no mapping: write an address like 6.text, or `{target: 6.text, …}`")
        return None
    found: dict[str, Any] = {}
    if len(raw) > _MOST_FIELDS:
        tell("", f"has {len(raw):,} fields, and there are {len(FIELDS)}: {', '.join(FIELDS)}")
        return None
    for name, value in raw.items():
        if name not in FIELDS:
            near = Guesses().near(str(name), FIELDS)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(FIELDS)}"
            tell(str(name)[:100], f"is no field of an input ({hint})")
        elif not _IS[name](value):
            tell(name, f"should be {FIELDS[name]}")
        else:
            found[name] = tuple(value) if isinstance(value, list) and name in ("targets", "choices") else value
    targets = (*((found.pop("target"),) if "target" in found else ()), *found.pop("targets", ()))
    return Fields(targets=targets, **found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_address(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_list(value: object, most: int, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= most and all(map(fits, value))


_IS: Final[Mapping[str, Callable[[object], bool]]] = {
    "target": _is_address,
    "targets": lambda value: _is_list(value, _MOST_TARGETS, _is_address),
    "title": _is_text,
    "description": _is_text,
    "required": lambda value: isinstance(value, bool),
    "default": lambda _: True,
    "minimum": _is_number,
    "maximum": _is_number,
    "step": lambda value: _is_number(value) and value > 0,  # type: ignore[operator]  # a number by then
    "choices": lambda value: _is_list(value, _MOST_CHOICES, lambda one: isinstance(one, str) or _is_number(one)),
    "media": lambda value: value in MEDIA,
}


def restricted(one: NamedInput, fields: Fields, tell: Tell) -> NamedInput:
    """The input as it is said to be. What it cannot be is told."""
    changed = replace(
        one,
        title=one.title if fields.title is None else plain_text(fields.title, _LONGEST_TITLE),
        description=one.description
        if fields.description is None
        else plain_text(fields.description, _LONGEST_DESCRIPTION),
        step=one.step if fields.step is None else fields.step,
    )
    changed = _with_media(changed, fields, tell)
    changed = _with_bounds(changed, fields, tell)
    changed = _with_choices(changed, fields, tell)
    return _with_default(changed, fields, tell)


def _with_media(one: NamedInput, fields: Fields, tell: Tell) -> NamedInput:
    if fields.media is None:
        return one
    if one.kind not in (InputKind.FILE, InputKind.TEXT, InputKind.CHOICE):
        tell("media", f"is for files, and the input takes {one.kind}")
        return one
    media = "" if fields.media == "any" else fields.media
    if one.kind is InputKind.FILE:
        return replace(one, media=media)
    # What stands in the graph is a name that means something to the author's machine alone.
    return replace(one, kind=InputKind.FILE, media=media, choices=(), is_open=False, default=None, is_required=True)


def _with_bounds(one: NamedInput, fields: Fields, tell: Tell) -> NamedInput:
    given = {"minimum": fields.minimum, "maximum": fields.maximum, "step": fields.step}
    if one.kind not in (InputKind.INTEGER, InputKind.NUMBER):
        for name, value in given.items():
            if value is not None:
                tell(name, f"is for numbers, and the input takes {one.kind}")
        return one
    minimum = one.minimum if fields.minimum is None else fields.minimum
    maximum = one.maximum if fields.maximum is None else fields.maximum
    if fields.minimum is not None and one.minimum is not None and fields.minimum < one.minimum:
        tell("minimum", f"is {fields.minimum}, and ComfyUI takes {one.minimum} at least")
    if fields.maximum is not None and one.maximum is not None and fields.maximum > one.maximum:
        tell("maximum", f"is {fields.maximum}, and ComfyUI takes {one.maximum} at most")
    if minimum is not None and maximum is not None and minimum > maximum:
        tell("minimum" if fields.minimum is not None else "maximum", f"leaves nothing: {minimum} is above {maximum}")
    return replace(one, minimum=minimum, maximum=maximum)


def _with_choices(one: NamedInput, fields: Fields, tell: Tell) -> NamedInput:
    if fields.choices is None:
        return one
    choices = tuple(dict.fromkeys(fields.choices))
    if one.kind not in (InputKind.CHOICE, InputKind.TEXT, InputKind.INTEGER, InputKind.NUMBER):
        tell("choices", f"are for texts, numbers and lists, and the input takes {one.kind}")
        return one
    wrong = ((choice, problem) for choice, problem in zip(choices, problems_of(one, choices), strict=True) if problem)
    for choice, problem in wrong:  # one message for all of them
        tell("choices", f"has {said(choice)}, and the input {problem}")
        break
    return replace(one, kind=InputKind.CHOICE, choices=choices, is_open=False, is_narrowed=True)


def _with_default(one: NamedInput, fields: Fields, tell: Tell) -> NamedInput:
    default, is_required = one.default, one.is_required
    if fields.default is not UNSAID:
        default, is_required = fields.default, fields.default is None
    elif default is not None and problem_of(one, default):
        # Narrowed by its author: what stands in the graph is none of it.
        is_narrowed = (fields.minimum, fields.maximum, fields.choices) != (None, None, None)
        if is_narrowed and fields.required is not True:
            tell(
                "default",
                f"has to be given: {said(default)}, which stands in the workflow, is left out by the choices",
            )
    if fields.required is not None:
        is_required = fields.required
    if fields.required and fields.default not in (UNSAID, None):
        tell("default", "is never taken, because the input is required: leave one of the two out")
    if fields.default not in (UNSAID, None) and (problem := problem_of(one, default)):
        tell("default", problem)
    return replace(one, default=None if is_required else default, is_required=is_required)
