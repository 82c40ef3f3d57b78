"""Whether two runs of the same workflow differ by chance: by a seed of -1, or by alternatives in a text. No IO.

Of what the editor saved it is judged without declarations, so where it is not plain which input a value is of, it is
taken for one that is random. A run too many costs less than a picture that was asked for twice and made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from comfy_serverless.graph.editor_files import nodes_of, values_of
from comfy_serverless.graph.editor_nodes import subgraphs_in
from comfy_serverless.graph.nodes import NOTES, SEED_INPUTS
from comfy_serverless.graph.workflow import draws_seeds, is_to_draw
from comfy_serverless.graph.wrappers import is_of_editor

#: What stands in a widget after a number that the editor changes by itself; files of 2023 have true or false there.
_CONTROLS = ("fixed", "increment", "decrement", "randomize")


def draws(workflow: Mapping[str, Any]) -> bool:
    """Whether a checked workflow, in either format, has something random in it."""
    if is_of_editor(workflow):
        return has_seed_to_draw(workflow) or rolls(workflow)
    return draws_seeds(workflow)


def with_seeds_to_draw(graph: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copies of a graph, checked or not, and of the values set in it, in which every seed is -1. Links stay."""
    return {node_id: _with_seeds_to_draw(node) for node_id, node in graph.items()}, {
        at: -1 if _is_seed(at.rpartition(".")[2], value) else value for at, value in values.items()
    }


def _with_seeds_to_draw(node: object) -> object:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(inputs, Mapping):
        return node  # whoever runs it says what is wrong with it
    return {**node, "inputs": {name: -1 if _is_seed(name, value) else value for name, value in inputs.items()}}


def _is_seed(name: str, value: object) -> bool:
    return name in SEED_INPUTS and isinstance(value, int | float | str)


def has_seed_to_draw(workflow: Mapping[str, Any]) -> bool:
    """Whether what the editor saved may have a seed of -1."""
    return any(map(_may_have_seed, nodes_of(workflow)))


def rolls(workflow: Mapping[str, Any], *, replaced: Iterable[str] = ()) -> bool:
    """Whether a workflow has texts of which alternatives are rolled, `{red|blue}`, whatever its seeds are.

    Args:
        replaced: the nodes, by id, class or title, that get another text, once for each of their texts.
    """
    if not is_of_editor(workflow):
        return False  # in API format they are plain texts
    others, hosts = Counter(replaced), _definitions(workflow)
    return any(
        count > sum(others[name] for name in _names(node))
        for node in nodes_of(workflow)
        if isinstance(kind := node.get("type"), str) and kind not in NOTES and kind not in hosts
        if (count := _rolled_texts(node))
    )


def _rolled_texts(node: Mapping[str, Any]) -> int:
    return sum(1 for value in values_of(node) if isinstance(value, str) and _is_rolled(value))


def _is_rolled(text: str) -> bool:
    if "{" not in text or "|" not in text:
        return False
    from comfy_serverless.graph.convert.texts import Dice, choose  # seldom needed, and takes a while to load

    return choose(text, Dice(None, "")).rolled


def _definitions(workflow: Mapping[str, Any]) -> set[object]:
    """The ids of its subgraphs: what their hosts hold is taken as it is."""
    found = (each.get("id") for each in subgraphs_in(workflow))
    return {each for each in found if isinstance(each, str)}


def _names(node: Mapping[str, Any]) -> set[str]:
    """What an address may call a node; of one in a subgraph, the last part of its id."""
    return {str(node[part]) for part in ("id", "type", "title") if isinstance(node.get(part), int | str)}


def _may_have_seed(node: Mapping[str, Any]) -> bool:
    """Whether a node may have a seed of -1: by its names, or because the editor changes the number by itself."""
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        return any(is_to_draw(str(name), value) for name, value in values.items())
    if not isinstance(values, list):
        return False
    minus_ones = [place for place, value in enumerate(values) if is_to_draw("seed", value)]
    if not minus_ones:
        return False
    after = [values[place + 1] for place in minus_ones if place + 1 < len(values)]
    return any(value in _CONTROLS or isinstance(value, bool) for value in after) or _is_called_seed(node)


def _is_called_seed(node: Mapping[str, Any]) -> bool:
    inputs = node.get("inputs")
    entries = (entry for entry in inputs if isinstance(entry, Mapping)) if isinstance(inputs, list) else ()
    named = " ".join(str(node.get(part) or "") for part in ("type", "title")).lower()
    return any(str(entry.get("name")) in SEED_INPUTS for entry in entries) or "seed" in named
