"""What a person would call an input of a graph, with the names that it may get. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from comfy_serverless.graph.inputs import Input, InputKind, Role, input_at
from comfy_serverless.graph.lookup import title_of
from comfy_serverless.graph.nodes import PREFIX, SEED_INPUTS, known, model_folder
from comfy_serverless.graph.undeclared import is_stand_in
from comfy_serverless.graph.workflow import is_link
from comfy_serverless.workflows.describing import media_of
from comfy_serverless.workflows.leads import Leads, Sign
from comfy_serverless.workflows.naming import name_of, words_of
from comfy_serverless.workflows.targets import Target
from comfy_serverless.workflows.titles import is_given, usual_title

if TYPE_CHECKING:
    from comfy_serverless.graph.convert.places import Places, Seen

#: The most inputs of a graph that are looked at, and the most that are found.
_MOST_LOOKED_AT: Final = 50_000
_MOST_FOUND: Final = 1_000


class Order(IntEnum):
    """The order in which inputs are proposed."""

    PROMPT = 0
    NEGATIVE = 1
    FILE = 2
    TEXT = 3
    SIZE = 4
    NUMBER = 5
    CHOICE = 6
    SEED = 7
    OTHER = 8
    MODEL = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that could be an input.

    Attributes:
        wishes: names for it, the best first; one at least.
        title: what its author has called it; "" if nothing.
    """

    targets: tuple[Target, ...]
    wishes: tuple[str, ...]
    role: Role = Role.NONE
    order: Order = Order.OTHER
    title: str = ""


#: What people call inputs that have other names in ComfyUI.
_CALLED: Final[Mapping[str, str]] = {
    "ckpt_name": "checkpoint",
    "control_net_name": "controlnet",
    "lora_name": "lora",
    "noise_seed": "seed",
    "unet_name": "model",
    "upscale_model_name": "upscale_model",
    "strength_model": "strength",
    "string": "text",
}
#: Names of inputs that say nothing of what they are for: the title of their node does.
_SAYS_NOTHING: Final = frozenset({
    "any", "audio", "bool", "boolean", "ckpt_name", "file", "float", "image", "index", "input", "int", "lora_name",
    "mask", "name", "noise_seed", "number", "path", "prompt", "seed", "select", "string", "text", "value", "video",
})  # fmt: skip
#: Those of them that people have a word for, which is their name on a node with more to offer: the title is the node's.
_HAVE_A_WORD: Final = frozenset({"ckpt_name", "lora_name", "noise_seed", "prompt", "seed"})
#: Numbers and choices that people know.
_NUMBERS: Final = frozenset({
    "cfg", "denoise", "duration", "guidance", "guidance_scale", "lora_strength", "megapixels", "scale_by", "seconds",
    "steps", "strength", "strength_model", "upscale_by",
})  # fmt: skip
_CHOICES: Final = frozenset({
    "aspect_ratio", "model", "quality", "ratio", "resolution", "size", "style", "style_preset",
})  # fmt: skip
#: Texts that people write, in whatever node.
_TEXTS: Final = frozenset({"prompt", "text", "negative_prompt", "positive_prompt", "lyrics", "tags", "caption"})
#: Those of them that are no prompt, though they lead to one.
_OWN_TEXTS: Final = frozenset({"lyrics", "tags", "caption"})
#: Folders of the models that people choose; the others belong to one of these.
_MODELS: Final = frozenset({"checkpoints", "controlnet", "diffusion_models", "loras", "style_models", "upscale_models"})
_PLAIN_TYPES: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "NUMBER"})
_SCALARS = str | int | float


class _Shown(NamedTuple):
    """Inputs that may be set together, as `Candidates.candidate` takes them; and whether a subgraph hides them."""

    targets: tuple[Target, ...]
    label: str = ""
    title: str = ""
    is_alone: bool = False
    is_hidden: bool = False


