"""PrimitiveNode: writes its value into the widgets that it is linked to, and vanishes. No IO.

Observed of the official editor 1.49.6: also when it is muted or bypassed. Only widgets that it is linked to directly
get the value; through a Reroute nothing arrives. A number is made to fit: what all its targets allow together, then
what each allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from comfy_serverless.graph.convert.declared import COMBO, WIDGET_TYPES, Declared
from comfy_serverless.graph.convert.findings import named, shown
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.model import Graph, Node
from comfy_serverless.graph.convert.numbers import Number, as_number, is_number
from comfy_serverless.graph.convert.proxies import linked_targets
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.virtual import PRIMITIVE, VIRTUAL, first_value
from comfy_serverless.graph.convert.widgets import NOTHING, first_choice

#: What may differ between targets.
_MAY_DIFFER = frozenset({
    "default", "tooltip", "control_after_generate", "multiline", "dynamicPrompts", "forceInput", "defaultInput",
    "min", "max", "step",
})  # fmt: skip
_LEAST, _MOST, _STEP, _FLOAT_STEP = 0, 2048, 1, 0.5
_MOST_PLACES = 15
_REPLACES = "Run widget replace on values"


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
    if not _starts_well(scene, node, targets[0]):
        its = named(node.id, node.type, node.title)
        scene.findings.warn(f"{its}: what it is linked to first takes no value, so nothing gets one, as in the editor")
        return
    value = first_value(node) if node.values else hosts.held(*targets[0])
    entries = [scene.filled(target).inputs[slot].of for target, slot in targets]
    numeric = [entry for entry in entries if entry is not None and entry.kind in ("INT", "FLOAT")]
    shared = _shared(value, numeric)
    if isinstance(shared, str) and node.properties.get(_REPLACES) is True:
        shared = replaced(shared)
    for target, slot in targets:
        if scene.definition(target) is not None:
            its = named(node.id, node.type, node.title)
            scene.findings.warn(
                f"{its}: its value does not reach into the subgraph of node {target.id}, as in the editor"
            )
            continue
        filled = scene.filled(target)
        entry, widget = filled.inputs[slot].of, filled.widgets.get(filled.inputs[slot].name)
        if widget is None or entry is None or entry.kind is None:
            its, name = named(node.id, node.type, node.title), filled.inputs[slot].name
            if target.type in VIRTUAL:
                what = f"does not go on through node {target.id} ({target.type})"
            else:
                what = f"cannot be one of the input {name!r} of node {target.id}"
            scene.findings.warn(f"{its}: its value {what}, as in the editor")
            continue
        own = taken(shared, entry.kind, entry.options) if entry.kind in ("INT", "FLOAT") else shared
        if own != value and is_number(value):
            its = named(node.id, node.type, node.title)
            scene.findings.warn(f"{its}: {shown(value)!r} is made {own} to fit {entry.name!r} of node {target.id}")
        if own is None and entry.kind == COMBO and (first := first_choice(entry)) is not NOTHING:
            own = first
        widget.value, widget.is_given = own, True


def _starts_well(scene: Scene, node: Node, first: tuple[Node, int]) -> bool:
    """Whether the first link of a primitive leads to what takes a value: without that it has no widget of its own."""
    target, slot = first
    entry = scene.filled(target).inputs[slot]
    if entry.link != node.outputs[0].links[0] or target.type in VIRTUAL:
        return False
    return scene.definition(target) is not None or entry.is_widget or entry.type in WIDGET_TYPES


def _shared(value: Any, entries: list[Declared]) -> Any:  # noqa: ANN401
    """A number that fits what all targets allow together, as far as they go together; anything else itself."""
    if not entries:
        return value
    if as_number(value) is None:
        return value
    value, merged = fitted(value, entries[0].kind, entries[0].options), entries[0].options
    for entry in entries[1:]:
        together = _together(merged, entry.options) if entry.kind == entries[0].kind else None
        if together is not None:
            merged = together
            value = fitted(value, entry.kind, merged)
    return value


def fitted(value: Any, kind: str | None, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A value as a primitive makes it fit its targets: clamped, then rounded; null if it is no number.

    What is rounded to a step may be beyond the limits again.
    """
    number = as_number(value)
    if number is None:
        return None
    least, most = _number(options, "min", _LEAST), _number(options, "max", _MOST)
    return taken(min(max(number, least), most), kind, options)


def taken(value: Any, kind: str | None, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A value as the widget of a number takes it: rounded, and clamped if its numbers are no whole ones."""
    number = as_number(value)
    if number is None:
        return None
    least, most = _number(options, "min", _LEAST), _number(options, "max", _MOST)
    if kind == "INT":
        return _to_step(number, least, options)
    return min(max(_to_places(number, options), least), most)


def _to_step(number: Number, least: Number, options: Mapping[str, Any]) -> Number:
    step = _number(options, "step", 1)
    if step <= 0 or (step == 1 and isinstance(number, int)):
        return number
    rest = least % step
    whole = math.floor((number - rest) / step + 0.5) * step + rest
    return int(whole) if whole == int(whole) else whole


def _to_places(number: Number, options: Mapping[str, Any]) -> Number:
    step = _number(options, "step", _FLOAT_STEP)
    places = min(max(0, -math.floor(math.log10(step))), _MOST_PLACES) if step > 0 else 0
    to = options.get("round")
    if to is False:
        return number
    to = to if is_number(to) and to > 0 else 10**-places
    shown = Decimal(math.floor(number / to + 0.5) * to).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return float(shown)


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


def _number(options: Mapping[str, Any], name: str, otherwise: Number) -> Number:
    found = options.get(name)
    return found if is_number(found) else otherwise
