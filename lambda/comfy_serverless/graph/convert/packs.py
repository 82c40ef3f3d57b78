"""What the editor code of some classes does with a node's widgets. No IO.

Their declarations do not have it. The official editor 1.49.6 was observed with these packs, but for two things that
were not: what rgthree's second strength does, and ShowText's shown texts beyond the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.convert.values import Filled, Widget
from comfy_serverless.graph.convert.widgets import NOTHING, Place


def with_editor_code(node: Node, filled: Filled) -> Filled:
    """A filled node as the editor code of its class leaves it."""
    change = _CHANGES.get(node.type)
    if change is not None and not isinstance(node.values, dict):
        change(node, filled, node.values or [])
    return filled


def _custom_combo(_node: Node, filled: Filled, values: list[Any]) -> None:
    """CustomCombo: options grow as long as the last is not empty; `index` is the number of the one that is chosen."""
    options = [*takewhile(_is_option, values[2:]), ""]
    choice = values[0] if values else NOTHING
    if choice is None:
        choice = options[0]
    _set(filled, "choice", choice)
    _set(filled, "index", options.index(choice) if choice in options else -1)
    for number, option in enumerate(options, start=1):
        _set(filled, f"option{number}", option)
    filled.surplus = []


def _power_lora_loader(node: Node, filled: Filled, values: list[Any]) -> None:
    """rgthree's Power Lora Loader: every object with a `lora` is one; the others are headers and buttons."""
    loras = [value for value in values if isinstance(value, dict) and "lora" in value]
    separate = node.properties.get("Show Strengths") == "Separate Model & Clip"
    _set(filled, "PowerLoraLoaderHeaderWidget", {"type": "PowerLoraLoaderHeaderWidget"})
    for number, lora in enumerate(loras, start=1):
        sent = {name: part for name, part in lora.items() if name != "strengthTwo"}
        if separate:
            second = lora.get("strengthTwo")
            sent["strengthTwo"] = 1 if second is None else second
        _set(filled, f"lora_{number}", sent)
    _set(filled, "➕ Add Lora", "")
    filled.surplus = []


def _show_text(_node: Node, filled: Filled, values: list[Any]) -> None:
    """Custom-Scripts' ShowText: what was shown last stands in widgets of its own, which the server ignores."""
    shown = values[1:] if values and not values[0] else values
    texts = [text for part in shown for text in (part if isinstance(part, list) else [part])]
    for number, text in enumerate(texts):
        _set(filled, f"text_{number}", text)
    filled.surplus = []


def _preview(_node: Node, filled: Filled, _values: list[Any]) -> None:
    """What a preview has shown takes no place."""
    filled.surplus = []


def _is_option(value: object) -> bool:
    return value not in ("", None)


def _set(filled: Filled, name: str, value: object) -> None:
    filled.widgets[name] = Widget(Place(name), value)


_CHANGES: Mapping[str, Callable[[Node, Filled, list[Any]], None]] = {
    "CustomCombo": _custom_combo,
    "Power Lora Loader (rgthree)": _power_lora_loader,
    "ShowText|pysssss": _show_text,
    "PreviewAny": _preview,
}
