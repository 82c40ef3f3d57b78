"""Makes the typed client of a named workflow: a schema becomes Python. No IO but reading the two files beside it.

What the author of a workflow wrote (names, descriptions, choices) goes into the text as literals and escaped docstrings
only: none of it can be code. The same description always becomes the same text.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from comfy_serverless.cli.named.client import transport, workflow

#: A class of more choices than these is a text with its choices in words: type checkers take seconds for more.
_MOST_CHOICES: Final = 10_000
_WIDTH: Final = 120
_LONGEST_DEFAULT: Final = 60
_PLAIN_TYPES: Final[Mapping[str, str]] = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "object": "dict[str, Any]",
    "array": "list[Any]",
}


@dataclass(frozen=True, slots=True)
class Described:
    """What a client is made of.

    Attributes:
        number: of the version that is described.
        alias: whose version the client runs; "" for exactly that version.
        schema: JSON Schema of the object of inputs, as `workflows.schema` makes it.
        outputs: by the name that the author gave them, the id of the node.
        is_shared: whether it runs the operator's, whatever the key's owner has of that name.
        created_at: of the version, as the API tells it.
    """

    name: str
    number: int
    alias: str
    schema: Mapping[str, Any]
    outputs: Mapping[str, str]
    description: str = ""
    created_at: str = ""
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class _Argument:
    """An input, as an argument.

    Attributes:
        type: as it is annotated.
        default: what stands behind the `=`; "" if it must be given.
        sent: what its value becomes: `prompt`, or `self._files(photo)`.
    """

    name: str
    argument: str
    type: str
    default: str
    sent: str
    told: str


def client_of(described: Described) -> str:
    """The text of the client."""
    taken = set(_names_of_runtime()) | set(dir(builtins)) | set(keyword.kwlist)
    class_name = _unused(_class_name(described.name), taken, "Workflow")
    result = _unused(f"{class_name}Result", taken, "Of") if described.outputs else "Result"
    arguments, literals = _arguments(described.schema, taken)
    parts = [
        f"{_head(described, class_name, arguments)}\n\n{_runtime(has_literals=bool(literals))}",
        f"# The workflow {_quoted(described.name)}.",
        *literals,
        *([_result_class(result, described)] if described.outputs else []),
        _workflow_class(class_name, result, described, arguments),
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def _head(described: Described, class_name: str, arguments: Sequence[_Argument]) -> str:
    runs = f"what `{described.alias}` is" if described.alias else f"version {described.number}, whatever `live` is"
    made_by = f"comfy-serverless workflows client {'shared/' if described.is_shared else ''}{described.name}"
    made_by += "" if described.alias == "live" else f" --alias {described.alias}" if described.alias else ""
    made_by += "" if described.alias else f" --version {described.number}"
    since = f", of {described.created_at}" if described.created_at else ""
    given = ", ".join(f"{one.argument}=…" for one in arguments if not one.default)
    lines = [
        f"The workflow {described.name}, as Python: what it takes, with types, and what it makes.",
        "",
        f"Made by `{made_by}` from version {described.number}{since}.",
        f"It runs {runs}. Do not edit it: make it again when the inputs have changed.",
        "It needs Python 3.10 or later, COMFY_BASE_URL and COMFY_API_KEY.",
        "",
        f"    result = {class_name}().run({given})",
        "    for output in result.outputs:",
        '        print(output.name, output.save("out"))',
    ]
    return _docstring(lines, indent="")


@cache
def _runtime(*, has_literals: bool) -> str:
    """The two files as one: their imports, and then all that they define. What our linter is told is left out."""
    imports: dict[str, list[str]] = {}
    bodies = []
    for module in (transport, workflow):
        source = inspect.getsource(module)
        tree = ast.parse(source)
        lines = source.splitlines()
        last = 0
        for node in tree.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    imports.setdefault(f"import {alias.name}", [])
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("comfy_serverless"):
                names = imports.setdefault(f"from {node.module} import", [])
                names += [alias.name for alias in node.names if alias.name not in names]
            elif not isinstance(node, ast.ImportFrom) and not (isinstance(node, ast.Expr) and not last):
                break
            last = node.end_lineno or 0
        bodies.append("\n".join(lines[last:]).strip("\n"))
    future = "from __future__ import annotations"
    imports.pop("from __future__ import", None)
    if has_literals:
        imports["from typing import"].append("Literal")
    plain = sorted(line for line, names in imports.items() if not names)
    some = sorted(f"{line} {', '.join(sorted(names, key=_as_isort))}" for line, names in imports.items() if names)
    text = "\n".join([future, "", *plain, *some])
    whole = "\n\n\n".join([f"{text}\n\n# How it is called: the same in each client.", *bodies])
    return re.sub(r"  # noqa: .*", "", whole)


def _as_isort(name: str) -> tuple[int, str]:
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


@cache
def _names_of_runtime() -> frozenset[str]:
    """The names that the text has at its top already."""
    found: set[str] = {"Literal"}
    for node in ast.parse(_runtime(has_literals=True)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return frozenset(found)


def _arguments(schema: Mapping[str, Any], taken: set[str]) -> tuple[list[_Argument], list[str]]:
    """The inputs as arguments, and the types of choices that they name."""
    used: set[str] = {"self"}
    arguments, literals = [], []
    required = set(schema.get("required") or ())
    for name, given in (schema.get("properties") or {}).items():
        spec = given if isinstance(given, Mapping) else {}
        argument = _unused(_identifier(name), used, "")
        kind, choices = _type_of(spec), _choices_of(spec)
        if choices and f"Literal[{', '.join(choices)}]" in kind:
            alias = _unused(_class_name(argument), taken, "Choice")
            literals.append(_literal_class(alias, choices))
            kind = kind.replace(f"Literal[{', '.join(choices)}]", alias)
        is_file = "File" in kind
        default = "" if name in required else _default(spec, kind, choices)
        sent = f"self._files({argument})" if is_file else argument
        arguments.append(_Argument(str(name), argument, kind, default, sent, _told(str(name), argument, spec)))
    return arguments, literals


def _type_of(spec: Mapping[str, Any]) -> str:
    """What an input takes, as it is annotated."""
    options = [one for key in ("anyOf", "oneOf") for one in spec.get(key) or () if isinstance(one, Mapping)]
    options = [one for one in options if not _is_asset(one)]  # `File` has them
    if options:
        inherited = {key: value for key, value in spec.items() if key in {"contentMediaType", "format", "type"}}
        kinds = list(dict.fromkeys(_type_of({**inherited, **one}) for one in options))
        return " | ".join(kinds) if "Any" not in kinds else "Any"
    if _is_file(spec):
        return "File"
    if "const" in spec or "enum" in spec:
        return _type_of_choices(spec, _choices_of(spec))
    types = spec.get("type")
    if types == "array" and isinstance(spec.get("items"), Mapping):
        return f"Sequence[{_type_of(spec['items'])}]"
    names = types if isinstance(types, list) else [types]
    kinds = list(dict.fromkeys(_PLAIN_TYPES.get(str(name), "Any") for name in names))
    if choices := _choices_of(spec):  # examples: others are taken, too
        kinds = [f"Literal[{', '.join(choices)}]", *kinds]
    return "Any" if "Any" in kinds else " | ".join(kinds)


def _type_of_choices(spec: Mapping[str, Any], choices: Sequence[str]) -> str:
    others = [one for one in _listed(spec) if _literal(one) is None]
    kinds = [f"Literal[{', '.join(choices)}]"] if choices else []
    kinds += sorted({"float" if isinstance(one, float) else "Any" for one in others})
    if not kinds or "Any" in kinds:
        return "Any"
    if len(choices) > _MOST_CHOICES:
        return " | ".join(sorted({type(one).__name__ for one in _listed(spec)}))
    return " | ".join(kinds)


def _is_file(spec: Mapping[str, Any]) -> bool:
    return spec.get("format") == "uri-reference" or ("contentMediaType" in spec and spec.get("type") == "string")


def _is_asset(spec: Mapping[str, Any]) -> bool:
    """Whether it is an uploaded file, as an object."""
    return "__type" in (spec.get("properties") or {})


def _listed(spec: Mapping[str, Any]) -> list[Any]:
    """The choices of an input, of one of its alternatives, or of the items of a list."""
    if "const" in spec:
        return [spec["const"]]
    for key in ("enum", "examples"):
        if isinstance(spec.get(key), list):
            return list(spec[key])
    inner = [one for key in ("anyOf", "oneOf") for one in spec.get(key) or ()] + [spec.get("items")]
    return [choice for one in inner if isinstance(one, Mapping) for choice in _listed(one)]


def _choices_of(spec: Mapping[str, Any]) -> list[str]:
    """The choices as literals, each once; those that cannot be are left out."""
    return list(dict.fromkeys(text for one in _listed(spec) if (text := _literal(one)) is not None))


def _default(spec: Mapping[str, Any], kind: str, choices: Sequence[str]) -> str:
    """What stands behind the `=`. It is shown to people and never sent, so a long one is shortened."""
    value = spec.get("default")
    text = _literal(value) if not isinstance(value, float) else repr(value)
    if value is None or text is None or not _fits(value, text, kind, choices):
        return "not_given"
    if isinstance(value, str) and len(text) > _LONGEST_DEFAULT and not choices:
        text = _quoted(f"{value[:_LONGEST_DEFAULT]}…")
    return f"default({text})"


def _fits(value: object, text: str, kind: str, choices: Sequence[str]) -> bool:
    """Whether a type checker takes the value for that type; numbers that have no literal are not shown either."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return False
    if text in choices:
        return True
    accepted = {str: ("str", "File"), bool: ("bool",), int: ("int", "float"), float: ("float",)}
    return any(name in kind.split(" | ") for name in accepted.get(type(value), ()))


