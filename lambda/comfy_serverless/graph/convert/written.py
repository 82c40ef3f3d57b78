"""Writes the values of a node's own widgets as the prompt has them. No IO."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from comfy_serverless.graph.convert import browser, names
from comfy_serverless.graph.convert.declared import NodeClass
from comfy_serverless.graph.convert.findings import listed, named, shown
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.lost import warn_of_lost
from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.convert.numbers import as_javascript
from comfy_serverless.graph.convert.scene import Scene, Scope
from comfy_serverless.graph.convert.texts import Dice, choose
from comfy_serverless.graph.convert.values import Filled, Widget
from comfy_serverless.graph.convert.widgets import NOTHING
from comfy_serverless.graph.nodes import NAMES_OF_EDITOR, PREFIX

#: The most characters of all values of a prompt.
MOST_CHARACTERS = 64_000_000


class Writer:
    """Writes values, in one conversion."""

    def __init__(
        self, scene: Scene, hosts: Hosts, supplied: Mapping[str, Any], seed: str | None, now: datetime | None
    ) -> None:
        self._scene = scene
        self._hosts = hosts
        self._supplied = supplied
        self._seed = seed
        self._now = now
        self._called: dict[str, Node] | None = None
        self._left = MOST_CHARACTERS
        self._sizes: dict[int, int] = {}
        self.rolled: dict[str, str] = {}  # the texts with alternatives, by address, as they were written

    def own_values(
        self, scope: Scope, node: Node, node_class: NodeClass, filled: Filled, linked: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The values of a node's widgets, except of those that are linked."""
        inputs: dict[str, Any] = {}
        for name, widget in filled.widgets.items():
            if name in linked or not widget.place.is_sent:
                continue
            value = self._value(scope, node, node_class, widget)
            if value is not NOTHING:
                entry = widget.place.of
                inputs[name] = self.wrapped(value, is_curve=entry is not None and entry.kind == "CURVE")
        self._warn_of_guesses(scope, node, filled, inputs)
        return inputs

    def wrapped(self, value: Any, *, is_curve: bool = False) -> Any:  # noqa: ANN401
        """A value as the prompt has it, a copy: a list is wrapped, so that the server takes it for no link.

        Raises UiFormatWorkflow if all values together get too long: one of a subgraph is there once for each host.
        """
        self._spend(value)
        if isinstance(value, dict):
            return copy.deepcopy(value)
        if not isinstance(value, list):
            return value
        return {**({"__type__": "CURVE"} if is_curve else {}), "__value__": copy.deepcopy(value)}

    def spend(self, node_id: str) -> None:
        """Count the characters of an id in the prompt: deep in subgraphs it is long. Raises as `wrapped`."""
        self._spend(node_id)

    def _spend(self, value: object) -> None:
        """Count the characters of a value."""
        if isinstance(value, dict | list):
            if id(value) not in self._sizes:
                self._sizes[id(value)] = len(json.dumps(value))
            self._left -= self._sizes[id(value)]
        elif isinstance(value, str):
            self._left -= len(value)
        if self._left < 0:
            self._scene.findings.refuse("too_large", f"its values have more than {MOST_CHARACTERS:,} characters")
            self._scene.findings.raise_if_refused()

    def with_values(self, text: str) -> str:
        """A text with `%date:…%` and `%Node.widget%` replaced."""
        return names.replaced(text, now=self._time, value_of=self._value_of)

    def _value(self, scope: Scope, node: Node, node_class: NodeClass, widget: Widget) -> Any:  # noqa: ANN401
        entry, value = widget.place.of, widget.value
        if entry is None:
            return value
        if maker := browser.maker(node.type, entry):
            return self._made_in_browser(scope, node, entry.name, maker)
        if entry.kind == "LOAD_3D":
            its = named(scope.path(node), node.type, node.title)
            self._scene.findings.warn(
                f"{its}: what the viewer {entry.name!r} shows is not in the file: its first view is taken"
            )
            return browser.first_view(self._scene.filled(node))
        if isinstance(value, str):
            self._spend(value)
            if entry.kind == "STRING" and entry.options.get("dynamicPrompts") is True and entry in node_class.inputs:
                return self._chosen(scope, node, entry.name, value)
            if entry.name == PREFIX and node.type in NAMES_OF_EDITOR:
                return self.with_values(value)
        return value

    def _chosen(self, scope: Scope, node: Node, name: str, text: str) -> str:
        path = scope.path(node)
        chosen = choose(text, Dice(self._seed, f"{path}.{name}"))
        its = f"{named(path, node.type, node.title)}: of the text {name!r}"
        if chosen.rolled:
            self.rolled[f"{path}.{name}"] = text
            how = "the first alternatives are taken" if self._seed is None else "alternatives are rolled"
            self._scene.findings.warn(f"{its} {how}: {shown(chosen.text)!r}")
        if chosen.lost_comments:
            self._scene.findings.warn(f"{its} the comments are left out (also what stands after // in an address)")
        return chosen.text

    def _made_in_browser(self, scope: Scope, node: Node, name: str, maker: str) -> Any:  # noqa: ANN401
        path = scope.path(node)
        for called in (path, node.title, node.type):
            if f"{called}.{name}" in self._supplied:
                return self._supplied[f"{called}.{name}"]
        self._scene.findings.refuse(
            "needs_browser",
            f"{named(path, node.type, node.title)}: its input {name!r} comes from {maker} in the browser; "
            f"give a value for `{path}.{name}`",
            node_id=path,
            class_type=node.type,
            input=name,
        )
        return NOTHING

    def _warn_of_guesses(self, scope: Scope, node: Node, filled: Filled, inputs: Mapping[str, Any]) -> None:
        its = named(scope.path(node), node.type, node.title)
        guessed = [name for name in inputs if not filled.widgets[name].is_given]
        if guessed:
            self._scene.findings.warn(f"{its}: the file has no value, so the default is taken: {listed(guessed)}")
        if filled.is_shifted:
            self._scene.findings.warn(
                f"{its}: the file was saved with another version of this class, and names its values otherwise: "
                "they are taken in their order, as the editor does, and may be at the wrong inputs (set them there, "
                "and save it again)"
            )
        warn_of_lost(self._scene.findings, its, filled)

    def _time(self) -> datetime:
        if self._now is None:
            self._now = datetime.now().astimezone()
        return self._now

    def _value_of(self, called: str, name: str) -> str | None:
        """The value of a widget of the node that is called so: by the name for search and replace, else by title."""
        node = self._by_name().get(called)
        value = NOTHING if node is None else self._hosts.held_by_name(node, name)
        if value is NOTHING:
            return None
        self._spend(value)
        return as_javascript(value)

    def _by_name(self) -> Mapping[str, Node]:
        """All nodes by what they are called for search and replace, and by title; of several the first one."""
        if self._called is None:
            self._called = {}
            nodes = [*self._scene.nodes_as_seen()]
            for node in nodes:
                # A new node of any class but a saver is called after its class.
                called = node.properties.get("Node name for S&R", None if node.type in NAMES_OF_EDITOR else node.type)
                if isinstance(called, str):
                    self._called.setdefault(called, node)
            for node in nodes:
                self._called.setdefault(self._title(node), node)
        return self._called

    def _title(self, node: Node) -> str:
        node_class = self._scene.classes.get(node.type)
        return node.title or (node.type if node_class is None else node_class.title)
