"""The inputs of a named workflow as options of `comfy-serverless run NAME`, and what was given for them. No IO."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.cli.habits import one_line
from comfy_serverless.cli.named.words import shown, takes, what_it_is
from comfy_serverless.cli.wishes import origin
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.typed import Kind, Takes, Untyped, from_json, typed
from comfy_serverless.workflows.check import InputCheck
from comfy_serverless.workflows.version import NamedInput, Version

if TYPE_CHECKING:
    from comfy_serverless.worker.inputs.plan import Origin

#: What an option may be called.
_OPTION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KINDS: Final = {
    InputKind.INTEGER: Kind.WHOLE,
    InputKind.NUMBER: Kind.NUMBER,
    InputKind.BOOLEAN: Kind.BOOLEAN,
    InputKind.CHOICE: Kind.CHOICE,
}
_METAVARS: Final = {
    InputKind.INTEGER: "N",
    InputKind.NUMBER: "NUMBER",
    InputKind.BOOLEAN: "true|false",
    InputKind.CHOICE: "CHOICE",
    InputKind.FILE: "FILE",
    InputKind.OTHER: "JSON",
}
_LONGEST_LIST: Final = 2_000
_PREFIX: Final = "input of the workflow: "


@dataclass(frozen=True, slots=True)
class Taken:
    """What a workflow takes, as it is told now.

    Attributes:
        number: of the version.
        schema: of the object of inputs.
    """

    name: str
    number: int
    inputs: tuple[NamedInput, ...]
    schema: Mapping[str, Any]
    description: str = ""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Taken:
        """What `GET /api/v2/workflows/{name}` tells."""
        inputs = tuple(map(NamedInput.from_json, document["inputs"]))
        number = int(document.get("version") or 0)
        return cls(str(document["name"]), number, inputs, document["schema"], str(document.get("description") or ""))

    def spec(self, name: str) -> Mapping[str, Any]:
        """The schema of one input."""
        found = (self.schema.get("properties") or {}).get(name)
        return found if isinstance(found, Mapping) else {}


@dataclass(slots=True)
class Given:
    """What was given, by the names of inputs.

    Attributes:
        files: of this machine, or addresses.
        problems: what is wrong, by name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[Origin]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def add_inputs(parser: argparse.ArgumentParser, taken: Taken) -> None:
    """Add an option for each input. One that is called like another option has none: `--set NAME=VALUE` gives it."""
    group = parser.add_argument_group(f"inputs of {taken.name}, version {taken.number}")
    for one in taken.inputs:
        names = [f"--{name}" for name in dict.fromkeys((one.name.replace("_", "-"), one.name))]
        free = [name for name in names if _OPTION.fullmatch(name[2:]) and name not in parser._option_string_actions]
        may_stand_alone: dict[str, Any] = {"nargs": "?", "const": "true"} if one.kind is InputKind.BOOLEAN else {}
        for number, name in enumerate(free):
            group.add_argument(
                name,
                dest=f"{_PREFIX}{one.name}",
                action="append",
                metavar=_METAVARS.get(one.kind, "TEXT"),
                help=argparse.SUPPRESS if number else _help(one, taken).replace("%", "%%"),
                **may_stand_alone,
            )
    parser._action_groups.insert(0, parser._action_groups.pop())  # what one came for comes first


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """The options that stand for inputs."""
    named = (action for action in parser._actions if action.dest.startswith(_PREFIX))
    return [action.option_strings[0] for action in named if action.help != argparse.SUPPRESS]


def without_options(parser: argparse.ArgumentParser, taken: Taken) -> list[str]:
    """The names of the inputs that have no option."""
    have = {action.dest.removeprefix(_PREFIX) for action in parser._actions if action.dest.startswith(_PREFIX)}
    return [one.name for one in taken.inputs if one.name not in have]


def unknown_in_words(parser: argparse.ArgumentParser, taken: Taken, further: Sequence[str]) -> str:
    """What is wrong with arguments that nothing takes."""
    option = next((word.partition("=")[0] for word in further if word.startswith("--")), None)
    if option is None:
        return f"unrecognized arguments: {' '.join(further)}"
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    near = Guesses().near(option, known, at_most=1)
    named = ", ".join(options_of(parser))
    hint = f"did you mean {near[0]}?" if near else f"its inputs: {named}" if named else "it has no inputs"
    return f"{one_line(option[:100])}: {taken.name} has no such input ({hint})"


