"""How an input that callers know differs from what workers declare of it now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from comfy_serverless.graph.inputs import Input, InputKind, Role
from comfy_serverless.workflows.checkup import Kind
from comfy_serverless.workflows.version import NamedInput

#: The choices that are named, and the letters of a value.
_NAMED: Final = 5
_SHOWN: Final = 80


def changes_of(one: NamedInput, now: Input) -> Iterator[tuple[Kind, str]]:
    """What has changed, each the rest of a sentence that begins with the input."""
    for kind, text in (
        (Kind.TYPE, _type_change(one, now)),
        (Kind.CHOICES, _choices_change(one, now)),
        (Kind.LIMITS, _limits_change(one, now)),
    ):
        if text:
            yield kind, text


def shown(value: object) -> str:
    """A value in a message."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_PLAIN: Final = frozenset({InputKind.TEXT, InputKind.INTEGER, InputKind.NUMBER, InputKind.BOOLEAN, InputKind.CHOICE})


def _type_change(one: NamedInput, now: Input) -> str:
    is_told = one.kind in _PLAIN and now.kind in _PLAIN
    is_wider = (one.kind, now.kind) == (InputKind.INTEGER, InputKind.NUMBER)
    return (
        f"took {one.kind.value}, and takes {now.kind.value} now"
        if is_told and one.kind != now.kind and not is_wider
        else ""
    )


def _choices_change(one: NamedInput, now: Input) -> str:
    """How the choices that callers know differ from those there are. Models come and go: that more are there is none.

    Of choices that the author has narrowed it is not known which others there were.
    """
    if one.kind is not InputKind.CHOICE or now.kind is not InputKind.CHOICE or now.is_open or one.is_open:
        return ""
    if not one.choices:
        return ""
    gone = [choice for choice in one.choices if choice not in now.choices]
    is_told_all = not one.is_narrowed and one.role is not Role.MODEL
    new = [choice for choice in now.choices if choice not in one.choices] if is_told_all else []
    parts = (
        f"has {words}: {_listed(choices)}" for words, choices in (("lost choices", gone), ("new ones", new)) if choices
    )
    return " and ".join(parts)


def _listed(choices: Sequence[object]) -> str:
    more = f" and {len(choices) - _NAMED} more" if len(choices) > _NAMED else ""
    return ", ".join(map(shown, choices[:_NAMED])) + more


def _limits_change(one: NamedInput, now: Input) -> str:
    if one.role is Role.SEED:
        return ""
    told = []
    if one.minimum is not None and now.minimum is not None and now.minimum > one.minimum:
        told.append(f"takes at least {now.minimum:g} now, and took {one.minimum:g}")
    if one.maximum is not None and now.maximum is not None and now.maximum < one.maximum:
        told.append(f"takes at most {now.maximum:g} now, and took {one.maximum:g}")
    return "; ".join(told)
