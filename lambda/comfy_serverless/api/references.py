"""Assets in a workflow: `core/ASSET` references and names of uploaded files become addresses the worker can fetch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.errors import InvalidRequest, MissingAsset, NotFound
from comfy_serverless.graph.file_inputs import ASSET_TYPE, is_address, name_in_input_folder, takes_file
from comfy_serverless.graph.nodes import IMAGE_LOADERS
from comfy_serverless.graph.workflow import copy_graph
from comfy_serverless.jobs.reserved import addresses_in, everything_in, is_devious
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.assets import AssetStore

#: Different assets of one workflow; the worker takes fewer input files.
MAX_ASSETS = 200


@dataclass(slots=True)
class ResolvedGraph:
    """A graph without references. `inputs` are those not known to take files, as in a request's `inputs`."""

    graph: dict[str, Any]
    inputs: dict[str, str | list[str]] = field(default_factory=dict)


def resolve_assets(graph: Mapping[str, Any], *, owner: str, assets: AssetStore) -> ResolvedGraph:
    """Put addresses in the place of references, and of the names of files the owner has uploaded.

    A name that is no asset stays: the file may lie in ComfyUI's own input folder. A reference that is malformed, or
    names no asset of this owner, raises MissingAsset.
    """
    resolved = ResolvedGraph(copy_graph(graph))
    found = _Found(owner, assets)
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            where = _Place(node_id, node["class_type"], input_name)
            if is_reference(value):
                _put(resolved, where, str(found.asset(value, where).address))
            elif isinstance(value, list) and value and all(map(is_reference, value)):
                _put_batch(resolved, where, [str(found.asset(item, where).address) for item in value])
            elif any(map(is_reference, everything_in(value))):
                resolved.graph[node_id]["inputs"][input_name] = _with_addresses(value, found, where)
    _resolve_names(resolved, owner, assets)
    return resolved


def refuse_foreign_addresses(document: object, *, buckets: set[str], allowed_prefix: str) -> None:
    """Refuse, with MissingAsset, addresses in our own buckets, except those of the caller's own results.

    Args:
        buckets: those that hold the files of all owners.
        allowed_prefix: `s3://bucket/folder/` of the caller's own results.
    """
    for address, _, key in addresses_in(document, buckets):
        if not address.startswith(allowed_prefix) or is_devious(key):
            raise MissingAsset(
                f"{address[:200]} cannot be used by its address: give the asset's id, as a {ASSET_TYPE} reference, or "
                "the name of the file that was uploaded.",
                details={"address": address[:200]},
            )


def is_reference(value: object) -> bool:
    """Whether a value in a graph is meant as a reference to an asset."""
    return isinstance(value, Mapping) and value.get("__type") == ASSET_TYPE


@dataclass(frozen=True, slots=True)
class _Place:
    """An input of a node."""

    node_id: str
    class_type: str
    input_name: str

    def refusal(self, problem: str, *, asset_id: str | None = None) -> MissingAsset:
        details = {"node_id": self.node_id, "input": self.input_name}
        if asset_id is not None:
            details["asset_id"] = asset_id[:100]
        return MissingAsset(
            f"node {self.node_id} ({self.class_type}), input {self.input_name!r}: {problem}", details=details
        )


@dataclass(slots=True)
class _Found:
    """Assets looked up once each."""

    owner: str
    assets: AssetStore
    _by_id: dict[str, Asset] = field(default_factory=dict)

    def asset(self, reference: Mapping[str, Any], where: _Place) -> Asset:
        info = reference.get("info")
        given = info.get("id") if isinstance(info, Mapping) else None
        if not isinstance(given, str) or not given:
            raise where.refusal(f'the reference must be {{"__type": "{ASSET_TYPE}", "info": {{"id": "<asset id>"}}}}.')
        asset_id = given.lower()
        if asset_id not in self._by_id:
            if len(self._by_id) >= MAX_ASSETS:
                raise where.refusal(f"a workflow may use at most {MAX_ASSETS} assets.")
            try:
                self._by_id[asset_id] = self.assets.get(self.owner, asset_id)
            except NotFound:
                raise where.refusal(
                    f"there is no asset {given[:100]!r} of yours: upload the file first.", asset_id=given
                ) from None
        return self._by_id[asset_id]


def _put(resolved: ResolvedGraph, where: _Place, address: str) -> None:
    inputs = resolved.graph[where.node_id]["inputs"]
    if takes_file(where.class_type, where.input_name):
        inputs[where.input_name] = address
        return
    resolved.inputs[f"{where.node_id}.{where.input_name}"] = address
    if where.class_type in IMAGE_LOADERS and where.input_name == "mask":
        del inputs["mask"]  # loaders have none: ours puts the mask into the image
    else:
        inputs[where.input_name] = ""


def _put_batch(resolved: ResolvedGraph, where: _Place, addresses: list[str]) -> None:
    if len(addresses) == 1:
        _put(resolved, where, addresses[0])
    elif where.class_type in IMAGE_LOADERS and where.input_name == "image":
        resolved.graph[where.node_id]["inputs"]["image"] = ""
        resolved.inputs[f"{where.node_id}.image"] = addresses
    else:
        raise where.refusal(
            f"takes one file: several can be given to the image of {' or '.join(sorted(IMAGE_LOADERS))}."
        )


def _with_addresses(value: object, found: _Found, where: _Place) -> Any:  # noqa: ANN401
    """A value whose references hold the addresses of their files: the worker replaces them by the files' names."""
    try:
        copied = deepcopy(value)
    except RecursionError:
        raise where.refusal("the value is nested too deep.") from None
    for part in list(everything_in(copied)):
        if isinstance(part, dict) and is_reference(part):
            part["info"] = {"uri": str(found.asset(part, where).address)}
    return copied


def _resolve_names(resolved: ResolvedGraph, owner: str, assets: AssetStore) -> None:
    named = [
        (node["inputs"], input_name, name_in_input_folder(value))
        for node in resolved.graph.values()
        for input_name, value in node["inputs"].items()
        if isinstance(value, str) and value and takes_file(node["class_type"], input_name) and not is_address(value)
    ]
    names = {name for _, _, name in named}
    if len(names) > MAX_ASSETS:
        raise InvalidRequest(f"the workflow names {len(names):,} different files; at most {MAX_ASSETS} are looked up.")
    found = assets.by_paths(owner, names)
    for inputs, input_name, name in named:
        if name in found:
            inputs[input_name] = str(found[name].address)
