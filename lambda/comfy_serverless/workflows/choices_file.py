"""Reads the file beside a workflow that says which inputs and outputs it has: YAML, JSON, or ViewComfy's. No IO.

    description: A poster of one product
    inputs: {prompt: 6.text, photo: {target: 10.image, description: The product}}
    outputs: {picture: "9"}

Of YAML only what is a plain tree is taken: no anchors, aliases, tags, merge keys, second documents or keys that stand
twice. What it becomes is as large as its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.near import Guesses
from comfy_serverless.workflows.naming import Names, name_of

MOST_CHARACTERS: Final = 1_000_000
_MOST_DEPTH, _MOST_VALUES = 20, 50_000
_FIELDS: Final = ("description", "inputs", "outputs")
_PLAIN: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
_LONGEST_DESCRIPTION: Final = 10_000
_MOST_TOLD: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What somebody has chosen, unchecked: `choosing.choose` judges it.

    Attributes:
        inputs, outputs: None if nothing is said of them.
        lines: where each stands, as far as that is known: `inputs.photo.minimum` is in line 4.
    """

    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    description: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)


def read_choices(text: str, *, source: str = "the file of the inputs") -> Choices:
    """The choices in a text. YAML needs PyYAML; JSON does not.

    Raises InvalidRequest, which names `source` and each mistake, with its line.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequest(f"{source} has more than {MOST_CHARACTERS:,} characters: it has inputs and outputs alone.")
    text = text.removeprefix("\ufeff")
    document, lines = _from_json(text, source) if text.lstrip()[:1] in ("{", "[") else _from_yaml(text, source)
    return choices_of(document, lines=lines, source=source)


def choices_of(document: object, *, lines: Mapping[str, int] | None = None, source: str) -> Choices:
    """The choices that a document has: ours, or a `view_comfy.json`. Raises as `read_choices`."""
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"{source} is no mapping: it should have `inputs:`, and below that `name: address`.")
    if document.get("file_type") == "view_comfy":
        return _of_view_comfy(document, source)
    problems: dict[str, str] = {}
    for name in document:
        if name not in _FIELDS:
            near = Guesses().near(str(name), _FIELDS)
            problems[str(name)[:100]] = f"is unknown (did you mean {near[0]!r}?)" if near else _instead(document)
    for name in ("inputs", "outputs"):
        if not isinstance(document.get(name), Mapping | None):
            problems[name] = "should be a mapping: `name: address`"
    description = document.get("description")
    if description is not None and (not isinstance(description, str) or len(description) > _LONGEST_DESCRIPTION):
        problems["description"] = f"should be a text of {_LONGEST_DESCRIPTION:,} characters at most"
    if problems:
        raise _refused(source, problems, lines or {})
    return Choices(
        inputs=document.get("inputs"),
        outputs=document.get("outputs"),
        description=description or "",
        lines=lines or {},
    )


def _instead(document: Mapping[str, Any]) -> str:
    hint = "" if "inputs" in document else "; names of inputs stand below `inputs:`"
    return f"is unknown: there are {', '.join(_FIELDS)}{hint}"


def _refused(source: str, problems: Mapping[str, str], lines: Mapping[str, int]) -> InvalidRequest:
    told = [f"{f'line {lines[name]}, ' if name in lines else ''}{name} {problem}" for name, problem in problems.items()]
    errors = [{"field": name, "problem": problem} for name, problem in problems.items()]
    return InvalidRequest(f"{source} cannot be used: {'; '.join(told[:_MOST_TOLD])}.", details={"errors": errors})


def _from_json(text: str, source: str) -> tuple[object, Mapping[str, int]]:
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        names = [name for name, _ in pairs]
        twice.extend(name for name in found if len(found) < len(names) and names.count(name) > 1)
        return found

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is no number of JSON")

    try:
        document = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        return _json_or_yaml(text, source, error)
    if twice:
        raise InvalidRequest(f"{source} has the key {twice[0][:100]!r} twice: delete one of them.")
    return document, {}


def _json_or_yaml(text: str, source: str, error: ValueError | RecursionError) -> tuple[object, Mapping[str, int]]:
    """YAML may begin with a brace, too: `{inputs: …}`. Where there is no PyYAML, what JSON's reader says counts."""
    try:
        return _from_yaml(text, source)
    except ImportError:
        raise InvalidRequest(f"{source} is not JSON: {str(error)[:200]}.") from error


