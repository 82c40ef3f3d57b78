"""Reads, edits and checks an API-format workflow: a graph of nodes, `{"3": {"class_type": …, "inputs": {…}}}`.

Plain functions over plain dictionaries. Nothing here knows a server, and only `load_payload` does IO. No graph, however
deep or twisted, makes a function recurse without bound: `check_format` refuses deep ones, and the others keep stacks.

`check_format` comes first; all other functions except the three of the original ComfyConnector (`replace_key_value`,
`find_output_node`, `load_payload`) expect a graph that has passed it.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidWorkflow, UiFormatWorkflow
from comfy_serverless.graph.copies import refuse_copies
from comfy_serverless.graph.lookup import MAX_ADDRESS_LENGTH, NodeLookup, NothingMeant, listing
from comfy_serverless.graph.node_errors import raise_node_errors
from comfy_serverless.graph.nodes import IMAGE_SAVER, SEED_INPUTS
from comfy_serverless.json_text import finite, is_finite, parse_json

#: The most containers inside containers a workflow may have. Real ones stay below ten.
MAX_DEPTH = 64
#: Seeds are drawn below this, so that they survive every JSON reader, JavaScript's included.
SEED_LIMIT = 2**53
#: The parts of a node that ComfyUI reads; what else stands in one, it or an editor has written for itself.
_NODE_PARTS = ("inputs", "class_type", "_meta")
#: How many of them a node has without `_meta`.
_OF_A_NODE = 2
#: The most nodes of a graph, as of the editor's file (`graph.convert`). Real ones have some hundred.
MAX_NODES = 50_000
#: The types of values that hold no others: most of a workflow, and quicker to tell than by `isinstance`.
_PLAIN = frozenset({str, int, float, bool, type(None)})
#: The types of those that do, the usual ones first: to tell that a list is no Mapping takes a while.
_CONTAINERS = (list, dict, tuple, Mapping)
#: Made once: `json.dumps` makes one for each call that is not as usual.
_AS_IT_IS = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_SLOT = re.compile(r"\d{1,9}")
_MINUS_ONE = re.compile(r"\s*-1(\.0*)?\s*")

_EXPORT_HINT = (
    "This is the editor's own format, and here a graph in API format is needed: `comfy-serverless convert FILE` makes "
    "one, and so does Workflow > Export (API) in ComfyUI."
)


def check_format(workflow: object) -> dict[str, Any]:
    """The API-format graph in `workflow`, without the `{"prompt": …}` that /prompt bodies put around it.

    Only the form is checked; whether nodes exist and inputs fit is ComfyUI's business. Nothing is copied.

    Raises:
        UiFormatWorkflow: the file was saved by the editor; the message says how to export it.
        InvalidWorkflow: not a graph; every node at fault is named, in `details["node_errors"]` too.
    """
    if not isinstance(workflow, Mapping):
        raise InvalidWorkflow(f"A workflow must be a JSON object of nodes, not {kind_in_words(workflow)}.")
    wrapped = workflow.get("prompt")
    if isinstance(wrapped, Mapping) and "class_type" not in wrapped:
        workflow = wrapped
    if isinstance(workflow.get("nodes"), list):
        raise UiFormatWorkflow(_EXPORT_HINT)
    if not workflow:
        raise InvalidWorkflow("The workflow has no nodes.")
    if len(workflow) > MAX_NODES:
        raise InvalidWorkflow(f"The workflow has {len(workflow):,} nodes; at most {MAX_NODES:,} are taken: divide it.")
    if not is_shallow(workflow):
        raise InvalidWorkflow(f"The workflow is nested more than {MAX_DEPTH} levels deep.")
    problems = {node_id: (reason, node) for node_id, node in workflow.items() if (reason := _malformed(node_id, node))}
    raise_node_errors("The workflow is not in API format", problems, error_type="invalid_node")
    return workflow if isinstance(workflow, dict) else dict(workflow)


def check_links(graph: Mapping[str, Any]) -> None:
    """Raise InvalidWorkflow unless every `[node id, slot]` in the graph points to a node of the graph.

    ComfyUI checks declared inputs only; a dangling link in any other input ends its worker thread for good. The error
    names every dangling link, in `details["node_errors"]` too.
    """
    problems: dict[object, tuple[str, object]] = {}
    for node_id, node in graph.items():
        dangling = [name for name, value in node["inputs"].items() if is_link(value) and value[0] not in graph]
        if dangling:
            links = ", ".join(f"input {name!r} links to node {node['inputs'][name][0]!r}" for name in dangling)
            problems[node_id] = (f"{links}, which is not in the workflow", node)
    raise_node_errors("The workflow has links to nodes that do not exist", problems, error_type="bad_linked_input")


def as_engine_reads(graph: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A graph with the parts of its nodes that ComfyUI reads, and what was put right, for people.

    A link that names its node or its slot by the wrong kind of value (`[1, 0]`, `["1", "0"]`) is taken for the one that
    is meant: ComfyUI takes every list of two in a declared input for a link, and would fail at these. In `_meta`, a
    number that JSON does not have becomes null.

    Raises:
        InvalidWorkflow: an input has a number or a text that JSON cannot hold; each node is named.
    """
    result: dict[str, Any] = {}
    notes: list[str] = []
    for node_id, node in graph.items():
        mended = {
            name: link
            for name, value in node["inputs"].items()
            if isinstance(value, list) and (link := _as_link(value, graph)) is not value
        }
        notes += [f"node {node_id}: the link {name!r} is read as {json.dumps(link)}" for name, link in mended.items()]
        if mended or "_meta" in node or len(node) > _OF_A_NODE:
            parts = {part: node[part] for part in _NODE_PARTS if part in node}
            if "_meta" in parts:
                parts["_meta"] = finite(parts["_meta"])
            result[node_id] = {**parts, "inputs": {**node["inputs"], **mended}}
        else:
            result[node_id] = node
    if not _is_writable(result):
        said = {node_id: _unwritable(node) for node_id, node in result.items()}
        problems = {node_id: (reason, graph[node_id]) for node_id, reason in said.items() if reason is not None}
        raise_node_errors("JSON cannot hold a value", problems, error_type="invalid_input_type", called="Node {!r} {}")
    return result, notes


