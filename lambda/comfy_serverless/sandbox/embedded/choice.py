"""Chooses among the texts of a file: which is the prompt, which the workflow, and which is neither. No IO.

ComfyUI writes both: `prompt`, the graph that made the file, and `workflow`, what the editor shows. Others write one
object of both into a comment (VideoHelperSuite, SaveSVGNode), a graph under the name of a workflow, or a graph with
notes of their own among its nodes (Civitai). What is broken is left out, and said, if something else can be used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.workflow import MAX_DEPTH, is_shallow
from comfy_serverless.graph.wrappers import WORKFLOW_FIELDS, from_text, is_graph, is_of_editor
from comfy_serverless.json_text import finite, parse_json
from comfy_serverless.sandbox.embedded.finds import MOST_KEPT_CHARACTERS, PROMPT, WORKFLOW, Finds, check_containers
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.uncollected import uncollected

#: The form of what is found: `{"document": {"prompt": …, "workflow": …}, "warnings": […]}`, as JSON.
Embedded = dict[str, Any]
_CALLED = {PROMPT: "the prompt", WORKFLOW: "the workflow of the editor"}
#: What helps instead: a sentence without its full stop.
INSTEAD = "Give the workflow itself: the JSON that the editor saves or exports"


class _Choice:
    """What has been chosen so far, and why something was not."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []

    def take(self, name: str, text: str) -> None:
        """Take a text as what its name says, or as what it is."""
        try:
            value = _parsed(text, name)
        except (InvalidRequest, Refused) as error:
            self.left_out.setdefault(name, str(error))
            return
        found = list(_within(value)) if isinstance(value, Mapping) else []
        if not found and name in _CALLED:
            self.left_out.setdefault(name, f"{_CALLED[name]} is no object of nodes")
        for kind, workflow in found:
            if not is_shallow(workflow):
                self.left_out.setdefault(kind, f"{_CALLED[kind]} is nested more than {MAX_DEPTH} levels deep")
            elif kind not in self.document:
                is_own = kind == WORKFLOW or name in _CALLED
                self.document[kind] = finite(dict(workflow) if is_own else self._nodes_of(workflow))

    def _nodes_of(self, graph: Mapping[str, Any]) -> dict[str, Any]:
        """A graph of another program without the notes that stand among its nodes."""
        nodes = {key: node for key, node in graph.items() if isinstance(node, Mapping) and "class_type" in node}
        if notes := sorted(graph.keys() - nodes.keys()):
            self.notes.append(f"left out, beside the nodes: {', '.join(repr(key[:60]) for key in notes[:20])}")
        return nodes


def chosen(finds: Finds) -> Embedded:
    """The prompt and the workflow among what was found.

    Raises Refused if there is neither, and says what there is instead: the end of a sentence that begins with the file.
    """
    with uncollected():
        choice = _Choice()
        for name, text in _in_order(finds):
            choice.take(name, text)
    if not choice.document:
        raise Refused(_nothing(finds, choice.left_out))
    missed = [reason for name, reason in choice.left_out.items() if name in _CALLED and name not in choice.document]
    result = {"document": choice.document, "warnings": [*choice.notes, *(f"left out: {reason}" for reason in missed)]}
    if len(json.dumps(result)) > MOST_KEPT_CHARACTERS:
        raise Refused(f"carries a workflow of more than {MOST_KEPT_CHARACTERS:,} characters")
    return result


def _in_order(finds: Finds) -> Iterator[tuple[str, str]]:
    for name in (PROMPT, WORKFLOW):
        for text in finds.named[name]:
            yield name, text
    yield from finds.others


def _parsed(text: str, name: str) -> object:
    value = parse_json(check_containers(text), source=_CALLED.get(name, f"the text {name!r}"))
    return from_text(value, what=_CALLED.get(name, name))


def _within(value: Mapping[str, Any], *, levels: int = 3) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The graphs and the editor's workflows in a value, by what they are; graphs first, as others may hold both."""
    if is_of_editor(value):
        yield WORKFLOW, value
    elif is_graph(value):
        yield PROMPT, value
    elif levels:
        for name in (PROMPT, *WORKFLOW_FIELDS):
            try:
                inner = from_text(value.get(name), what=name)
            except InvalidRequest:
                continue
            if isinstance(inner, Mapping):
                yield from _within(inner, levels=levels - 1)


def _nothing(finds: Finds, left_out: Mapping[str, str]) -> str:
    if left_out:
        reasons = "; ".join(dict.fromkeys(reason.rstrip(".") for reason in left_out.values()))
        return f"carries no workflow that can be read: {reasons}. {INSTEAD}."
    if finds.foreign:
        return (
            f"carries no workflow: it has {' and '.join(finds.foreign)}, which say how an image was made, but are no "
            f"graph that ComfyUI could run. {INSTEAD}."
        )
    return (
        "carries no workflow: only what ComfyUI has saved itself does, and services that show pictures, videos and "
        f"sounds strip it. {INSTEAD}."
    )