def _told(name: str, argument: str, spec: Mapping[str, Any]) -> str:
    """A line on an input, for the docstring; "" if there is nothing to say."""
    title, description = str(spec.get("title") or ""), str(spec.get("description") or "")
    said = description or (title if title != name else "")
    bounds = [
        f"{word} {spec[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("x-step", "in steps of"))
        if isinstance(spec.get(key), int | float) and (key, spec[key]) != ("x-step", 1)
    ]
    called = f"called {_quoted(name)} by the workflow" if argument != name else ""
    told = [said.rstrip(". "), " ".join(bounds), str(spec.get("contentMediaType") or ""), called]
    sentence = "; ".join(filter(None, told))
    return f"{argument}: {sentence}." if sentence else ""


def _literal_class(alias: str, choices: Sequence[str]) -> str:
    whole = f"{alias} = Literal[{', '.join(choices)}]"
    if len(whole) <= _WIDTH:
        return whole
    return f"{alias} = Literal[\n" + "".join(f"    {choice},\n" for choice in choices) + "]"


def _result_class(name: str, described: Described) -> str:
    properties = []
    used = set(dir(workflow.Result)) | {"job", "id", "version", "seeds", "warnings", "outputs"}
    for output, node_id in described.outputs.items():
        called = _unused(_identifier(output), used, "")
        properties.append(
            f"    @property\n    def {called}(self) -> tuple[Output, ...]:\n"
            + _docstring([f"What the output {_quoted(output)} has: node {node_id}."])
            + f"\n        return self._of({_quoted(node_id)})\n"
        )
    made = _docstring([f"What a run of {described.name} has made."], indent="    ")
    return f"class {name}(Result):\n{made}\n\n" + "\n".join(properties)