def _from_yaml(text: str, source: str) -> tuple[object, Mapping[str, int]]:
    import yaml

    try:
        text.encode()
        _check_events(yaml, text, source)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            tree = _Tree(yaml, loader)
            document = None if node is None else tree.value(node, "")
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InvalidRequest(f"{source}{place} is no YAML: {said[:200]}.") from error
    if tree.problems:
        raise InvalidRequest(f"{source} cannot be used: {'; '.join(tree.problems[:_MOST_TOLD])}.")
    return document, tree.lines


def _check_events(yaml: Any, text: str, source: str) -> None:  # noqa: ANN401 - a module
    """Refuse what is no plain tree, or a deep or very large one, before anything is built of it."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader), 1):
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise InvalidRequest(f"{source}, line {line}: a second document begins: delete the `---`.")
        if depth > _MOST_DEPTH or count > _MOST_VALUES:
            what = f"more than {_MOST_DEPTH} levels" if depth > _MOST_DEPTH else f"more than {_MOST_VALUES:,} values"
            raise InvalidRequest(f"{source}, line {line}: it has {what}: it has inputs and outputs alone.")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise InvalidRequest(
                f"{source}, line {line}: anchors (&name) and aliases (*name) are not taken: write the value out."
            )
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN:
            raise InvalidRequest(f"{source}, line {line}: the tag {str(tag)[:60]!r} is not taken: delete it.")


class _Tree:
    """Makes plain values of nodes.

    Attributes:
        lines: where each key stands.
        problems: keys that cannot stay as they are.
    """

    def __init__(self, yaml: Any, loader: Any) -> None:  # noqa: ANN401 - a module
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []
        self._yaml = yaml
        self._loader = loader

    def value(self, node: Any, way: str) -> Any:  # noqa: ANN401 - a node of PyYAML
        """The value of a node. The tree has been found to be small and shallow."""
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node, way)
        if isinstance(node, self._yaml.SequenceNode):
            return [self.value(item, way) for item in node.value]
        if node.tag not in _PLAIN:  # a date: text to us
            return node.value
        return self._loader.construct_object(node)

    def _mapping(self, node: Any, way: str) -> dict[str, Any]:  # noqa: ANN401 - a node of PyYAML
        found: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, self._yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                self.problems.append(f"line {line}: a key should be a plain name")
                continue
            name = key.value
            inner = f"{way}.{name}" if way else name
            if name in found:
                first = self.lines[inner]
                self.problems.append(f"line {line}: {name[:100]!r} stands in line {first} already, delete one of them")
                continue
            self.lines[inner] = line
            found[name] = self.value(item, inner)
        return found


def _of_view_comfy(document: Mapping[str, Any], source: str) -> Choices:
    """The choices of a `view_comfy.json`: those of its first workflow. Its labels are the names."""
    workflows = document.get("workflows")
    first = workflows[0] if isinstance(workflows, list) and workflows else document
    view = first.get("viewComfyJSON") if isinstance(first, Mapping) else None
    if not isinstance(view, Mapping):
        raise InvalidRequest(f"{source} is a view_comfy.json without `viewComfyJSON`: save it again in ViewComfy.")
    names, inputs = Names(), {}
    for part in ("inputs", "advancedInputs"):
        groups = view.get(part)
        for group in groups if isinstance(groups, list) else ():
            entries = group.get("inputs") if isinstance(group, Mapping) else None
            for entry in entries if isinstance(entries, list) else ():
                chosen = _view_input(entry)
                if chosen is not None:
                    own = name_of(chosen.get("title", "")) or name_of(chosen["target"].rpartition(".")[2])
                    inputs[names.take(own, "value")] = chosen
    description = view.get("description")
    return Choices(inputs=inputs or None, description=description if isinstance(description, str) else "")


def _view_input(entry: object) -> dict[str, Any] | None:
    way = entry.get("workflowPath") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(way, list) or len(way) != 3 or way[1] != "inputs":
        return None
    chosen: dict[str, Any] = {"target": f"{way[0]}.{way[2]}"}
    if isinstance(entry.get("title"), str):
        chosen["title"] = entry["title"]
    help_text = entry.get("helpText")
    if isinstance(help_text, str) and help_text not in ("", "Helper Text"):
        chosen["description"] = help_text
    options = entry.get("options")
    if entry.get("valueType") == "select" and isinstance(options, list):
        values = [one["value"] for one in options if isinstance(one, Mapping) and isinstance(one.get("value"), str)]
        chosen |= {"choices": values} if values else {}
    return chosen
