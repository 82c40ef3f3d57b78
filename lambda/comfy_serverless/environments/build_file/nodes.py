"""Reads YAML of strangers into nodes that know their place in the text, within bounds.

Anchors, aliases, merge keys, tags, several documents and keys that stand twice are refused, as the official reader
refuses the first two: what is left is a tree as large as its text. Places count letters of the text, from 0.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comfy_serverless.errors import InvalidBuildFile

MOST_BYTES: Final = 2_000_000
_MOST_DEPTH, _MOST_NODES = 40, 200_000
#: As many problems are told in words; `details` has all.
_MOST_TOLD = 30
_STANDARD: Final = "tag:yaml.org,2002:"
#: The tags that are taken where they are written out (`!!str 1.10`); the others make objects, or are somebody's own.
_TAGS: Final = frozenset(f"{_STANDARD}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot stay as it is: the line (from 1), the key (`definition.models[0].type`), and what to do."""

    line: int
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, number or null. `kind` is what YAML takes it for: "str", "null", "int", "float", "bool", "timestamp"."""

    value: str
    kind: str
    style: str
    start: int
    end: int
    line: int


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping. `end` is where its last value ends, without the blank lines and comments behind it."""

    items: tuple[tuple[Scalar, Node], ...]
    flow: bool
    start: int
    end: int
    line: int

    def get(self, name: str) -> Node | None:
        """The value of a key; None if there is no such key."""
        return next((value for key, value in self.items if key.value == name), None)

    def key(self, name: str) -> Scalar | None:
        """The key of that name itself."""
        return next((key for key, _ in self.items if key.value == name), None)


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence; `end` as of `Fields`."""

    values: tuple[Node, ...]
    flow: bool
    start: int
    end: int
    line: int


Node = Scalar | Fields | Items


class _Broken(Exception):
    """The text cannot be read to its end."""

    def __init__(self, line: int, key: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(line, key, message)


def read_text(path: Path) -> str:
    """The text of a build file, each byte of it: line ends and a byte order mark stay.

    Raises InvalidBuildFile if it cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(path.stat().st_mode):
                raise InvalidBuildFile(f"{path} is no file. Name a comfy-build.yaml.")
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidBuildFile(f"{path} cannot be read: {reason}.") from error
    if len(content) > MOST_BYTES:
        raise InvalidBuildFile(f"{path} has more than {MOST_BYTES:,} bytes: that is no comfy-build.yaml.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise refused(
            path.name, [Problem(line, "", f"it is not UTF-8 ({_other_encoding(content)}): save it as UTF-8")]
        ) from error


def tree_of(text: str, *, name: str) -> tuple[Node, list[Problem]]:
    """The tree of a text, and the keys that stand twice in it.

    Raises InvalidBuildFile if it is no YAML, or YAML beyond what is taken here.
    """
    import yaml

    if len(text) > MOST_BYTES:
        raise InvalidBuildFile(f"{name} has more than {MOST_BYTES:,} bytes: that is no comfy-build.yaml.")
    mark = 1 if text.startswith("\ufeff") else 0
    try:
        text[mark:].encode()
        builder = _Builder(yaml, text, mark)
        return builder.document(), builder.problems
    except UnicodeEncodeError as error:
        problem = Problem(
            _line_at(text, error.start + mark), "", "it has half of a character (a lone surrogate): delete it"
        )
    except _Broken as broken:
        problem = broken.problem
    except yaml.YAMLError as error:
        problem = _syntax(error, text)
    raise refused(name, [problem])


def refused(name: str, problems: list[Problem]) -> InvalidBuildFile:
    """The error that names every problem."""
    told = [f"line {one.line}{f', {one.key}' if one.key else ''}: {one.message}" for one in problems[:_MOST_TOLD]]
    if len(problems) > _MOST_TOLD:
        told.append(f"and {len(problems) - _MOST_TOLD} more")
    head = f"{name}, {told[0]}" if len(told) == 1 else "\n  ".join([f"{name} has {len(problems)} problems:", *told])
    return InvalidBuildFile(
        head, details={"problems": [{"line": one.line, "key": one.key, "message": one.message} for one in problems]}
    )