def _workflow_class(name: str, result: str, described: Described, arguments: Sequence[_Argument]) -> str:
    version = "None" if described.alias else str(described.number)
    told = _docstring([described.description or f"The named workflow {described.name}."], indent="    ")
    signature = "".join(
        f"        {one.argument}: {one.type}{f' = {one.default}' if one.default else ''},\n" for one in arguments
    )
    taken = f"(\n        self,\n        *,\n{signature}    )" if arguments else "(self)"
    values = "".join(f"                {_quoted(one.name)}: {one.sent},\n" for one in arguments)
    passed = "".join(f"            {one.argument}={one.argument},\n" for one in arguments)
    lines = [f"    {one.told}" for one in arguments if one.told]
    submit = ["Submit a job, and do not wait for it. Arguments, and InvalidInputs, as of `run`."]
    run = ["Run it, and wait for what it makes. What is not given is as the version that runs has it."]
    run += [*(["", "Args:", *lines] if lines else []), "", "Raises:"]
    run += ["    InvalidInputs: values do not fit; `problems` has all of them.", "    JobFailed: it did not succeed."]
    called = f"self.submit(\n{passed}        )" if arguments else "self.submit()"
    sent = f"\n            {{\n{values}            }}\n        " if arguments else "{}"
    return (
        f"class {name}(Workflow[{result}]):\n{told}\n\n"
        f"    _name = {_quoted(described.name)}\n"
        f"    _alias = {_quoted(described.alias or 'live')}\n"
        f"    _version = {version}\n"
        + ("    _is_shared = True\n" if described.is_shared else "")
        + f"    _result = {result}\n\n"
        f"    def submit{taken} -> Job[{result}]:\n{_docstring(submit)}\n"
        f"        return self._submit({sent})\n\n"
        f"    def run{taken} -> {result}:\n{_docstring(run)}\n"
        f"        return {called}.wait()\n"
    )


