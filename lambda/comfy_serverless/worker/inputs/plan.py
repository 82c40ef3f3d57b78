"""Plans a job's inputs: which files have to be brought, and where in the graph their names go. Does no IO."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidWorkflow, MissingAsset
from comfy_serverless.graph.file_inputs import (
    Steps,
    folder_for,
    is_address,
    name_in_input_folder,
    names_of_others,
    nested_files,
    takes_file,
)
from comfy_serverless.graph.lookup import NodeLookup, listing
from comfy_serverless.graph.node_errors import raise_node_errors
from comfy_serverless.graph.nodes import IMAGE_LOADERS, Takes, known
from comfy_serverless.graph.workflow import copy_graph, is_link
from comfy_serverless.worker.inputs.image_batches import put_batch, taken_outputs

#: The most different files one job may bring, and images in one batch.
MAX_INPUTS = 100
#: Where a file is that a job must not name, by whether it is one of ours.
#: Where a file comes from: a text of the request, or a file of this machine that its owner gives.
Origin = str | Path
Target = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that ComfyUI must get. Equal ones are brought once.

    Attributes:
        subfolder: where in ComfyUI's input folder it has to be.
        mask: the origin of the mask that is put into its alpha.
        is_stored: `origin` names a file in ComfyUI's input folder.
    """

    origin: Origin
    is_image: bool
    subfolder: str
    mask: Origin | None = None
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """An asset, the addresses that ask for it and for its mask, and the inputs that take its name.

    `steps` say where in the value of the input its name goes; () for the whole value.
    """

    asset: Asset
    address: str
    mask_address: str
    steps: Steps
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A copy of the graph with batches built in, and the assets for its inputs."""

    graph: dict[str, Any]
    wanted: tuple[Wanted, ...]


def plan_inputs(graph: Mapping[str, Any], inputs: Mapping[str, Origin | Sequence[Origin]]) -> Plan:
    """Plan which files to bring: the request's `inputs`, and the addresses that stand in file inputs of the graph.

    Addresses are those of `workflow.targets`; where two mean the same input the more specific one wins. `10.mask` is
    also understood if node 10 is a loader of images without an input `mask`: the mask is put into the alpha of the
    node's image. Several images make the node a batch of loaders.

    Raises:
        InvalidWorkflow: an address means nothing here, or takes no file; all are in `details["inputs"]`. Or a loader of
            ComfyUI's own was given nothing.
    """
    return _Planner(graph, inputs).plan()


def put_name(graph: Mapping[str, Any], wanted: Wanted, name: str) -> None:
    """Put the name of a file that ComfyUI has into the inputs that want it."""
    for node_id, input_name in wanted.targets:
        holder: Any = graph[node_id]["inputs"]
        last: str | int = input_name
        for step in wanted.steps:
            holder, last = holder[last], step
        holder[last] = name


def refuse_names_of_others(graph: Mapping[str, Any], inputs: Mapping[str, object]) -> None:
    """Raise MissingAsset if an input names a file that is not the job's to read; all are in `details["inputs"]`.

    Those are files that other jobs have made or brought: see `graph.file_inputs.names_of_others`.
    """
    replaced = {target for meaning in NodeLookup(graph).resolve_all(inputs)[0] for target in meaning.targets}
    problems = {
        f"{node_id}.{input_name}": problem
        for node_id, input_name, problem in names_of_others(graph)
        if (node_id, input_name) not in replaced
    }
    if problems:
        raise MissingAsset(
            f"Inputs cannot be used: {listing(problems, form='{} {}')}. Give the file itself: upload it, and give its "
            f'name; or give an address: "inputs": {{"{next(iter(problems))}": "s3://…"}} (of an output: its s3_uri).',
            details={"inputs": problems},
        )


def refuse_other_kinds(graph: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise MissingAsset if an input that takes an image names a file that was brought, and checked, as another kind.

    `names` are those of such files.
    """
    problems = {
        f"{node_id}.{input_name}": f"{value[:200]!r} was not brought as an image"
        for node_id, node in graph.items()
        for input_name, value in node["inputs"].items()
        if isinstance(value, str)
        and takes_file(node["class_type"], input_name) is Takes.IMAGE
        and name_in_input_folder(value) in names
    }
    if problems:
        raise MissingAsset(
            f"Inputs cannot be used: {listing(problems, form='{} {}')}. Give the file to this input itself.",
            details={"inputs": problems},
        )


