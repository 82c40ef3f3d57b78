"""Turns a workflow of the editor into a graph in API format, in these steps. No IO.

file ─► read ─► groups expanded ─► ids made unique ─► size and circles checked
     ─► hosts' values ─► proxyWidgets ─► primitives written ─► each active node written, its inputs followed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from comfy_serverless.graph.convert.declared import Declarations, NodeClass
from comfy_serverless.graph.convert.findings import Findings, named
from comfy_serverless.graph.convert.groups import expand_groups
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.ids import make_unique
from comfy_serverless.graph.convert.limits import check_expansion, check_values
from comfy_serverless.graph.convert.lost import warn_of_hosts
from comfy_serverless.graph.convert.model import BYPASSED, MUTED, Node
from comfy_serverless.graph.convert.primitives import write_primitives
from comfy_serverless.graph.convert.proxies import promote_proxies
from comfy_serverless.graph.convert.reading import is_editor_format, read
from comfy_serverless.graph.convert.scene import Scene, Scope
from comfy_serverless.graph.convert.sources import Held, Linked, Sources
from comfy_serverless.graph.convert.unknown import UnknownClasses
from comfy_serverless.graph.convert.virtual import VIRTUAL, is_everywhere
from comfy_serverless.graph.convert.widgets import NOTHING
from comfy_serverless.graph.convert.written import Writer


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted workflow.

    Attributes:
        graph: the workflow in API format.
        warnings: what was guessed, left out or rolled, each with its node.
        rolled: the texts that have alternatives, `{red|blue}`, as they were written, by address: `6.text`.
    """

    graph: dict[str, Any]
    warnings: tuple[str, ...]
    rolled: Mapping[str, str] = field(default_factory=dict)


def to_prompt(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The API prompt of a workflow of the editor, with the first alternative of each dynamic prompt.

    Raises as `convert`.
    """
    return convert(workflow, object_info).graph


def convert(
    workflow: Mapping[str, Any],
    object_info: Mapping[str, Any],
    *,
    supplied: Mapping[str, Any] | None = None,
    seed: str | None = None,
    now: datetime | None = None,
) -> Conversion:
    """A workflow of the editor as a graph in API format. Neither argument is changed.

    Args:
        object_info: what the engine answers to `GET /object_info`.
        supplied: values that the caller gives, by "NODE.input"; without them a node whose value only a browser can
            make (a camera, a recording, a view of a model) is refused.
        seed: what dynamic prompts are rolled from: the same seed gives the same graph. None: the first alternatives.
        now: the time for `%date:…%` in names of files, in the zone of those who read them. None: this machine's.

    Raises:
        UiFormatWorkflow: it cannot be converted; `details["reasons"]` has every reason.
    """
    scene, hosts = understood(workflow, object_info)
    writer = Writer(scene, hosts, supplied or {}, seed, now)
    write_primitives(scene, hosts, writer.with_values)
    graph = _written(scene, Sources(scene, hosts), writer)
    scene.findings.raise_if_refused()
    return Conversion(graph, scene.findings.warnings, writer.rolled)


def understood(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> tuple[Scene, Hosts]:
    """A workflow of the editor, read, with all its ids and with the values of its subgraphs. Raises as `convert`."""
    findings = Findings()
    if not is_editor_format(workflow):
        findings.refuse("malformed", "it has no list of nodes, so it is not one that the editor saved")
        findings.raise_if_refused()
    scene = Scene(read(workflow, findings), Declarations(object_info), findings)
    findings.raise_if_refused()
    expand_groups(scene)
    make_unique(scene.workflow)
    check_values(scene)
    check_expansion(scene)
    findings.raise_if_refused()
    hosts = Hosts(scene)
    promote_proxies(scene, hosts)
    warn_of_hosts(scene, hosts)
    return scene, hosts


def _written(scene: Scene, sources: Sources, writer: Writer) -> dict[str, Any]:
    graph: dict[str, Any] = {}
    unknown = UnknownClasses(scene.findings)
    for scope, node in each_active(scene):
        node_class = scene.classes.get(node.type)
        path = scope.path(node)
        if is_everywhere(node.type):
            _refuse_everywhere(scene, path, node)
        elif node_class is None:
            unknown.note(path, node)
        elif path in graph:
            scene.findings.refuse("duplicate_id", f"two nodes get the id {path}", node_id=path)
        else:
            graph[path] = _node(scope, node, node_class, scene, sources, writer)
    unknown.tell()
    for entry in graph.values():
        inputs = entry["inputs"]
        for name in [name for name, value in inputs.items() if isinstance(value, list) and value[0] not in graph]:
            del inputs[name]
    return graph


def _node(
    scope: Scope, node: Node, node_class: NodeClass, scene: Scene, sources: Sources, writer: Writer
) -> dict[str, Any]:
    filled = scene.filled(node)
    writer.spend(scope.path(node))
    linked: dict[str, Any] = {}
    for slot, entry in enumerate(filled.inputs):
        if entry.link is None:
            continue
        match sources.of(scope, node, slot):
            case Linked(node_id, output):
                writer.spend(node_id)
                linked[entry.name] = [node_id, output]
            case Held(value) if value is not NOTHING:
                linked[entry.name] = writer.wrapped(value)
            case _:
                pass
    inputs = writer.own_values(scope, node, node_class, filled, linked)
    return {
        "inputs": {**inputs, **linked},
        "class_type": node.type,
        "_meta": {"title": node.title or node_class.title},
    }


def each_active(scene: Scene) -> Iterator[tuple[Scope, Node]]:
    """Every node that is in the prompt, with its place.

    A muted or bypassed host keeps its inside out of the prompt at the root only: within a subgraph the official editor
    leaves that in, and so do we.
    """
    pending = [(Scope(scene.workflow.root), node) for node in reversed(scene.workflow.root.nodes.values())]
    while pending:
        scope, node = pending.pop()
        definition = scene.definition(node)
        if definition is not None:
            if scope.host is not None or not node.is_out:
                inside = scope.inside(node, definition)
                pending += [(inside, inner) for inner in reversed(definition.nodes.values())]
        elif node.mode not in (MUTED, BYPASSED) and node.type not in VIRTUAL:
            yield scope, node


def _refuse_everywhere(scene: Scene, path: str, node: Node) -> None:
    scene.findings.refuse(
        "use_everywhere",
        f"{named(path, node.type)} links nodes in the editor only, so the file does not say what is linked: "
        "turn its links into real ones (in the editor: right-click, Convert all UEs to real links)",
        node_id=path,
        class_type=node.type,
    )
