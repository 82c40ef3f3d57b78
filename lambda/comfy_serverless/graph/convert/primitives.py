"""PrimitiveNode: writes its value into the widgets that it is linked to, and vanishes. No IO.

Observed of the official editor 1.49.6: also when it is muted or bypassed. Only widgets that it is linked to directly get
the value; through a Reroute nothing arrives. Of several targets that are numbers, what each allows is put together, and
the value made to fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from comfy_serverless.graph.convert.declared import Declared
from comfy_serverless.graph.convert.findings import named, shown
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.model import Graph, Node
from comfy_serverless.graph.convert.proxies import linked_targets
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.virtual import PRIMITIVE, first_value

#: What may differ between targets.
_MAY_DIFFER = frozenset({
    "default", "tooltip", "control_after_generate", "multiline", "dynamicPrompts", "forceInput", "defaultInput",
    "min", "max", "step",
})  # fmt: skip
_LEAST, _MOST, _STEP = 0, 2048, 1
_REPLACES = "Run widget replace on values"

Number = int | float


def write_primitives(scene: Scene, hosts: Hosts, replaced: Callable[[str], str]) -> None:
    """Write the value of each PrimitiveNode into its targets.

    Args:
        replaced: puts in the values that `%Node.widget%` names, for those that ask for it.
    """
    for graph in scene.graphs():
        for node in [*graph.nodes.values()]:
            if node.type == PRIMITIVE:
                _write(scene, hosts, graph, node, replaced)


def _write(scene: Scene, hosts: Hosts, graph: Graph, node: Node, replaced: Callable[[str], str]) -> None:
    targets = [*linked_targets(scene, graph, node)]
    if not targets:
        return
    value = first_value(node) if node.values else hosts.held(*targets[0])
    entries = [scene.filled(target).inputs[slot].of for target, slot in targets]
    numeric = [entry for entry in entries if entry is not None and entry.kind in ("INT", "FLOAT")]
    fitted = _fitted(value, numeric)
    if fitted != value:
        scene.findings.warn(
            f"{named(node.id, node.type, node.title)}: {shown(value)!r} is made {fitted} to fit its targets"
        )
    if isinstance(fitted, str) and node.properties.get(_REPLACES) is True:
        fitted = replaced(fitted)
    for target, slot in targets:
        if scene.definition(target) is not None:
            if hosts.is_promoted(target, slot):
                hosts.set(target, slot, fitted)
            continue
        filled = scene.filled(target)
        widget = filled.widgets.get(filled.inputs[slot].name)
        if widget is not None and filled.inputs[slot].of is not None:
            widget.value, widget.is_given = fitted, True


def _fitted(value: Any, entries: list[Declared]) -> Any:  # noqa: ANN401
    """A number that fits what all targets allow; anything else itself."""
    if not entries or not _is_number(value):
        return value
    merged: Mapping[str, Any] = entries[0].options
    for entry in entries[1:]:
        together = _together(merged, entry.options) if entry.kind == entries[0].kind else None
        if together is not None:
            merged = together
            value = _clamped(value, merged, is_whole=entry.kind == "INT")
    return value


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What both options allow; None if they do not go together."""
    least = max(_number(one, "min", -math.inf), _number(other, "min", -math.inf))
    most = min(_number(one, "max", math.inf), _number(other, "max", math.inf))
    if least > most:
        return None
    for name in (one.keys() | other.keys()) - _MAY_DIFFER:
        if one.get(name) != other.get(name):
            return None
    merged = dict(one)
    merged |= {"min": least} if math.isfinite(least) else {}
    merged |= {"max": most} if math.isfinite(most) else {}
    if "step" in one or "step" in other:
        merged["step"] = _common_step(_number(one, "step", _STEP), _number(other, "step", _STEP))
    return merged


def _common_step(one: Number, other: Number) -> Number:
    if one == int(one) and other == int(other):
        return math.lcm(int(one), int(other)) or _STEP
    return max(one, other)


def _clamped(value: Number, options: Mapping[str, Any], *, is_whole: bool) -> Number:
    least, most = _number(options, "min", _LEAST), _number(options, "max", _MOST)
    value = min(max(value, least), most)
    step = _number(options, "step", _STEP)
    if not is_whole or step <= 0:
        return value
    rest = least % step
    whole = math.floor((value - rest) / step + 0.5) * step + rest
    return int(whole) if whole == int(whole) else whole


def _number(options: Mapping[str, Any], name: str, otherwise: Number) -> Number:
    found = options.get(name)
    return found if _is_number(found) else otherwise


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