def read_given(options: argparse.Namespace, taken: Taken) -> tuple[Given, list[tuple[str, str]]]:
    """What was given by name, and the assignments that name no input: they are addresses, or mistakes.

    Raises InvalidRequest for all values that do not fit, at once. Files are not looked at.
    """
    given = Given()
    known = {one.name: one for one in taken.inputs}
    for one in taken.inputs:
        for text in vars(options).get(f"{_PREFIX}{one.name}") or ():
            _put(given, one, "--input" if one.kind is InputKind.FILE else "--set", text, taken)
    others: list[tuple[str, str]] = []
    for option, assignment in options.assignments:
        name, _, text = assignment.partition("=")
        if name in known:
            _put(given, known[name], option, text, taken)
        else:
            others.append((option, assignment))
    _check(given, taken, by_address=bool(others))
    return given, others


def refuse(problems: Mapping[str, str], taken: Taken) -> InvalidRequest:
    """The error for values that do not fit: as the API says it."""
    errors = [{"field": f"inputs.{name}", "problem": problem} for name, problem in problems.items()]
    listing = "; ".join(f"{name} {problem}" for name, problem in problems.items())
    return InvalidRequest(
        f"{taken.name} (version {taken.number}) cannot run so: {listing}. `comfy-serverless run {taken.name} --help` "
        "shows what it takes.",
        details={"errors": errors, "workflow": taken.name, "version": taken.number},
    )


def _put(given: Given, one: NamedInput, option: str, text: str, taken: Taken) -> None:
    if option == "--input" and one.kind is not InputKind.FILE:
        given.problems[one.name] = "takes no file: give its value with --set"
    elif option == "--input":
        given.files.setdefault(one.name, []).append(origin(text))
    elif option == "--set-json" or one.kind is InputKind.OTHER:
        try:
            given.values[one.name] = from_json(text)
        except Untyped as problem:
            given.problems[one.name] = str(problem)
    else:
        given.values[one.name] = _typed(one, text, taken.spec(one.name))


def _typed(one: NamedInput, text: str, spec: Mapping[str, Any]) -> object:
    """The value that a text is; the text itself if it is none: the check says what is taken."""
    kind = _KINDS.get(one.kind)
    if kind is None:
        return text
    choices = tuple(spec.get("enum") or one.choices)
    try:
        return typed(text, standing=None, takes=Takes("", kind, choices))
    except Untyped:
        return text


def _check(given: Given, taken: Taken, *, by_address: bool) -> None:
    """Raise InvalidRequest for everything that is wrong.

    Args:
        by_address: whether inputs are given by their addresses, too: then none counts as missing.
    """
    plain = [one for one in taken.inputs if one.kind is not InputKind.FILE]
    now = tuple(_as_told(one, taken.spec(one.name)) for one in plain)
    check = InputCheck.of(Version(name=taken.name, number=taken.number, owner="", graph={}, inputs=now))
    files = {one.name: one for one in taken.inputs if one.kind is InputKind.FILE}
    problems = {
        problem.field: problem.problem
        for problem in check.problems({name: value for name, value in given.values.items() if name not in files})
        if problem.field in given.values or not by_address
    }
    for name, one in files.items():
        count = len(given.files.get(name, ()))
        if count > 1 and not _may_be_many(taken.spec(name)):
            problems[name] = f"takes one file, and these are {count}"
        elif not count and name not in given.values and one.is_required and not by_address:
            problems[name] = "is required"
    if problems := {**given.problems, **{name: told for name, told in problems.items() if name not in given.problems}}:
        raise refuse(problems, taken)


def _as_told(one: NamedInput, spec: Mapping[str, Any]) -> NamedInput:
    """The input with the bounds and choices that the schema has: they are those of now."""
    return replace(
        one,
        minimum=spec.get("minimum", one.minimum),
        maximum=spec.get("maximum", one.maximum),
        choices=tuple(spec.get("enum") or one.choices),
        is_open=one.is_open or (one.kind is InputKind.CHOICE and "enum" not in spec),
    )


def _may_be_many(spec: Mapping[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in spec.get("anyOf") or () if isinstance(option, Mapping))


def _help(one: NamedInput, taken: Taken) -> str:
    told = one.to_json()
    default = "required" if one.is_required else f"default: {shown(one.default)}" if one.default is not None else ""
    facts = "; ".join(filter(None, (takes(told, taken.spec(one.name), longest=_LONGEST_LIST), default)))
    return one_line(" ".join(f"{what_it_is(told)} ({facts})".split()))