class _Builder:
    """Builds the tree of a text's events, with a bound on depth and number."""

    def __init__(self, yaml: Any, text: str, offset: int) -> None:  # noqa: ANN401 - a module
        self._yaml = yaml
        self._offset = offset
        # libyaml is some twenty times as fast as plain Python; both count letters alike (tests compare them).
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[Any] = yaml.parse(text[offset:], Loader=loader)
        self._resolver = yaml.resolver.Resolver()
        self._count = 0
        self.problems: list[Problem] = []

    def document(self) -> Node:
        """The only document there is."""
        yaml = self._yaml
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.events.DocumentStartEvent | yaml.events.StreamStartEvent):
                continue
            if isinstance(event, yaml.events.DocumentEndEvent | yaml.events.StreamEndEvent):
                continue
            if root is not None:
                raise _Broken(
                    _line(event), "", "a second document begins: a build file is one, without `---` inside it"
                )
            root = self._node(event, "", 0)
        if root is None:
            raise _Broken(1, "", "it is empty: `comfy-serverless env init` writes one")
        return root

    def _node(self, event: Any, key: str, depth: int) -> Node:  # noqa: ANN401
        yaml = self._yaml
        self._count += 1
        if depth > _MOST_DEPTH or self._count > _MOST_NODES:
            what = f"more than {_MOST_DEPTH} levels" if depth > _MOST_DEPTH else f"more than {_MOST_NODES:,} values"
            raise _Broken(_line(event), key[:200], f"it has {what}: that is no comfy-build.yaml")
        if isinstance(event, yaml.events.AliasEvent) or event.anchor is not None:
            raise _Broken(_line(event), key, "anchors (&name) and aliases (*name) are not taken: write the value out")
        tag = str(event.tag or "")
        if tag and tag not in _TAGS:
            raise _Broken(_line(event), key, f"the tag {tag[:60]!r} is not taken: delete it")
        if isinstance(event, yaml.events.ScalarEvent):
            return self._scalar(event, tag)
        if isinstance(event, yaml.events.SequenceStartEvent):
            return self._items(event, key, depth)
        return self._fields(event, key, depth)

    def _scalar(self, event: Any, tag: str) -> Scalar:  # noqa: ANN401
        tag = tag or self._resolver.resolve(self._yaml.ScalarNode, event.value, event.implicit)
        return Scalar(
            event.value,
            tag.removeprefix(_STANDARD),
            event.style or "",
            event.start_mark.index + self._offset,
            event.end_mark.index + self._offset,
            _line(event),
        )

    def _items(self, start: Any, key: str, depth: int) -> Items:  # noqa: ANN401
        values: list[Node] = []
        for event in self._events:
            if isinstance(event, self._yaml.events.SequenceEndEvent):
                break
            values.append(self._node(event, f"{key}[{len(values)}]", depth + 1))
        begin = start.start_mark.index + self._offset
        end = event.end_mark.index + self._offset if start.flow_style else values[-1].end if values else begin
        return Items(tuple(values), bool(start.flow_style), begin, end, _line(start))

    def _fields(self, start: Any, key: str, depth: int) -> Fields:  # noqa: ANN401
        items: list[tuple[Scalar, Node]] = []
        seen: dict[str, int] = {}
        for event in self._events:
            if isinstance(event, self._yaml.events.MappingEndEvent):
                break
            name = self._node(event, key, depth + 1)
            if not isinstance(name, Scalar):
                raise _Broken(name.line, key, "a key is a list or a mapping: write a plain name")
            if name.kind == "merge":
                raise _Broken(name.line, key, "merge keys (<<) are not taken: write the values out")
            inner = f"{key}.{name.value[:100]}" if key else name.value[:100]
            if name.value in seen:
                self.problems.append(
                    Problem(name.line, inner, f"the key stands in line {seen[name.value]} already: delete one of them")
                )
            seen.setdefault(name.value, name.line)
            items.append((name, self._node(next(self._events), inner, depth + 1)))
        begin = start.start_mark.index + self._offset
        end = event.end_mark.index + self._offset if start.flow_style else items[-1][1].end if items else begin
        return Fields(tuple(items), bool(start.flow_style), begin, end, _line(start))


def _line(event: Any) -> int:  # noqa: ANN401
    return int(event.start_mark.line) + 1


def _line_at(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


#: What people write and YAML does not have, by words of PyYAML's problem; the first that fits is told.
_SLIPS: Final = (
    ("'\\t' that cannot start", "a tab: indent with blanks"),
    ("mapping values are not allowed", "a colon where none can be: put the text in quotes, or check the indentation"),
    ("could not find expected ':'", "a key without its colon: write `key: value`, or check the indentation"),
    ("did not find expected key", "a line that is indented in another way than those around it, or a quote too many"),
    ("did not find expected '-' indicator", "a line of a list without its dash, or indented in another way"),
    ("expected <block end>", "a line that is indented in another way than those around it, or a quote too many"),
    ("unexpected end of stream", "a quote that is never closed"),
    ("that cannot start any token", "a character that no text begins with: put the text in quotes"),
    ("expected ',' or", "a bracket that is never closed, or a comma that is missing"),
    ("undefined alias", "a text that begins with *: put it in quotes"),
)


def _syntax(error: Any, text: str) -> Problem:  # noqa: ANN401 - yaml.YAMLError
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    hint = next((words for part, words in _SLIPS if part in said), "")
    if mark is None:  # a character that YAML does not have
        place = int(getattr(error, "position", 0))
        found = getattr(error, "character", "")
        shown = f"U+{ord(found):04X}" if isinstance(found, str) and len(found) == 1 else f"U+{found:04X}"
        place = text.find(chr(int(shown[2:], 16))) if shown else place
        return Problem(_line_at(text, max(place, 0)), "", f"a control character ({shown}): delete it")
    line = int(mark.line) + 1
    if "\t" in _indent_of(text, line):
        hint = "a tab: indent with blanks"
    return Problem(line, "", f"it is no YAML at column {int(mark.column) + 1}: {hint or said}")


def _indent_of(text: str, line: int) -> str:
    lines = text.split("\n")
    found = lines[line - 1] if line <= len(lines) else ""
    return found[: len(found) - len(found.lstrip())]


def _other_encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16, as Windows writes it"
    return "it has bytes of another encoding"