class _Planner:
    def __init__(self, graph: Mapping[str, Any], inputs: Mapping[str, Origin | Sequence[Origin]]) -> None:
        self._graph = graph
        self._inputs = {
            address: given if isinstance(given, str | Path) or len(given) != 1 else given[0]
            for address, given in inputs.items()
        }
        self._problems: dict[str, str] = {}
        #: The address that decides about an input.
        self._chosen: dict[Target, str] = {}
        self._result = copy_graph(graph)
        self._wanted: dict[tuple[Asset, str, str, Steps], list[Target]] = {}

    def plan(self) -> Plan:
        meanings, self._problems = NodeLookup(with_mask_inputs(self._graph)).resolve_all(self._inputs)
        self._chosen = {target: meaning.address for meaning in meanings for target in meaning.targets}
        for target, address in self._chosen.items():
            if problem := self._take(target, address):
                self._problems[address] = problem
        if self._problems:
            raise InvalidWorkflow(
                f"`inputs` does not fit the workflow: {listing(self._problems)}.", details={"inputs": self._problems}
            )
        self._take_from_graph()
        self._check_empty()
        wanted = (Wanted(*what, tuple(targets)) for what, targets in self._wanted.items())
        return Plan(self._result, tuple(wanted))

    def _take(self, target: Target, address: str) -> str | None:
        """Plan one input that the request gives; return what is wrong with it."""
        node_id, input_name = target
        node, given = self._graph[node_id], self._inputs[address]
        if is_link(value := node["inputs"].get(input_name)):
            return f"is connected to node {value[0]!r}: name the input of a loader"
        if input_name not in node["inputs"]:
            return self._take_mask(node_id, address)
        if not isinstance(given, str | Path):
            return self._take_batch(node_id, input_name, address, given)
        if not self._is_masked(target):
            self._want(target, address, _asset(node, input_name, given))
        return None

    def _take_mask(self, node_id: str, address: str) -> str | None:
        node, mask = self._graph[node_id], self._inputs[address]
        if not isinstance(mask, str | Path):
            return "is a list: a mask belongs to one image"
        image_address = self._chosen.get((node_id, "image"))
        image = node["inputs"].get("image") if image_address is None else self._inputs[image_address]
        if not isinstance(image, str | Path):
            return f"has no single image that the mask could be put into: give the file as '{node_id}.image'"
        is_stored = image_address is None and isinstance(image, str) and not is_address(image)
        asset = Asset(image, is_image=True, subfolder=folder_for(node["class_type"]), mask=mask, is_stored=is_stored)
        self._want((node_id, "image"), image_address or f"{node_id}.image", asset, mask_address=address)
        return None

    def _take_batch(self, node_id: str, input_name: str, address: str, origins: Sequence[Origin]) -> str | None:
        node = self._graph[node_id]
        if node["class_type"] not in IMAGE_LOADERS:
            return f"takes one file: several can be given to the image of {' or '.join(sorted(IMAGE_LOADERS))} only"
        if not 0 < len(origins) <= MAX_INPUTS:
            return f"has {len(origins)} files: a batch is of 1 to {MAX_INPUTS}"
        if self._is_masked((node_id, input_name)):
            return "is a batch, which cannot be given a mask: give images that have theirs in their alpha one by one"
        if others := taken_outputs(self._graph, node_id) - {0}:
            return (
                f"cannot be a batch: output {min(others)} (the mask) of node {node_id!r} is used, and a batch has none"
            )
        for position, loader_id in enumerate(put_batch(self._result, node_id, len(origins))):
            asset = _asset(node, input_name, origins[position])
            self._want((loader_id, input_name), f"{address}[{position}]", asset)
        return None

    def _is_masked(self, target: Target) -> bool:
        node_id, input_name = target
        has_mask_input = "mask" in self._graph[node_id]["inputs"]
        return input_name == "image" and (node_id, "mask") in self._chosen and not has_mask_input

    def _take_from_graph(self) -> None:
        """The addresses that stand in file inputs of the graph itself."""
        for node_id, node in self._graph.items():
            for name, value in node["inputs"].items():
                target = (node_id, name)
                if target not in self._chosen and isinstance(value, Mapping | list):
                    self._take_nested(target, value)
                if not isinstance(value, str) or target in self._chosen or not is_address(value):
                    continue
                if takes_file(node["class_type"], name) and not self._is_masked(target):
                    self._want(target, f"{node_id}.{name}", _asset(node, name, value))

    def _check_empty(self) -> None:
        """Refuse loaders of ComfyUI's own that were given nothing: they would fail with a riddle."""
        empty: dict[object, tuple[str, object]] = {
            node_id: (f"has no file in its input {name!r}: give it one, by a name or with `inputs`", node)
            for node_id, node in self._graph.items()
            if not known(node["class_type"]).folder  # a 3D scene may be empty
            for name in known(node["class_type"]).files
            if (value := node["inputs"].get(name, "-")) is None or (isinstance(value, str) and not value.strip())
            if (node_id, name) not in self._chosen
        }
        raise_node_errors("The workflow loads nothing", empty, error_type="required_input_missing")

    def _take_nested(self, target: Target, value: object) -> None:
        """The files within the value of an input."""
        node_id, input_name = target
        for steps, uri in nested_files(value):
            inputs = self._result[node_id]["inputs"]
            inputs[input_name] = deepcopy(inputs[input_name])
            address = ".".join(map(str, (node_id, input_name, *steps)))
            self._want(target, address, _asset(self._graph[node_id], input_name, uri), steps=steps)

    def _want(self, target: Target, address: str, asset: Asset, *, mask_address: str = "", steps: Steps = ()) -> None:
        self._wanted.setdefault((asset, address, mask_address, steps), []).append(target)


def _asset(node: Mapping[str, Any], input_name: str, origin: Origin) -> Asset:
    is_image = takes_file(node["class_type"], input_name) is Takes.IMAGE
    return Asset(origin, is_image=is_image, subfolder=folder_for(node["class_type"]))


def with_mask_inputs(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph as `inputs` may address it: loaders of images have an input `mask`."""
    return {
        node_id: {**node, "inputs": {**node["inputs"], "mask": None}}
        if node["class_type"] in IMAGE_LOADERS and "mask" not in node["inputs"]
        else node
        for node_id, node in graph.items()
    }
