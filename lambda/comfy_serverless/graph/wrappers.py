"""Finds the workflow in what people send: bare, in ComfyUI's own wrappers, in other services', as a text. No IO.

    {"1": {"class_type": …}}                     a graph in API format
    {"nodes": […]}                               the editor's format
    {"prompt": G, "extra_data": …}               a body of POST /prompt
    {"output": G, "workflow": UI}                what the editor's `app.graphToPrompt()` returns
    {"prompt": G, "workflow": UI}                what ComfyUI writes into its pictures
    {"workflow": "{…}"}                          JSON in a text
    {"prompt": [5, "id", G, {…}, ["9"]], …}      an entry of /history, also by its id, as it is answered

What the editor saved beside a graph goes where the editor itself puts it: into `extra_pnginfo`, from which ComfyUI
writes it into the pictures that it saves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.errors import InvalidRequest, NotJson
from comfy_serverless.json_text import parse_json
from comfy_serverless.redaction import sounds_of_keys

#: Where a workflow stands, here and elsewhere. `output` and `prompt` count only if one is in them.
WORKFLOW_FIELDS = (
    "workflow",
    "prompt",
    "output",
    "workflow_api",
    "workflow_api_json",
    "workflow_json",
    "api_workflow",
    "graph",
)
#: What else a body of POST /prompt may have, and why it means nothing here.
PROMPT_FIELDS = {
    "client_id": "we listen ourselves",
    "prompt_id": "a job has a job_id",
    "number": "jobs run in their order",
    "front": "jobs run in their order",
    "partial_execution_targets": "every output is made",
}
#: Wrappers in wrappers, texts in texts.
_MOST_LEVELS = 6
_TEXT_BEGINS = ("{", "[", '"')
#: The beginning of a text that is meant as JSON, good or bad. A name may begin with a bracket, too: "[v2] poster".
_MEANT_AS_JSON = re.compile(r"""[\s\ufeff]*(?:\{\s*(?:["'}]|$)|\{[^:]*:|\[\s*[\[{]|"[\s\ufeff]*[\[{])""")
_MOST_NAMES, _LONGEST_NAME = 20, 60
_HISTORY_GRAPH, _HISTORY_EXTRA = 2, 3
#: The fields that have what ComfyUI gets beside a workflow.
_DATA_FIELDS = ("extra_data", "extra_pnginfo")
#: The parts of an editor's workflow that are its own: names within them are those of nodes.
_LARGE_PARTS = frozenset({"nodes", "links", "groups", "definitions", "extra", "floatingLinks", "reroutes", "config"})
#: The fields that have the graph of an editor's workflow beside them.
_GRAPH_FIELDS = ("prompt", "output")
#: What stands beside the prompt in an entry of the history: of the run that it tells of.
_HISTORY_FIELDS = frozenset({"outputs", "status", "meta"})


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A workflow, and what stood around it.

    Attributes:
        workflow: a graph in API format, or the editor's; whether it is a good one is for `check_format`.
        extra_data: what ComfyUI gets with it.
        rest: what else stood beside it, by its name.
        within: what else stood in wrappers within the outermost one.
        place: the field that it stood in; "" if it was bare.
    """

    workflow: Mapping[str, Any]
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)
    within: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    def left_out(self, *others: str) -> list[str]:
        """A sentence on what else stood there, and on `others`, for whoever uses the workflow alone."""
        beside = sorted({*self.rest, *self.within, *others})
        named = ", ".join(repr(name[:_LONGEST_NAME]) for name in beside[:_MOST_NAMES])
        return [f"not used, beside the workflow: {named}"] if beside else []

    @property
    def is_graph(self) -> bool:
        """Whether it is in API format."""
        return is_graph(self.workflow)


def unwrap(document: object, *, levels: int = _MOST_LEVELS) -> Unwrapped | None:
    """The workflow in a document; None if there is none, as in a name or an address.

    Of several fields for one, those that only have a text that is no JSON (a prompt in words) count for nothing.

    Raises:
        NotJson: a text that must be JSON is none.
        InvalidRequest: there are two different ones, or `extra_data` is no object.
    """
    document = only_item(from_text(document, what="the text of the workflow"))
    if not isinstance(document, Mapping) or levels == 0:
        return None
    if is_graph(document):
        return Unwrapped(document)
    if is_of_editor(document):
        return _of_editor(document)
    inner = _within(document, levels=levels - 1)
    if not inner and isinstance(document.get("prompt"), Mapping):  # a bad one: its check says why
        inner = {"prompt": Unwrapped(document["prompt"])}
    if not inner and len(document) == 1:
        (entry,) = document.values()
        if isinstance(entry, Mapping) and _of_history(entry.get("prompt")) is not None:
            return unwrap(entry, levels=levels - 1)
    return _joined(document, inner) if inner else None


def from_text(value: object, *, what: str) -> object:
    """The value of a text that is JSON, also of a text in a text; any other value itself.

    Raises NotJson for a text that is meant as JSON, and is none.
    """
    for _ in range(_MOST_LEVELS):
        if not isinstance(value, str) or not value.lstrip(" \t\r\n\ufeff").startswith(_TEXT_BEGINS):
            return value
        text = value
        try:
            value = parse_json(text, source=what)
        except NotJson:
            if _MEANT_AS_JSON.match(text):
                raise
            return text
    return value


def only_item(value: object) -> object:
    """The object that is alone in a list; any other value itself."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping) else value


def is_graph(value: object) -> bool:
    """Whether some entry of an object is a node in API format."""
    return isinstance(value, Mapping) and any(
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in value.values()
    )


def is_of_editor(value: object) -> bool:
    """Whether it is a workflow as the editor saves it."""
    return isinstance(value, Mapping) and isinstance(value.get("nodes"), list)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two `extra_data`; of what both have, the first counts, in `extra_pnginfo` name by name."""
    result = {**second, **first}
    if not first or not second:
        return result
    infos = [data.get("extra_pnginfo") for data in (second, first)]
    if all(isinstance(info, Mapping) for info in infos):
        result["extra_pnginfo"] = {**infos[0], **infos[1]}  # type: ignore[dict-item]
    return result


def _of_editor(document: Mapping[str, Any]) -> Unwrapped:
    """The editor's workflow without what stands in the same object and is no part of it: data for ComfyUI, and keys.

    It goes into pictures as it is, and the editor itself writes no keys into its files. Raises InvalidRequest.
    """
    beside = {
        name: value
        for name, value in document.items()
        if name in _DATA_FIELDS
        or name in PROMPT_FIELDS
        or (name not in _LARGE_PARTS and sounds_of_keys(json.dumps({name: value})))
    }
    workflow = {name: value for name, value in document.items() if name not in beside}
    if isinstance(more := workflow.get("extra"), Mapping):
        keys = [
            name for name, value in more.items() if name != "groupNodes" and sounds_of_keys(json.dumps({name: value}))
        ]
        if keys:
            workflow["extra"] = {name: value for name, value in more.items() if name not in keys}
            beside |= {f"extra.{name}": None for name in keys}
    extra = _data_beside(beside, {})
    return Unwrapped(workflow, extra, {name: value for name, value in beside.items() if name not in _DATA_FIELDS})


def _within(document: Mapping[str, Any], *, levels: int) -> dict[str, Unwrapped]:
    """The workflows in the fields of an object, by the fields' names. Raises as `unwrap`."""
    inner: dict[str, Unwrapped] = {}
    given = {name: document[name] for name in WORKFLOW_FIELDS if document.get(name) is not None}
    problems: list[NotJson] = []
    for name, value in given.items():
        try:
            found = _of_history(value) or unwrap(value, levels=levels)
        except NotJson as problem:
            problems.append(problem)
        else:
            inner |= {} if found is None else {name: found}
    if problems and len(problems) == len(given):
        raise problems[0]
    return inner


def _joined(document: Mapping[str, Any], inner: Mapping[str, Unwrapped]) -> Unwrapped:
    graphs = {name: found for name, found in inner.items() if found.is_graph}
    place, main = next(iter((graphs or inner).items()))
    for name, other in graphs.items():
        if other.workflow != main.workflow:
            raise InvalidRequest(f"there are two workflows, in {place!r} and in {name!r}: send one of them.")
    saved = next((found.workflow for found in inner.values() if is_of_editor(found.workflow)), None)
    extra = main.extra_data
    if saved is not None and graphs:
        extra = merged(extra, {"extra_pnginfo": {"workflow": saved}})
    extra = _data_beside(document, extra)
    used = {*inner, *_DATA_FIELDS}
    rest = {name: value for name, value in document.items() if name not in used}
    # Of the same graph twice, what stood around either; that of the first counts.
    around = [part for found in (*reversed(graphs.values()), main) for part in (found.within, found.rest)]
    within = {name: value for part in around for name, value in part.items()}
    if is_of_editor(main.workflow):  # a picture's pair, whose prompt cannot be used
        unusable = [name for name in _GRAPH_FIELDS if name in rest and _is_no_text(rest[name])]
        within |= {name: rest.pop(name) for name in unusable}
    if _of_history(document[place]) is not None:
        within |= {name: rest.pop(name) for name in _HISTORY_FIELDS & rest.keys()}
    return Unwrapped(main.workflow, extra, rest, within, place)


def _is_no_text(value: object) -> bool:
    """Whether a value is an empty text, an object or a list: no prompt in words, and no name of anything."""
    return value == "" or isinstance(value, Mapping | list)


def _data_beside(document: Mapping[str, Any], extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data for ComfyUI in the fields of an object, and what is there already. Raises InvalidRequest."""
    if (info := from_text(document.get("extra_pnginfo"), what="extra_pnginfo")) is not None:
        extra = merged({"extra_pnginfo": info}, extra)
    if (given := from_text(document.get("extra_data"), what="extra_data")) is not None:
        if not isinstance(given, Mapping):
            raise InvalidRequest("`extra_data` must be an object of what ComfyUI gets beside the workflow.")
        extra = merged(given, extra)
    return extra


def _of_history(entry: object) -> Unwrapped | None:
    """The workflow in an entry of ComfyUI's history or queue: number, id, graph, extra data, outputs."""
    if not isinstance(entry, list) or len(entry) <= _HISTORY_EXTRA or not is_graph(entry[_HISTORY_GRAPH]):
        return None
    extra = entry[_HISTORY_EXTRA]
    info = extra.get("extra_pnginfo") if isinstance(extra, Mapping) else None
    return Unwrapped(entry[_HISTORY_GRAPH], {} if info is None else {"extra_pnginfo": info})
