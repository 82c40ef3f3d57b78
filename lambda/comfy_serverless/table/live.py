"""Which release is live: what `comfy-serverless release` writes beside DISPATCH_PARAMETER, and `table.dispatch` reads.

    /comfy-serverless/STACK/releases/NAME   a release announces itself: a target, its `release_version`, its stack
    /comfy-serverless/STACK/live            {"release": NAME, "since": …, a target's fields, "before": […], "left": […]}

`before` are the releases that were live before, the newest first: where a rollback, or a release that is gone, leads.
`left` are those that nobody goes back to, and in which jobs may still wait. The release named `default` is the one
without a name: what DISPATCH_PARAMETER says, or else the stack's own queues. Decides, without IO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from comfy_serverless.errors import InvalidSetting

#: The release without a name. No stack may be called so.
DEFAULT = "default"
#: Nobody promotes beside it: what was live, and where jobs may still be, cannot be known.
_FORGET = "delete it (aws ssm delete-parameter --name /comfy-serverless/STACK/live), and promote a release again"
#: What a release may be called, beside `DEFAULT`: `release` of infra/settings.py.
NAME = re.compile(r"[a-z0-9](-?[a-z0-9]){0,19}")
#: How many releases are remembered, the live one among them.
KEPT = 3


@dataclass(frozen=True, slots=True)
class Release:
    """A set of workers behind queues.

    Attributes:
        target: the fields of a target (`dispatch.parse_target`); none of `default`.
        version: what its image was built from (`release_file`); "" if that is not known.
        stack: the stack of CloudFormation that it is.
        since: when it was made live, in ISO 8601; "" of one that never was.
    """

    name: str
    target: Mapping[str, Any]
    version: str = ""
    stack: str = ""
    since: str = ""

    @property
    def target_text(self) -> str:
        """The target, as DISPATCH_PARAMETER would say it; "" of `default`."""
        return "" if self.name == DEFAULT else json.dumps(dict(self.target))

    @classmethod
    def announced(cls, name: str, text: str) -> Self:
        """Read a release's own parameter. Raises InvalidSetting for a text that is none."""
        fields = _object(text, f"the parameter of the release {name}", remedy=f"deploy the release {name} again")
        return cls.of({"release": name, **fields})

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read it from `live`; what a newer command has written beside goes with the target."""
        own = {"release", "release_version", "stack", "since", "before", "left"}
        return cls(
            name=str(fields["release"]),
            target={name: value for name, value in fields.items() if name not in own},
            version=str(fields.get("release_version", "")),
            stack=str(fields.get("stack", "")),
            since=str(fields.get("since", "")),
        )

    def to_fields(self) -> dict[str, Any]:
        """As `live` has it."""
        told = {"release": self.name, "release_version": self.version, "stack": self.stack, "since": self.since}
        return {**{name: value for name, value in told.items() if value}, **self.target}


UNNAMED = Release(DEFAULT, {})


@dataclass(frozen=True, slots=True)
class Live:
    """The release that jobs go to, and those before it."""

    now: Release = UNNAMED
    before: tuple[Release, ...] = ()
    left: tuple[Release, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the parameter; "" is that of a stack without any named release.

        Raises:
            InvalidSetting: somebody else has written it.
        """
        if not text:
            return cls()
        fields = _object(text, "the parameter `live`", remedy=_FORGET)
        try:
            return cls(
                Release.of(fields),
                tuple(map(Release.of, fields.get("before", ()))),
                tuple(map(Release.of, fields.get("left", ()))),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _unusable("the parameter `live`", text, _FORGET) from error

    def to_text(self) -> str:
        """The parameter's value."""
        fields = self.now.to_fields()
        for name, releases in (("before", self.before), ("left", self.left)):
            if releases:
                fields[name] = [release.to_fields() for release in releases]
        return json.dumps(fields)

    def promoted(self, release: Release, *, since: str, keep: int = KEPT) -> Self:
        """The same with another release live, and at most `keep` remembered."""
        new = replace(release, since=since)
        earlier = [one for one in (self.now, *self.before) if one.name != new.name]
        dropped = earlier[keep - 1 :]
        return replace(self, now=new, before=tuple(earlier[: keep - 1]), left=_left(self.left, dropped, new))

    def rolled_back(self, *, since: str, is_there: Callable[[Release], bool] = lambda _: True) -> Self | None:
        """The same with the last release before live again that is there; None if none is."""
        for number, release in enumerate(self.before):
            if is_there(release):
                back, passed = replace(release, since=since), [self.now, *self.before[:number]]
                return replace(self, now=back, before=self.before[number + 1 :], left=_left(self.left, passed, back))
        return None

    def emptied(self, names: set[str]) -> Self:
        """The same without those `left` releases: nothing waits in them, or they are gone."""
        return replace(self, left=tuple(one for one in self.left if one.name not in names))

    def forgotten(self, names: set[str]) -> Self:
        """The same without those releases: neither a rollback leads to them, nor are jobs looked for there."""
        rest = self.emptied(names)
        return replace(rest, before=tuple(one for one in rest.before if one.name not in names))

    def all(self) -> Iterator[Release]:
        """Every release that jobs may be in, each once, in the order in which they would go there.

        `default` is always among them; to those behind it nobody goes.
        """
        names = set()
        for release in (self.now, *self.before, UNNAMED, *self.left):
            if release.name not in names:
                names.add(release.name)
                yield release


def live_parameter(dispatch: str) -> str:
    """The name of the parameter `live`, beside DISPATCH_PARAMETER."""
    return f"{dispatch.rpartition('/')[0]}/live" if "/" in dispatch else "live"


def _left(left: tuple[Release, ...], more: list[Release], now: Release) -> tuple[Release, ...]:
    names = {one.name for one in more} | {now.name}
    return (*more, *(one for one in left if one.name not in names))


def _object(text: str, what: str, *, remedy: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise _unusable(what, text, remedy) from error
    if not isinstance(fields, dict):
        raise _unusable(what, text, remedy)
    return fields


def _unusable(what: str, text: str, remedy: str) -> InvalidSetting:
    return InvalidSetting(
        f"{what} holds {text[:200]!r}, which no `comfy-serverless release` and no stack has written: {remedy}"
    )
