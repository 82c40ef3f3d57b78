"""Where the nodes of a graph lead to: to outputs or nowhere, to the positive or to the negative prompt. No IO.

Each node and each link is looked at a few times at most, whatever the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from comfy_serverless.graph.undeclared import is_stand_in
from comfy_serverless.graph.workflow import is_link

#: The beginnings of classes that are outputs, where ComfyUI does not tell.
_OUTPUTS: Final = ("Save", "Preview", "CPackOutput", "ComfyDeployOutput", "ComfyDeployWebscoketImageOutput")
#: What leads a prompt no further: what is behind these inputs, or of these types, is no text of it.
_OTHER_INPUTS: Final = frozenset({
    "audio", "clip", "clip_vision", "clip_vision_output", "control_net", "end_image", "image", "images", "latent",
    "latent_image", "mask", "model", "noise", "pixels", "samples", "start_image", "style_model", "vae", "video",
})  # fmt: skip
_PROMPT_TYPES: Final = frozenset({"CONDITIONING", "STRING", "*", "COMBO", "GUIDER"})


class Sign(StrEnum):
    """Which of a sampler's two prompts a text is part of."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


class Leads:
    """What is known of one graph.

    Attributes:
        outputs: the ids of its output nodes.
        active: the ids of all nodes that one of those needs, each after those that it needs itself.
    """

    def __init__(self, graph: Mapping[str, Any], object_info: Mapping[str, Any] | None) -> None:
        self._graph = graph
        self._info = object_info or {}
        self._made: dict[str, list[str]] = {}
        self._consumers: dict[str, list[tuple[str, str]]] = {}
        for node_id, node in graph.items():
            for name, source, _ in _links(node):
                self._consumers.setdefault(source, []).append((node_id, name))
        self.outputs = tuple(node_id for node_id in graph if self._is_output(node_id))
        if not self.outputs:
            self.outputs = tuple(node_id for node_id in graph if node_id not in self._consumers)
        self.active = self._needed(self.outputs)
        self._signs: dict[str, set[Sign]] = {}
        self._follow_prompts()

    def consumers(self, node_id: str) -> list[tuple[str, str]]:
        """The nodes and inputs that take a result of a node."""
        return self._consumers.get(node_id, [])

    def sign(self, node_id: str, name: str) -> Sign | None:
        """Which prompt a text of a node is part of; None if it is part of none. What is part of both is positive."""
        words = name.lower()
        for sign in (Sign.NEGATIVE, Sign.POSITIVE):
            if sign in words:
                return sign
        found = self._signs.get(node_id, set())
        return next((sign for sign in (Sign.POSITIVE, Sign.NEGATIVE) if sign in found), None)

    def makes(self, node_id: str) -> list[str]:
        """The types of a node's results, as far as they are declared."""
        class_type = str(self._graph[node_id].get("class_type"))
        if class_type not in self._made:
            declared = self._info.get(class_type)
            outputs = declared.get("output") if isinstance(declared, Mapping) else None
            kinds = outputs if isinstance(outputs, list) else []
            self._made[class_type] = [kind if isinstance(kind, str) else "*" for kind in kinds]
        return self._made[class_type]

    def _is_output(self, node_id: str) -> bool:
        class_type = str(self._graph[node_id].get("class_type"))
        declared = self._info.get(class_type)
        if is_stand_in(declared):  # nobody can tell: what is behind a node that nothing follows is not left out
            return node_id not in self._consumers
        if isinstance(declared, Mapping):
            return declared.get("output_node") is True
        return class_type.startswith(_OUTPUTS) and not class_type.endswith("Switch")

    def _needed(self, outputs: tuple[str, ...]) -> dict[str, None]:
        done: dict[str, None] = {}
        seen: set[str] = set()
        pending = [(node_id, False) for node_id in reversed(outputs)]
        while pending:
            node_id, is_ready = pending.pop()
            if is_ready:
                done[node_id] = None
                continue
            if node_id in seen:
                continue
            seen.add(node_id)
            pending.append((node_id, True))
            sources = [source for _, source, _ in _links(self._graph[node_id])]
            pending += [(source, False) for source in reversed(sources) if source in self._graph and source not in seen]
        return done

    def _follow_prompts(self) -> None:
        pending: list[tuple[str, int, Sign]] = []
        for node_id in self.active:
            is_guider = "Guider" in str(self._graph[node_id].get("class_type"))
            for name, source, slot in _links(self._graph[node_id]):
                pending += [(source, slot, sign) for sign in Sign if name.lower().startswith(sign)]
                if is_guider and name == "conditioning":
                    pending.append((source, slot, Sign.POSITIVE))
        seen: set[tuple[str, int, Sign]] = set()
        while pending:
            source, slot, sign = pending.pop()
            node = self._graph.get(source)
            if node is None:
                continue
            ways = [*_links(node)]
            is_pair = {Sign.POSITIVE, Sign.NEGATIVE} <= {name for name, _, _ in ways}
            key = (source, slot if is_pair else -1, sign)
            if key in seen:
                continue
            seen.add(key)
            if is_pair:
                through = self._output_name(source, slot)
                pending += [(origin, number, sign) for name, origin, number in ways if name == through]
                continue
            self._signs.setdefault(source, set()).add(sign)
            pending += [
                (origin, number, sign) for name, origin, number in ways if self._is_of_prompt(name, origin, number)
            ]

    def _output_name(self, node_id: str, slot: int) -> str:
        """The prompt that an output of a node with two of them is."""
        declared = self._info.get(str(self._graph[node_id].get("class_type")))
        names = declared.get("output_name") if isinstance(declared, Mapping) else None
        if isinstance(names, list) and 0 <= slot < len(names) and str(names[slot]).lower() in set(Sign):
            return str(names[slot]).lower()
        return [*Sign][slot] if 0 <= slot < len(Sign) else ""

    def _is_of_prompt(self, name: str, origin: str, slot: int) -> bool:
        made = self.makes(origin) if origin in self._graph else []
        if 0 <= slot < len(made):
            return made[slot] in _PROMPT_TYPES
        return name.lower() not in _OTHER_INPUTS


def _links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """The connected inputs of a node: name, id of the source, number of its output."""
    for name, value in node["inputs"].items():
        if is_link(value):
            yield name, value[0], int(value[1]) if abs(value[1]) < 2**31 else -1
