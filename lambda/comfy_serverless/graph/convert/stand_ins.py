"""What a file of the editor says itself of classes that nobody has declared: to be looked at, never to be run. No IO.

    file ──► each active node of an undeclared class ──► its inputs, and its values as far as they have names
         ──► a stand-in for the declaration, which takes part in everything that a proposal of inputs asks

A stand-in invents nothing: it has no ranges, no choices and no defaults, and a value without a name is left out and
counted. Whoever runs the workflow asks the engine, which has no such class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_serverless.graph.convert.conversion import each_active, understood
from comfy_serverless.graph.convert.declared import WIDGET_TYPES
from comfy_serverless.graph.convert.findings import names_subgraph, shown
from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.convert.told import told_values
from comfy_serverless.graph.convert.unknown import pack_in_words
from comfy_serverless.graph.convert.virtual import is_everywhere
from comfy_serverless.graph.convert.widgets import NOTHING
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.undeclared import STAND_IN

#: The types of widgets that people set.
_PLAIN: Final = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_MOST_NODES: Final = 5
_MOST_CLASSES: Final = 10


@dataclass(slots=True)
class _Class:
    """A class that nobody has declared, with what its nodes say."""

    nodes: list[tuple[str, Node]] = field(default_factory=list)
    inputs: dict[str, list[Any]] = field(default_factory=dict)
    unnamed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIns:
    """The declarations that there are, with stand-ins for those that a workflow lacks.

    Attributes:
        classes: what has a stand-in, in the order of the workflow.
        notes: a sentence for each: which nodes, of which pack, and how many values have no name.
    """

    object_info: Mapping[str, Any]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def stand_ins(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> StandIns:
    """What there is to look at a workflow with. Raises UiFormatWorkflow if it cannot be read."""
    scene, _ = understood(workflow, object_info)
    found: dict[str, _Class] = {}
    for scope, node in each_active(scene):
        if scene.classes.get(node.type) is None and not is_everywhere(node.type) and not names_subgraph(node.type):
            _note(found.setdefault(node.type, _Class()), scope.path(node), node)
    declared = {name: _declaration(one) for name, one in found.items()}
    notes = [_in_words(name, one) for name, one in found.items()] if object_info else [_of_all(found)]
    more = [f"and {len(notes) - _MOST_CLASSES} more classes that nobody has declared"] if notes[_MOST_CLASSES:] else []
    return StandIns(
        object_info={**object_info, **declared}, classes=tuple(found), notes=(*notes[:_MOST_CLASSES], *more)
    )


def _note(one: _Class, path: str, node: Node) -> None:
    one.nodes.append((path, node))
    values = told_values(node)
    if values is None:
        one.unnamed += len(node.values or ())
        values = {}
    kinds = {name: kind for name, value in values.items() if (kind := _type_of(name, value))}
    kinds |= {entry.name: entry.type for entry in node.inputs if entry.of_widget and entry.type in _PLAIN}
    for name, kind in kinds.items():
        # Without a value in the file there is none, whatever the editor would take then.
        one.inputs.setdefault(name, [kind, {"default": NOTHING}])
    for entry in node.inputs:
        forced = {"forceInput": True} if entry.type in WIDGET_TYPES else {}
        one.inputs.setdefault(entry.name, [entry.type, forced])


def _type_of(name: str, value: object) -> str:
    """The type of a value that has a name and no more; "" if it is none that people set.

    JavaScript, and so the editor, writes 8.0 as `8`: a whole number says only that a number is taken, seeds excepted.
    """
    match value:
        case bool():
            return "BOOLEAN"
        case int() if name in SEED_INPUTS:
            return "INT"
        case int() | float():
            return "FLOAT"
        case str():
            return "STRING"
        case _:
            return ""


def _declaration(one: _Class) -> dict[str, Any]:
    """What `/object_info` would have, as far as the file says. A class whose nodes have no output must be one."""
    outputs = max((node.outputs for _, node in one.nodes), key=len)
    return {
        STAND_IN: True,
        "input": {"optional": one.inputs},
        "output": [outlet.type for outlet in outputs],
        "output_name": [outlet.name for outlet in outputs],
        "output_node": not outputs,
    }


def _of_all(found: Mapping[str, _Class]) -> str:
    """One sentence, where nobody has declared anything."""
    unnamed = [str(shown(name)) for name, one in found.items() if one.unnamed]
    more = f" and {len(unnamed) - _MOST_CLASSES} more" if len(unnamed) > _MOST_CLASSES else ""
    left_out = (
        f"; values of these classes have no names there, and are left out: {', '.join(unnamed[:_MOST_CLASSES])}{more}"
        if unnamed
        else ""
    )
    return (
        "no worker has told yet which nodes it has, nor has who deployed it (`make declarations`): what is shown is "
        f"what the file itself says{left_out}"
    )


def _in_words(class_type: str, one: _Class) -> str:
    ids = [path for path, _ in one.nodes]
    more = f" and {len(ids) - _MOST_NODES} more" if len(ids) > _MOST_NODES else ""
    which = f"{'node' if len(ids) == 1 else 'nodes'} {', '.join(str(shown(path)) for path in ids[:_MOST_NODES])}{more}"
    unnamed = f", where {one.unnamed:,} of its values have no names, and are left out" if one.unnamed else ""
    return (
        f"nobody has declared the class {str(shown(class_type))!r} ({which}{pack_in_words(one.nodes)}): what is shown "
        f"of it is what the file itself says{unnamed}; it runs only where a worker has that class"
    )