def _is_writable(graph: Mapping[str, Any]) -> bool:
    """Whether JSON can hold all of a graph: asked once for all of its nodes, it takes a tenth of the time."""
    try:
        _AS_IT_IS.encode(graph).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _as_link(value: list[Any], graph: Mapping[str, Any]) -> object:
    """The link that is meant by a list of two that ComfyUI would take for one; any other value itself."""
    if len(value) != 2 or is_link(value):
        return value
    source, slot = value
    is_slot = (isinstance(slot, int) and not isinstance(slot, bool)) or (
        isinstance(slot, str) and _SLOT.fullmatch(slot) is not None
    )
    is_id = isinstance(source, str) or (isinstance(source, int) and not isinstance(source, bool))
    return [str(source), int(slot)] if is_id and is_slot and str(source) in graph else value


def _unwritable(node: Mapping[str, Any]) -> str | None:
    """The value of a node that JSON cannot hold, if any: an infinite number (`1e999` is one), half of a character."""
    for name, value in node["inputs"].items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"has {value} as its input {name!r}"
        if not is_finite(value):
            return f"has a number in its input {name!r} that JSON does not have"
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            return f"has an input {name[:100]!r} that JSON cannot hold: {error}"
    try:
        json.dumps(node["class_type"], ensure_ascii=False).encode()
        json.dumps(node.get("_meta"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return f"has a class or a title that JSON cannot hold: {error}"
    return None


def is_link(value: object) -> bool:
    """Whether an input's value is a connection, `[node id, output slot]`, as ComfyUI tells them apart."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))
    )


def targets(graph: Mapping[str, Any], address: str) -> list[tuple[str, str]]:
    """The `(node id, input name)` pairs an address means, in the order of the graph.

    `3.seed` is the input of the node with that id, `KSampler.steps` that of every node of the class, `My Title.text`
    that of every node with that title, in this order of precedence. Titles and input names may contain dots: the
    address is split at its last dot first, then at earlier ones, until a node and an input are found. `seed` alone is
    the input of the one node that has an input of that name; where there are several, the message lists them.

    An input the node does not have is an error, also if the class may know it: an export lists every value a node
    takes, and ComfyUI ignores unknown inputs silently, so a name that is not there is a mistake that stays hidden.

    Raises:
        InvalidWorkflow: nothing is meant; the message says why and which addresses come near.
    """
    lookup = NodeLookup(graph)
    try:
        return lookup.resolve(address)[1]
    except NothingMeant as problem:
        raise InvalidWorkflow(f"{address[:MAX_ADDRESS_LENGTH]!r}: {problem}{lookup.suggestion(address)}.") from None


def apply_set(graph: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the graph with `{"3.seed": 42, "KSampler.steps": 20, "My Title.text": "x"}` put in.

    Addresses are those of `targets`. If two mean the same input, the more specific one wins: a node id before a class,
    a class before a title, a title before the name of an input alone; among equals the later one. A link is replaced
    like any other value.

    Raises:
        InvalidWorkflow: all addresses that mean nothing, each with its reason in `details["set"]`; or values that
            stand in so many places that the graph would be far larger than what was sent.
    """
    if not values:
        return copy_graph(graph)
    meanings, problems = NodeLookup(graph).resolve_all(values)
    if problems:
        raise InvalidWorkflow(f"`set` does not fit the workflow: {listing(problems)}.", details={"set": problems})
    refuse_copies([(values[meaning.address], len(meaning.targets)) for meaning in meanings])
    result = copy_graph(graph)
    for meaning in meanings:
        for node_id, name in meaning.targets:
            result[node_id]["inputs"][name] = values[meaning.address]
    return result


def draw_seeds(
    graph: Mapping[str, Any], *, draw: Callable[[int], int] = secrets.randbelow
) -> tuple[dict[str, Any], dict[str, int]]:
    """A copy of the graph in which every seed that is to be drawn has a number, and those numbers: `{"3.seed": 123}`.

    -1 may be a text, too, as forms send it.
    `draw` returns a whole number from 0 to below its argument.
    """
    result = copy_graph(graph)
    seeds: dict[str, int] = {}
    for node_id, node in result.items():
        for name, value in node["inputs"].items():
            if is_to_draw(name, value):
                node["inputs"][name] = seeds[f"{node_id}.{name}"] = draw(SEED_LIMIT)
    return result, seeds


def is_to_draw(name: str, value: object) -> bool:
    """Whether an input's value asks for a random seed: -1 in a seed, as a number or as text."""
    if name not in SEED_INPUTS:
        return False
    if isinstance(value, str):
        return _MINUS_ONE.fullmatch(value) is not None
    return isinstance(value, (int, float)) and value == -1


def draws_seeds(graph: Mapping[str, Any]) -> bool:
    """Whether `draw_seeds` would draw one."""
    return any(is_to_draw(name, value) for node in graph.values() for name, value in node["inputs"].items())


def copy_graph(graph: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose nodes' inputs can be set without touching the original. The values are shared."""
    return {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}


def replace_key_value(
    graph: MutableMapping[str, Any],
    target_key: str,
    new_value: Any,  # noqa: ANN401
    class_type_list: Container[str] | None = None,
    exclude: bool = True,
) -> None:
    """Replace the value of a key wherever it stands inside the graph, in place.

    Dictionaries in dictionaries and in lists are searched; keys of `graph` itself, and of a dictionary that is directly
    an item of a list, are left alone, as the original ComfyConnector does. The new value is not searched.

    Args:
        class_type_list: classes that `exclude` is about, judged by the node that encloses a key. The original judged
            the innermost dictionary, so its filter never reached the inputs of a node.
        exclude: True replaces everywhere but in those classes (everywhere, without a list); False
            replaces only in those classes (nowhere, without a list).

    Raises:
        UiFormatWorkflow: the editor saved it, and values have no names there: nothing would be replaced.
    """
    if isinstance(graph.get("nodes"), list):
        raise UiFormatWorkflow(
            f"{target_key!r} cannot be replaced in the editor's own format, where values stand without their names: "
            "replace it in the graph that it becomes, connector.convert(workflow).graph."
        )

    def applies(class_type: object) -> bool:
        if class_type_list is None:
            return exclude
        return (class_type in class_type_list) != exclude

    seen: set[tuple[int, str | None]] = set()
    pending: list[tuple[Mapping[str, Any], object]] = [(graph, graph.get("class_type"))]
    while pending:
        container, class_type = pending.pop()
        visit = (id(container), class_type if isinstance(class_type, str) else None)
        if visit in seen:
            continue
        seen.add(visit)
        for value in container.values():
            if value is new_value:
                continue
            if isinstance(value, dict):
                enclosing_class = value.get("class_type", class_type)
                if target_key in value and applies(enclosing_class):
                    value[target_key] = new_value
                pending.append((value, enclosing_class))
            elif isinstance(value, list):
                pending.extend((item, item.get("class_type", class_type)) for item in value if isinstance(item, dict))


def find_output_node(graph: Mapping[str, Any]) -> str | None:
    """The first SaveImage node as the original returns it, `"['9']"`; None if there is none."""
    seen: set[int] = {id(graph)}
    pending: list[Iterator[tuple[str, Any]]] = [iter(graph.items())]
    while pending:
        for key, value in pending[-1]:
            if not isinstance(value, dict) or id(value) in seen:
                continue
            if value.get("class_type") == IMAGE_SAVER:
                return f"['{key}']"
            seen.add(id(value))
            pending.append(iter(value.items()))
            break
        else:
            pending.pop()
    return None


def load_payload(path: str | Path) -> Any:  # noqa: ANN401
    """The JSON in a file.

    Raises:
        OSError: the file cannot be read.
        NotJson: it is not JSON, with the place where it breaks.
    """
    return parse_json(Path(path).read_bytes(), source=str(path))


def _malformed(node_id: object, node: object) -> str | None:
    """The fault in the form of a node, if any."""
    if not isinstance(node_id, str):
        return "its id must be a string"
    if not isinstance(node, dict):
        return f"must be an object with class_type and inputs, not {kind_in_words(node)}"
    if not isinstance(node.get("class_type"), str) or not node["class_type"]:
        return "has no class_type"
    if not isinstance(node.get("inputs"), dict):
        return f"must have an object as inputs, not {kind_in_words(node.get('inputs'))}"
    if not all(isinstance(name, str) for name in node["inputs"]):
        return "has an input whose name is not a string"
    return None


def is_shallow(workflow: Mapping[str, Any]) -> bool:
    """Whether no value lies deeper than MAX_DEPTH. Checked level by level: bounded for cyclic ones too."""
    if _is_flat(workflow):
        return True
    level: list[Any] = [workflow]
    for _ in range(MAX_DEPTH):
        children = {
            id(child): child
            for container in level
            for child in (container if isinstance(container, (list, tuple)) else container.values())
            if type(child) not in _PLAIN and isinstance(child, _CONTAINERS)
        }
        level = list(children.values())
        if not level:
            return True
    return False


def _is_flat(workflow: Mapping[str, Any]) -> bool:
    """Whether it is nodes with plain inputs and links alone, as nearly all are: told in half the time."""
    for node in workflow.values():
        if type(node) is not dict:
            return False
        for part in node.values():
            if type(part) in _PLAIN:
                continue
            if type(part) is not dict:
                return False
            for value in part.values():
                if type(value) not in _PLAIN and (type(value) is not list or not _PLAIN.issuperset(map(type, value))):
                    return False
    return True


def count_values(value: object) -> int:
    """The number of values in a value, at any depth, itself included."""
    count, pending = 0, [value]
    while pending:
        each = pending.pop()
        count += 1
        if isinstance(each, Mapping):
            pending += each.values()
        elif isinstance(each, list):
            pending += each
    return count


def kind_in_words(value: object) -> str:
    """The kind of a JSON value, for people: `a list`."""
    for types, name in (
        (type(None), "null"),
        (bool, "a boolean"),
        (str, "a string"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"