def _docstring(lines: Sequence[str], indent: str = "        ") -> str:
    """A docstring of these lines, each of which is wrapped, and can hold anything."""
    wrapped: list[str] = []
    for line in lines:
        lead = line[: len(line) - len(line.lstrip(" "))]
        shown = _escaped(line.strip(" "))
        pieces = textwrap.wrap(
            shown, _WIDTH - len(indent) - len(lead) - 8, break_long_words=False, break_on_hyphens=False
        )
        wrapped += [f"{lead}{'    ' if number and lead else ''}{piece}" for number, piece in enumerate(pieces)] or [""]
    if wrapped[0].endswith('"') and len(wrapped) == 1:
        wrapped[0] += " "
    if len(wrapped) == 1:
        return f'{indent}"""{wrapped[0]}"""'
    whole = "\n".join(f"{indent if number and line else ''}{line}" for number, line in enumerate(wrapped))
    return f'{indent}"""{whole}\n{indent}"""'


def _escaped(text: str) -> str:
    """A text in one line of a docstring: its letters only, no quotes that end it, no escapes, no control characters."""
    flat = " ".join(text.encode("utf-8", "replace").decode().split())  # no docstring of a class has half a character
    safe = "".join(_printable(letter) for letter in flat.replace("\\", "\\\\"))
    return safe.replace('"""', '\\"\\"\\"')


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def _literal(value: object) -> str | None:
    """A value inside of `Literal[…]`; None for one that cannot stand there."""
    if isinstance(value, str):
        return _quoted(value)
    if value is None or isinstance(value, bool | int):
        return repr(value)
    return None


def _quoted(text: str) -> str:
    """A text as a literal of Python, in double quotes and in ASCII where it would not be seen."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(map(_printable, escaped)) + '"'


def _identifier(name: str) -> str:
    """A name for an argument, near that of the input: `class` -> `class_`, `1st image` -> `input_1st_image`."""
    plain = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", str(name))).lstrip("_") or "input_"
    plain = plain if plain[0].isalpha() else f"input_{plain}"
    if not plain.isidentifier():
        plain = "input_" + re.sub(r"[^A-Za-z0-9_]+", "_", plain)
    return f"{plain}_" if keyword.iskeyword(plain) or plain == "self" else plain


def _class_name(name: str) -> str:
    """`red-poster` -> `RedPoster`."""
    words = [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFKC", name)) if word]
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined.isidentifier() else f"Workflow{re.sub(r'[^A-Za-z0-9]+', '', joined)}"


def _unused(name: str, taken: set[str], ending: str) -> str:
    """The name, or one like it that is not taken; it is taken then."""
    found, number = name, 1
    if found in taken and ending:
        found = f"{name}{ending}"
    while found in taken:
        number += 1
        found = f"{name}{ending}_{number}" if not ending else f"{name}{ending}{number}"
    taken.add(found)
    return found