class Candidates:
    """The candidates of one graph."""

    def __init__(
        self, graph: Mapping[str, Any], object_info: Mapping[str, Any] | None, leads: Leads, places: Places | None
    ) -> None:
        self._graph = graph
        self._info = object_info
        self._leads = leads
        self._places = places
        self._alone: dict[str, bool] = {}
        self._counted: Counter[str] | None = None

    def all(self) -> list[Candidate]:
        """All candidates, in the order of the graph; each input is in one of them at most."""
        found: list[Candidate] = []
        hidden: list[Candidate] = []
        taken: set[Target] = set()
        for seen in self._each():
            if len(found) + len(hidden) >= _MOST_FOUND:
                break
            free = tuple(target for target in seen.targets if target not in taken)
            if free:
                taken.update(free)
                (hidden if seen.is_hidden else found).append(
                    self.candidate(free, label=seen.label, title=seen.title, is_alone=seen.is_alone)
                )
        shown = {one.order for one in found}
        found += [one for one in hidden if one.order not in shown]
        return sorted(found, key=lambda one: one.order)

    def candidate(
        self, targets: Sequence[Target], *, label: str = "", title: str = "", is_alone: bool = False
    ) -> Candidate:
        """What a value that goes to these inputs is called.

        Args:
            label: what the author called the widget.
            title: what the author called the node that shows it; else that of the first target counts.
            is_alone: whether that node shows nothing else, so that its title can only mean this.
        """
        node_id, name = targets[0]
        node = self._graph[node_id]
        one = input_at(self._graph, node_id, name, self._info)
        if not title and is_given(node, self._info):
            title = title_of(node)
        word = self._word(one)
        titled = self._titled(title, node, word)
        if name in _HAVE_A_WORD and not (is_alone or self._is_alone(node_id)):
            titled = _with(titled, word)
            is_of_title = bool(titled) and self._are_several(name)
        else:
            is_of_title = bool(titled) and (name in _SAYS_NOTHING or self._is_alone(node_id))
        wishes = [name_of(label) if label else "", titled if is_of_title else "", word, _with(titled, word)]
        shown = label or (title if is_of_title else "")
        role = self._role(one)
        return Candidate(
            tuple(targets), tuple(wish for wish in wishes if wish), role, self._order(replace(one, role=role)), shown
        )

    def _titled(self, title: str, node: Mapping[str, Any], word: str) -> str:
        """The name that a title gives; "" if it says no more than what ComfyUI calls such a node.

        What is added to the usual title says which of several it is: `KSampler - BASE` is about `base_seed`.
        """
        usual = {*words_of(usual_title(node, self._info)), *words_of(str(node.get("class_type")))}
        words = words_of(title)
        rest = [each for each in words if each not in usual]
        own = name_of(" ".join(rest)) if rest else ""
        is_added = len(rest) < len(words)
        if not own or set(rest) <= _USUAL:
            return f"{word}_{rest[0]}" if is_added and len(rest) == 1 and rest[0].isdigit() else ""
        return _with(own, word) if is_added else own

    def constant_behind(self, link: Sequence[Any]) -> Iterator[Target]:
        """The input of the node that a link comes from, if that node does nothing but hold a value or load a file."""
        node = self._graph.get(link[0])
        if node is None:
            return
        if name := self._constant(link[0], node):
            yield link[0], name
            return
        for name in self._settable(node):
            if input_at(self._graph, link[0], name, self._info).kind is InputKind.FILE:
                yield link[0], name
                return

    def _each(self) -> Iterator[_Shown]:
        if self._places is not None:
            for seen in self._places.primitives():
                if targets := self._there(seen):
                    yield _Shown(targets, seen.label, seen.title, seen.is_alone)
            for seen in self._places.promoted():
                if (targets := self._there(seen)) and (seen.label or self._is_known(*targets[0])):
                    yield _Shown(targets, seen.label, seen.title, seen.is_alone)
        yield from self._of_nodes()

    def _there(self, seen: Seen) -> tuple[Target, ...]:
        return tuple(
            (node_id, name)
            for node_id, name in seen.targets
            if node_id in self._leads.active and isinstance(self._graph[node_id]["inputs"].get(name), _SCALARS)
        )

    def _of_nodes(self) -> Iterator[_Shown]:
        left = _MOST_LOOKED_AT
        for node_id in self._leads.active:
            node, is_inside = self._graph[node_id], self._is_inside(node_id)
            if constant := self._constant(node_id, node):
                if not is_inside or self._leads.sign(node_id, constant) is not None:
                    yield _Shown(((node_id, constant),), is_hidden=is_inside)
                continue
            texts: dict[tuple[object, object], list[Target]] = {}
            for name in self._settable(node):
                left -= 1
                if left < 0:
                    return
                if not self._is_wanted(node_id, node, name):
                    continue
                value, sign = node["inputs"][name], self._leads.sign(node_id, name)
                # The two texts of SDXL and of Flux are one, as long as they say the same.
                key = (sign, value) if sign is not None and isinstance(value, str) else (name, name)
                texts.setdefault(key, []).append((node_id, name))
            for targets in texts.values():
                yield _Shown(tuple(targets), is_hidden=is_inside)

    def _settable(self, node: Mapping[str, Any]) -> list[str]:
        return [name for name, value in node["inputs"].items() if isinstance(value, _SCALARS) and name != PREFIX]

    def _is_alone(self, node_id: str) -> bool:
        """Whether a node has one input with a value, and no more."""
        found = self._alone.get(node_id)
        if found is None:
            found = self._alone[node_id] = len(self._settable(self._graph[node_id])) == 1
        return found

    def _are_several(self, name: str) -> bool:
        """Whether several nodes have an input that people call as this one: their titles say which is which."""
        if self._counted is None:
            nodes = (self._graph[node_id] for node_id in self._leads.active)
            self._counted = Counter(_CALLED.get(each, each) for node in nodes for each in self._settable(node))
        return self._counted[_CALLED.get(name, name)] > 1

    def _is_wanted(self, node_id: str, node: Mapping[str, Any], name: str) -> bool:
        if self._is_inside(node_id):  # the subgraph shows what is to be set; but what every run needs anew
            one = input_at(self._graph, node_id, name, self._info)
            return (one.kind is InputKind.FILE and bool(one.value)) or one.role is Role.SEED or self._is_prompt(one)
        if self._is_known(node_id, name):
            return True
        is_only = name in _SAYS_NOTHING or self._is_alone(node_id)
        return is_only and is_given(node, self._info) and not self._is_inner_model(node, name)

    def _is_inside(self, node_id: str) -> bool:
        return self._places is not None and self._places.is_inside(node_id)

    def _is_inner_model(self, node: Mapping[str, Any], name: str) -> bool:
        folder = model_folder(str(node.get("class_type")), name)
        return bool(folder) and folder not in _MODELS

    def _is_known(self, node_id: str, name: str) -> bool:
        """Whether people know an input by itself, whatever its node is called."""
        node = self._graph[node_id]
        one = input_at(self._graph, node_id, name, self._info)
        if one.kind is InputKind.FILE:
            return bool(one.value)
        if one.role is Role.SEED:
            return True
        if one.role is Role.MODEL:
            return not self._is_inner_model(node, name)
        if one.kind is InputKind.TEXT:
            return self._is_prompt(one)
        if one.role is Role.SIZE:
            made = self._leads.makes(node_id)
            return not made or set(made) != {"CONDITIONING"}
        last = name.rpartition(".")[2]
        if one.kind is InputKind.CHOICE:
            return last in _CHOICES
        return one.kind in (InputKind.INTEGER, InputKind.NUMBER) and last in _NUMBERS

    def _is_prompt(self, one: Input) -> bool:
        if one.kind is not InputKind.TEXT or known(one.class_type).gives_text:
            return False
        is_called_so = one.name in _TEXTS or "prompt" in one.name.lower()
        # Of a class that nobody has declared the name is all that there is to go by.
        is_long = one.role is Role.PROMPT or is_stand_in((self._info or {}).get(one.class_type))
        if self._leads.sign(one.node_id, one.name) is not None:
            return is_long or is_called_so
        return is_long and is_called_so

    def _constant(self, node_id: str, node: Mapping[str, Any]) -> str:
        """The input of a node that does nothing but hold a plain value; "" if it does more."""
        inputs = node["inputs"]
        if constant := known(node.get("class_type")).constant:
            return constant if isinstance(inputs.get(constant), str) else ""
        made = self._leads.makes(node_id)
        if not made or not _PLAIN_TYPES.issuperset(made) or any(is_link(value) for value in inputs.values()):
            return ""
        settable = self._settable(node)
        return settable[0] if len(settable) == 1 else ""

    def _role(self, one: Input) -> Role:
        """What it is set for. A constant that seeds alone get their value from is a seed."""
        consumers = self._leads.consumers(one.node_id)
        is_seed = one.kind is InputKind.INTEGER and bool(self._constant(one.node_id, self._graph[one.node_id]))
        if is_seed and consumers and all(name in SEED_INPUTS for _, name in consumers):
            return Role.SEED
        return one.role

    def _word(self, one: Input) -> str:
        """What an input is called by itself."""
        if one.kind is InputKind.TEXT and one.name not in _OWN_TEXTS:
            sign = self._leads.sign(one.node_id, one.name)
            if sign is not None or (one.name in _SAYS_NOTHING and one.role is Role.PROMPT):
                return "negative_prompt" if sign is Sign.NEGATIVE else "prompt"
        if one.kind is InputKind.FILE:
            return "mask" if one.name == "mask" or "Mask" in one.class_type else _FILES.get(media_of(one), "file")
        if one.name == "value" and (consumers := self._leads.consumers(one.node_id)):
            node_id, name = min(consumers, key=lambda each: each[1] in _SAYS_NOTHING)
            return self._word_of(name, str(self._graph[node_id].get("class_type"))) or "value"
        return self._word_of(one.name, one.class_type) or "value"

    def _word_of(self, name: str, class_type: str) -> str:
        last = name.rpartition(".")[2]
        if "lora" in class_type.lower() and last.startswith("strength"):
            return "lora_strength" if last != "strength_clip" else "lora_strength_clip"
        if name == "model_name" and model_folder(class_type, name) == "upscale_models":
            return "upscale_model"
        return name_of(_CALLED.get(last, last), noise=frozenset())

    def _order(self, one: Input) -> Order:
        sign = self._leads.sign(one.node_id, one.name)
        if one.kind is InputKind.TEXT:
            if "system" in one.name.lower():
                return Order.OTHER
            if sign is not None:
                return Order.NEGATIVE if sign is Sign.NEGATIVE else Order.PROMPT
            return Order.PROMPT if one.role is Role.PROMPT else Order.TEXT
        if one.kind is InputKind.FILE:
            return Order.FILE
        by_role = {Role.SEED: Order.SEED, Role.MODEL: Order.MODEL, Role.SIZE: Order.SIZE}
        if one.role in by_role:
            return by_role[one.role]
        if one.kind is InputKind.CHOICE:
            return Order.CHOICE
        return Order.NUMBER if one.kind in (InputKind.INTEGER, InputKind.NUMBER) else Order.OTHER


_FILES: Final[Mapping[str, str]] = {"image": "image", "video": "video", "audio": "audio", "model3d": "model"}


#: Words of titles that say what the class and the input say already.
_USUAL: Final = frozenset({
    "audio", "checkpoint", "clip", "conditioning", "diffusion", "encode", "image", "lora", "model", "multiline",
    "negative", "positive", "prompt", "seed", "string", "text", "value", "video",
})  # fmt: skip


def _with(own: str, word: str) -> str:
    """A name of two parts, without saying a word twice."""
    if not own or word in own.split("_") or own.endswith(word):
        return own
    return f"{own}_{word}"[:64]
