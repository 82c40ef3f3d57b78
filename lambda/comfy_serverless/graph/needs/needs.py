"""Puts together what a workflow needs. No IO."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfy_serverless.errors import InvalidWorkflow, UiFormatWorkflow
from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.inputs import inputs_of
from comfy_serverless.graph.needs.answer import Model, Needs, NodeClass, Pack
from comfy_serverless.graph.needs.editor import EditorFile, EditorNode, muted, texts_in
from comfy_serverless.graph.needs.models import MOST_MODELS, Offered, Sources, Value, models_of
from comfy_serverless.graph.nodes import known
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import is_of_editor

#: The nodes of a class, and the classes, that are told.
_MOST_NODES, _MOST_CLASSES = 20, 2_000
_LONGEST_CLASS = 200
_CONVERSIONS = 2


def needs_of(
    workflow: Mapping[str, Any],
    object_info: Mapping[str, Any] | None,
    *,
    saved: Mapping[str, Any] | None = None,
    embeddings: Collection[str] | None = None,
    brought: Iterable[Model] = (),
) -> Needs:
    """What a workflow needs. Muted and bypassed nodes need nothing.

    Args:
        workflow: in the editor's format, or in API format.
        object_info: what ComfyUI declares, with the lists of the models that it has; None if there is none to ask.
        saved: the editor's workflow that stood beside a graph in API format, for packs and addresses.
        embeddings: the names of the embeddings that ComfyUI has; None if that is not known.
        brought: models that are there, or come with the job, although ComfyUI does not list them yet.

    Raises:
        InvalidWorkflow: it is no workflow, or one too large to be looked at.
    """
    offered = Offered(object_info)
    if is_of_editor(workflow):
        file = EditorFile(workflow)
        graph, raw, notes = _values_in(file, workflow, object_info)
        nodes = [(node.class_type, node.node_id, node.pack) for node in file.nodes]
    else:
        graph, raw, notes = check_format(workflow), (), []
        file = _file_of(saved)
        packs = {node.class_type: node.pack for node in file.nodes if node.pack is not None}
        nodes = [(node["class_type"], node_id, packs.get(node["class_type"])) for node_id, node in graph.items()]
    classes = _classes(nodes, offered)
    models = models_of(
        (*_values_of(graph), *_raw_values(raw)),
        offered=offered,
        sources=Sources.of(file),
        embeddings=embeddings,
    )
    return Needs(
        models=_with_brought(models, brought),
        nodes=classes,
        partner_nodes=tuple(node.class_type for node in classes if _calls_a_partner(node, object_info)),
        inputs=inputs_of(graph, object_info),
        notes=(*notes, *(["more models than these are not listed"] if len(models) >= MOST_MODELS else [])),
    )


def sources_in(saved: object) -> Sources:
    """Where the editor's workflow beside a graph says that models can be had; one that cannot be read says nothing."""
    return Sources.of(_file_of(saved))


def _file_of(saved: object) -> EditorFile:
    """What stands beside a graph; an empty file if it is no workflow of the editor, or cannot be read."""
    try:
        return EditorFile(saved if isinstance(saved, Mapping) else {})
    except InvalidWorkflow:  # one too deep, or too large: nothing depends on it
        return EditorFile({})


