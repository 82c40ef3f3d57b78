"""Which value of a node is which, as far as the file itself says: no declaration is asked. No IO.

Values stand in a plain list, and two things in a file may name them. Editors from 1.49 on write `widgets_values_named`,
whose names are in the order of the list; of the two the list counts, as files are edited by hand. Older ones list every
widget among the inputs of its node, and newer ones some of them: only where all are there is it plain which is which.
Of 922 nodes of official templates that are read so, no value went to a wrong name (compared with ComfyUI 0.33.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.nodes import known

#: The words of the control that follows a value, which has no name of its own in older files.
_CONTROLS: Final = frozenset({"fixed", "increment", "decrement", "randomize"})
_CONTROLLED: Final = frozenset({"INT", "FLOAT", "COMBO"})
#: What becomes of a value after each run, as current editors call that.
CONTROL: Final = "control_after_generate"
#: How the names of values begin that belong to no input: the editor's own controls, buttons and previews. Their words
#: stand alone (`upload 3d model`), where those of inputs go on (`upload_path`, `refresh_rate`).
_OF_EDITOR: Final = re.compile(
    rf"(?:{CONTROL}|control_filter_list|upload|audioUI|refresh|videopreview)\b|choose |\$\$", re.ASCII
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: Final[Mapping[str, Callable[[object], bool]]] = {
    "INT": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "FLOAT": _is_number,
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "COMBO": lambda value: isinstance(value, str | int | float),
}


def is_editors_own(name: str) -> bool:
    """Whether a value of this name is the editor's own, and belongs to no input."""
    return _OF_EDITOR.match(name) is not None


def told_values(node: Node) -> dict[str, Any] | None:
    """The values of a node by the names of their inputs; None if the file does not say which is which."""
    values = node.values
    if not values:
        return {}
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if not is_editors_own(name)}
    if node.names is not None:
        named = zip(node.names, values, strict=True)
        return {name: value for name, value in named if not is_editors_own(name) and "#" not in name}
    files = [*known(node.type).files]
    if len(files) == 1:  # ComfyUI's loaders have the file first, and buttons after it
        return {files[0]: values[0]}
    return _of_listed_widgets(node, values)


def told_control(node: Node) -> str | None:
    """What becomes of a node's seed after each run, if the file names the value that says it."""
    named = zip(node.names, node.values, strict=True) if node.names and isinstance(node.values, list) else ()
    return next((value for name, value in named if name == CONTROL and _is_control(value)), None)


def _is_control(value: object) -> bool:
    return isinstance(value, str) and value in _CONTROLS


def _of_listed_widgets(node: Node, values: list[Any]) -> dict[str, Any] | None:
    """Each value with the widget of its position, if there is one for each and all are of its type."""
    widgets = [(entry.name, entry.type) for entry in node.inputs if entry.of_widget]
    found: dict[str, Any] = {}
    place = 0
    for number, (name, kind) in enumerate(widgets):
        if place >= len(values):
            return None
        if kind in _FITS:
            if not _FITS[kind](values[place]):
                return None
            found[name] = values[place]
        place += 1
        more_than_widgets = len(values) - place > len(widgets) - number - 1
        if kind in _CONTROLLED and more_than_widgets and _is_control(values[place]):
            place += 1
    return found if place == len(values) else None
