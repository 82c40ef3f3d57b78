"""Assets in a workflow: `core/ASSET` references and names of uploaded files become addresses the worker can fetch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.errors import MissingAsset, NotFound
from comfy_serverless.jobs.inputs.file_inputs import is_address, name_in_input_folder, takes_image
from comfy_serverless.jobs.store.assets import Asset, AssetStore
from comfy_serverless.workflow import copy_graph

TYPE = "core/ASSET"


@dataclass(slots=True)
class ResolvedGraph:
    """A graph without references.

    Attributes:
        inputs: what is to be fetched for inputs that are not known to take files, as in a request's `inputs`.
    """

    graph: dict[str, Any]
    inputs: dict[str, str | list[str]] = field(default_factory=dict)


def resolve_assets(graph: Mapping[str, Any], *, owner: str, assets: AssetStore) -> ResolvedGraph:
    """Put addresses in the place of references, and of the names of files the owner has uploaded.

    A name that is no asset is left alone: the file may lie in ComfyUI's own input folder.

    Raises:
        MissingAsset: a reference is malformed, or names nothing of this owner.
    """
    resolved = ResolvedGraph(copy_graph(graph))
    found = _Found(owner, assets)
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            where = f"node {node_id} ({node['class_type']}), input {input_name!r}"
            if is_reference(value):
                _place(resolved, node_id, input_name, str(found.asset(value, where).address))
            elif isinstance(value, list) and value and all(map(is_reference, value)):
                addresses = [str(found.asset(item, where).address) for item in value]
                resolved.graph[node_id]["inputs"][input_name] = ""
                resolved.inputs[f"{node_id}.{input_name}"] = addresses
            elif any(map(is_reference, _everything_in(value))):
                raise MissingAsset(
                    f"{where}: a {TYPE} reference must be the whole value of an input, or one of a list of them.",
                    details={"node_id": node_id, "input": input_name},
                )
    _resolve_names(resolved, owner, assets)
    return resolved


def refuse_foreign_addresses(document: object, *, buckets: set[str], allowed_prefix: str) -> None:
    """Nobody reads what lies in our own buckets by its address, but his own results.

    Args:
        buckets: that hold the files of all owners.
        allowed_prefix: `s3://bucket/folder/` of the caller's own.

    Raises:
        MissingAsset: an address leads there.
    """
    for value in _everything_in(document):
        if not isinstance(value, str) or value[:5].lower() != "s3://":
            continue
        bucket = value[5:].partition("/")[0]
        if bucket in buckets and (not value.startswith(allowed_prefix) or "/../" in value):
            raise MissingAsset(
                f"{value[:200]} cannot be used by its address: give the asset's id, as a {TYPE} reference, or the name "
                "of the file that was uploaded."
            )


def is_reference(value: object) -> bool:
    """Whether a value in a graph is meant as a reference to an asset."""
    return isinstance(value, Mapping) and value.get("__type") == TYPE


@dataclass(slots=True)
class _Found:
    """Assets looked up once each."""

    owner: str
    assets: AssetStore
    _by_id: dict[str, Asset] = field(default_factory=dict)

    def asset(self, reference: Mapping[str, Any], where: str) -> Asset:
        info = reference.get("info")
        asset_id = info.get("id") if isinstance(info, Mapping) else None
        if not isinstance(asset_id, str) or not asset_id:
            raise MissingAsset(
                f'{where}: the reference must be {{"__type": "{TYPE}", "info": {{"id": "<asset id>"}}}}.'
            )
        if asset_id not in self._by_id:
            try:
                self._by_id[asset_id] = self.assets.get(self.owner, asset_id)
            except NotFound:
                raise MissingAsset(
                    f"{where}: there is no asset {asset_id[:100]!r} of yours: upload the file first.",
                    details={"asset_id": asset_id[:100]},
                ) from None
        return self._by_id[asset_id]


def _place(resolved: ResolvedGraph, node_id: str, input_name: str, address: str) -> None:
    node = resolved.graph[node_id]
    if takes_image(node["class_type"], input_name) is not None:
        node["inputs"][input_name] = address
    else:
        node["inputs"][input_name] = ""
        resolved.inputs[f"{node_id}.{input_name}"] = address


def _resolve_names(resolved: ResolvedGraph, owner: str, assets: AssetStore) -> None:
    named = [
        (node["inputs"], input_name, name_in_input_folder(value))
        for node in resolved.graph.values()
        for input_name, value in node["inputs"].items()
        if isinstance(value, str)
        and value
        and takes_image(node["class_type"], input_name) is not None
        and not is_address(value)
    ]
    found = assets.by_paths(owner, (name for _, _, name in named))
    for inputs, input_name, name in named:
        if name in found:
            inputs[input_name] = str(found[name].address)


def _everything_in(value: object) -> Iterator[object]:
    """A value and all that is in it."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