def _values_in(
    file: EditorFile, workflow: Mapping[str, Any], object_info: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Sequence[EditorNode], list[str]]:
    """The workflow in API format as far as it can be converted; the nodes whose values are only in the file; and notes.

    A class that cannot be converted spoils the subgraph that it is in: which values a host gives depends on it.
    """
    if object_info is None:
        return {}, file.nodes, ["which ComfyUI would run it is not known: nothing is said of what is there"]
    unknown = [node for node in file.nodes if node.class_type not in object_info]
    left_out = frozenset(node.class_type for node in unknown)
    declared = {**object_info, **{node.class_type: _stand_in(node) for node in unknown}}
    quiet: frozenset[str] = frozenset()
    for _ in range(_CONVERSIONS):
        try:
            graph = convert(muted(workflow, quiet) if quiet else workflow, declared).graph
        except UiFormatWorkflow as refused:
            reason = refused.message
            told = refused.details.get("reasons") or ()
            more = {str(one["class_type"]) for one in told if one.get("class_type")} - quiet
            if not more:
                break
            quiet |= more
        else:
            left_out |= quiet
            hosts = {_host(node.node_id) for node in file.nodes if node.class_type in left_out} - {""}
            notes = [f"the inputs within node {host} are not known: it has classes that are not" for host in hosts]
            kept = {
                node_id: node
                for node_id, node in graph.items()
                if _host(node_id) not in hosts and node["class_type"] not in left_out
            }
            raw = [node for node in file.nodes if node.class_type in left_out or _host(node.node_id) in hosts]
            return kept, raw, sorted(notes)[:_MOST_NODES]
    return {}, file.nodes, [f"the inputs that can be set are not known, because it cannot be converted: {reason}"]


def _stand_in(node: EditorNode) -> dict[str, Any]:
    """A declaration for a class that ComfyUI does not have: what is linked to its nodes stays linked."""
    return {"input": {}, "input_order": {}, "output": list(node.outputs), "output_node": True, "name": node.class_type}


def _host(node_id: str) -> str:
    """The outermost host that a node is within; "" for a node of the root."""
    return node_id.partition(":")[0] if ":" in node_id else ""


def _values_of(graph: Mapping[str, Any]) -> Iterator[Value]:
    """The texts in the inputs of a graph in API format; of an input that is linked to a constant, its text."""
    for node_id, node in graph.items():
        for name, given in node["inputs"].items():
            value = _constant(graph, given) if isinstance(given, list) else given
            for inner, text in texts_in(value, name):
                yield Value(node_id, node["class_type"], inner, text)


def _constant(graph: Mapping[str, Any], link: list[Any]) -> object:
    """The text that a link leads to, if it is one that nothing makes."""
    source = graph.get(link[0]) if link and isinstance(link[0], str) else None
    constant = known(source["class_type"]).constant if source is not None else ""
    return source["inputs"].get(constant) if source is not None and constant else None


def _raw_values(nodes: Sequence[EditorNode]) -> Iterator[Value]:
    for node in nodes:
        for name, text in node.values:
            yield Value(node.node_id, node.class_type, name, text)


def _classes(nodes: Iterable[tuple[str, str, Pack | None]], offered: Offered) -> tuple[NodeClass, ...]:
    """The classes of nodes, in the order of the workflow, each with the pack that one of its nodes names."""
    found: dict[str, tuple[list[str], Pack | None]] = {}
    counts: dict[str, int] = {}
    for class_type, node_id, pack in nodes:
        if class_type not in found and len(found) >= _MOST_CLASSES:
            continue
        ids, known = found.get(class_type, ([], None))
        counts[class_type] = counts.get(class_type, 0) + 1
        found[class_type] = ([*ids, node_id] if len(ids) < _MOST_NODES else ids), known or pack
    return tuple(
        NodeClass(
            class_type=class_type[:_LONGEST_CLASS],
            node_ids=tuple(ids),
            count=counts[class_type],
            pack=pack,
            known=offered.knows(class_type),
        )
        for class_type, (ids, pack) in found.items()
    )


def _with_brought(models: Sequence[Model], brought: Iterable[Model]) -> tuple[Model, ...]:
    """The models, those that are brought marked as there."""
    there = {(model.folder, model.name): model for model in brought}
    found = []
    for model in models:
        given = there.get((model.folder, model.name)) or there.get((model.folder, model.name.rpartition(".")[0]))
        if given is not None:
            model = replace(model, there=True, near="", url=given.url or model.url, sha256=given.sha256 or model.sha256)
        found.append(model)
    return tuple(found)


def _calls_a_partner(node: NodeClass, object_info: Mapping[str, Any] | None) -> bool:
    declaration = (object_info or {}).get(node.class_type)
    return isinstance(declaration, Mapping) and bool(declaration.get("api_node"))
