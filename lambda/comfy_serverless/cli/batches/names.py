"""Names for downloaded files, out of a template: `{metadata.sku}_{input}`. No IO.

template ──► its fields are known? ──► each file's values ──► a plain name ──► one that no other file has
"""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.keys import safe_name

#: Stands for a field that a line does not have.
NOTHING = "none"
#: Names that Windows keeps for devices, whatever their ending.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
#: How many names an error lists.
_SHOWN = 20
_DIGITS = re.compile(r"0*([1-9][0-9]?)d?")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a template, and the digits that a number has at least."""

    name: str
    digits: int = 0

    def value(self, values: Mapping[str, str]) -> str:
        value = values.get(self.name) or NOTHING
        return value.zfill(self.digits) if value.isdecimal() else value


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A template of names. A `/` in it makes folders; one in a value does not.

    Attributes:
        parts: one for each folder, and one for the file; each of texts and fields.
    """

    parts: tuple[tuple[str | _Field, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a template. Raises InvalidRequest, which says what is wrong with it."""
        try:
            pieces = [*string.Formatter().parse(text)]
        except ValueError as error:
            raise InvalidRequest(f"--name {text!r}: {error}. A field is {{input}}; a brace itself is {{{{.") from error
        parts: list[list[str | _Field]] = [[]]
        for literal, field, spec, conversion in pieces:
            first, *others = literal.split("/")
            parts[-1].append(first)
            parts.extend([other] for other in others)
            if field is not None:
                parts[-1].append(_field(text, field, spec or "", conversion))
        if any(part in ([""], ["."], [".."], []) for part in parts):
            raise InvalidRequest(
                f"--name {text!r} is no name below a folder: it is empty, begins or ends with /, or has . or .. as a "
                "part. --out DIR says where the files go."
            )
        return cls(tuple(map(tuple, parts)))

    @property
    def fields(self) -> list[str]:
        """The fields it has, each once, in their order."""
        return list(dict.fromkeys(piece.name for part in self.parts for piece in part if isinstance(piece, _Field)))

    def check(self, known: Collection[str]) -> None:
        """Raise InvalidRequest if a field is none of the known ones."""
        for field in self.fields:
            if field not in known:
                near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
                hint = f"Did you mean {{{near[0]}}}? " if near else ""
                raise InvalidRequest(
                    f"--name: no line of this batch has {{{field}}}. {hint}There are {_listed(known)}.",
                    details={"fields": sorted(known)},
                )

    def missing(self, values: Mapping[str, str]) -> list[str]:
        """The fields that a file has no value for; `NOTHING` stands in its name then."""
        return [field for field in self.fields if not values.get(field)]

    def name(self, values: Mapping[str, str]) -> PurePosixPath:
        """The name of a file, without its ending: harmless on every system, and maybe that of other files too."""
        return PurePosixPath(
            *(
                plain_part("".join(piece if isinstance(piece, str) else piece.value(values) for piece in part))
                for part in self.parts
            )
        )


def plain_part(text: str) -> str:
    """A harmless part of a path: as in S3's keys, never hidden, and none that Windows refuses or changes."""
    name = safe_name(text).rstrip(". ") or "_"
    if name.startswith(".") or name.partition(".")[0].lower() in _DEVICES:
        name = f"_{name}"
    return name


class TakenNames:
    """The names in a folder that are given away, each once, in whatever case letters are."""

    def __init__(self, reserved: Iterable[PurePosixPath] = ()) -> None:
        self._taken = {str(name).casefold() for name in reserved}
        #: The last number that a name was given: without it, a thousand equal names cost half a million look-ups.
        self._numbers: dict[str, int] = {}

    def candidates(self, name: PurePosixPath, ending: str) -> Iterator[PurePosixPath]:
        """Names that are free, the wanted one first: `fox.png`, `fox-2.png`, …"""
        wanted = f"{name}{ending}".casefold()
        number = self._numbers.get(wanted, 1)
        while True:
            path = name.with_name(f"{name.name}{'' if number == 1 else f'-{number}'}{ending}")
            self._numbers[wanted] = number
            if str(path).casefold() not in self._taken:
                yield path
            number += 1

    def take(self, path: PurePosixPath) -> None:
        """Give a name away."""
        self._taken.add(str(path).casefold())


def _field(template: str, name: str, spec: str, conversion: str | None) -> _Field:
    if conversion:
        name = f"{name}!{conversion}"  # a label may be called so
    digits = _DIGITS.fullmatch(spec)
    if spec and digits is None:
        name = f"{name}:{spec}"
    if not name:
        raise InvalidRequest(f"--name {template!r}: a field has no name. A field is {{input}}; a brace itself is {{{{.")
    return _Field(name, int(digits[1]) if digits else 0)


def _listed(known: Collection[str]) -> str:
    names = [f"{{{name}}}" for name in known]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
