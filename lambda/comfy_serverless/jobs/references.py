"""Assets in a workflow: `core/ASSET` references and names of uploaded files become addresses the worker can fetch.

The id of an asset alone, where a file is wanted, means that asset.

API format ──► the API puts addresses into the graph
the editor's, which a worker converts ──► the API looks up what its widgets name (`known_files`), and keeps that with
                                          the request; the worker puts addresses into the graph that it makes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest, MissingAsset, NotFound
from comfy_serverless.files import MODEL_ENDINGS, type_of_name
from comfy_serverless.graph.editor_files import nodes_of, values_of
from comfy_serverless.graph.editor_nodes import BYPASSED, MUTED
from comfy_serverless.graph.file_inputs import ASSET_TYPE, is_address, name_in_input_folder, takes_file
from comfy_serverless.graph.nodes import IMAGE_LOADERS, known
from comfy_serverless.graph.workflow import copy_graph
from comfy_serverless.jobs.keys import is_asset_id
from comfy_serverless.jobs.known_files import KnownFiles
from comfy_serverless.jobs.reserved import addresses_in, everything_in, is_devious

#: Different assets of one workflow; the worker takes fewer input files.
MAX_ASSETS = 200
_LONGEST_NAME = 1024


class Asset(Protocol):
    """A file that somebody has uploaded."""

    @property
    def address(self) -> S3Address: ...


class Assets(Protocol):
    """Who has which file: `table.assets.AssetStore`, or what is kept with a request."""

    def get(self, owner: str, asset_id: str) -> Asset:
        """An asset. Raises NotFound if the owner has none of this id."""

    def by_paths(self, owner: str, paths: Iterable[str]) -> Mapping[str, Asset]:
        """The newest assets of these file names."""


def known_files(
    workflow: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    owner: str,
    assets: Assets,
    inputs: Iterable[str] = (),
) -> KnownFiles:
    """The files of the owner that the widgets of an editor's workflow name: which of them are inputs is not known yet.

    Args:
        values: what is set in the workflow, once it is converted.
        inputs: the addresses of inputs that get files instead of what stands there.

    Raises:
        MissingAsset: a reference is malformed, or names no asset of this owner.
        InvalidRequest: it names too many.
    """
    found = _Found(owner, assets)
    ids: dict[str, str] = {}
    names: set[str] = set()
    maybe: set[str] = set()  # what could be an asset's id, where any text may stand
    loaded: dict[str, _Place] = {}
    replaced = _input_names((*values, *inputs))
    runs = {str(node.get("id")) for node in nodes_of(workflow) if node.get("mode") not in (MUTED, BYPASSED)}
    nodes = [(str(node.get("id")), str(node.get("type"))[:200], values_of(node)) for node in nodes_of(workflow)]
    for node_id, class_type, given in (*nodes, ("", "set", everything_in(dict(values)))):
        where = _Place(node_id, class_type, "widgets_values" if node_id else "")
        for value in given:
            if is_reference(value):
                asset = found.asset(value, where)  # type: ignore[arg-type]  # a reference is an object
                ids[_id_in(value).lower()] = str(asset.address)
            elif isinstance(value, str) and _may_be_name(value, where.class_type):
                name = name_in_input_folder(value)
                is_loaded = bool(known(class_type).files)
                (names if is_loaded or not is_asset_id(name.lower()) else maybe).add(name)
                if is_loaded and node_id in runs and replaced.isdisjoint(known(class_type).files):
                    loaded[name] = where  # else what stands there may never be wanted
    _check_count(names)
    if len(names | maybe) <= MAX_ASSETS:  # packs keep ids of their own by the hundred: those are no files
        names |= maybe
    by_name = {name: str(asset.address) for name, asset in assets.by_paths(owner, names).items()}
    for name in sorted(names - by_name.keys()):
        if is_asset_id(name.lower()):
            place = loaded.get(name)
            meant = found.if_there(name) if place is None else found.meant(name, place)
            by_name |= {} if meant is None else {name: str(meant.address)}
    return KnownFiles(ids, by_name)


def _may_be_name(value: str, class_type: str) -> bool:
    """Whether a text in a widget may be the name of an uploaded file: any text, in a class that takes files."""
    if not 0 < len(value) <= _LONGEST_NAME or is_address(value):
        return False
    name = name_in_input_folder(value)
    looks_like_one = type_of_name(name) is not None and not name.lower().endswith(MODEL_ENDINGS)
    return looks_like_one or is_asset_id(name.lower()) or bool(known(class_type).files)


def _check_count(names: Iterable[str]) -> None:
    if (count := len(set(names))) > MAX_ASSETS:
        raise InvalidRequest(f"the workflow names {count:,} different files; at most {MAX_ASSETS} are looked up.")


def uploaded_inputs(inputs: Mapping[str, Any], *, owner: str, assets: Assets) -> dict[str, Any]:
    """The addresses of those of a request's `inputs` that name files the owner has uploaded, instead of addresses.

    Names of other files are left out: the worker says that it does not find them. Raises MissingAsset for the id of no
    asset of the owner's.
    """
    plain = {name: given for name, given in inputs.items() if _is_plain(given)}
    named = {name: given for name, given in plain.items() if not all(map(is_address, _texts(given)))}
    wanted = {text for given in named.values() for text in _texts(given) if not is_address(text)}
    _check_count(wanted)
    found = {text: str(asset.address) for text, asset in assets.by_paths(owner, wanted).items()} if wanted else {}
    by_id = _Found(owner, assets)
    for name, given in named.items():
        for text in _texts(given):
            if text not in found and is_asset_id(text.lower()):
                found[text] = str(by_id.meant(text, _Place("", "inputs", name[:200])).address)
    return {
        name: found.get(given, given) if isinstance(given, str) else [found.get(text, text) for text in given]
        for name, given in named.items()
        if any(text in found for text in _texts(given))
    }


def _is_plain(given: object) -> bool:
    """Whether an input is a text, or a list of texts."""
    return isinstance(given, str) or (isinstance(given, list) and all(isinstance(one, str) for one in given))


def _texts(given: str | list[str]) -> list[str]:
    """The texts of such an input."""
    return [given] if isinstance(given, str) else given


@dataclass(slots=True)
class ResolvedGraph:
    """A graph without references. `inputs` are those not known to take files, as in a request's `inputs`."""

    graph: dict[str, Any]
    inputs: dict[str, str | list[str]] = field(default_factory=dict)


def resolve_assets(
    graph: Mapping[str, Any], *, owner: str, assets: Assets, inputs: Iterable[str] = ()
) -> ResolvedGraph:
    """Put addresses in the place of references, and of the names of files the owner has uploaded.

    A name that is no asset stays: the file may lie in ComfyUI's own input folder. A reference that is malformed, or
    names no asset of this owner, raises MissingAsset; so does an id alone, unless `inputs` may bring another file.
    """
    resolved = ResolvedGraph(copy_graph(graph))
    found = _Found(owner, assets)
    for node_id, node in graph.items():
        for input_name, given in node["inputs"].items():
            if isinstance(given, str):
                continue  # a name: see `_resolve_names`
            value = _unwrapped(given)
            where = _Place(node_id, node["class_type"], input_name)
            if is_reference(value):
                _put(resolved, where, str(found.asset(value, where).address))
            elif isinstance(value, list) and value and all(map(is_reference, value)):
                _put_batch(resolved, where, [str(found.asset(item, where).address) for item in value])
            elif any(map(is_reference, everything_in(value))):
                resolved.graph[node_id]["inputs"][input_name] = _with_addresses(value, found, where)
    _resolve_names(resolved, owner, assets, replaced=_input_names(inputs))
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


def _unwrapped(value: object) -> Any:  # noqa: ANN401
    """The list of references that the conversion has wrapped, as it wraps all lists; any other value itself."""
    inner = value.get("__value__") if isinstance(value, Mapping) else None
    return inner if isinstance(inner, list) and inner and all(map(is_reference, inner)) else value


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
        what = f"node {self.node_id} ({self.class_type})" if self.node_id else self.class_type
        return MissingAsset(f"{what}, input {self.input_name!r}: {problem}", details=details)


@dataclass(slots=True)
class _Found:
    """Assets looked up once each."""

    owner: str
    assets: Assets
    _by_id: dict[str, Asset] = field(default_factory=dict)

    def asset(self, reference: Mapping[str, Any], where: _Place) -> Asset:
        given = _id_in(reference)
        if not given:
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

    def if_there(self, asset_id: str) -> Asset | None:
        """The asset of an id; None if the owner has none."""
        asset_id = asset_id.lower()
        if asset_id not in self._by_id:
            try:
                self._by_id[asset_id] = self.assets.get(self.owner, asset_id)
            except NotFound:
                return None
        return self._by_id[asset_id]

    def meant(self, asset_id: str, where: _Place) -> Asset:
        """The asset whose bare id stands where a file is wanted. Raises MissingAsset, which says what to write."""
        asset = self.if_there(asset_id)
        if asset is None:
            raise where.refusal(
                f"{asset_id[:100]!r} looks like the id of an asset, and you have none such: upload the file first, "
                f'and give the id ({{"__type": "{ASSET_TYPE}", "info": {{"id": "<asset id>"}}}}, or alone), the name '
                "that it was uploaded under, or an address, like the `s3_uri` of an output.",
                asset_id=asset_id,
            )
        return asset


def _id_in(reference: object) -> str:
    """The id in a reference; "" if it has none."""
    info = reference.get("info") if isinstance(reference, Mapping) else None
    given = info.get("id") if isinstance(info, Mapping) else None
    return given if isinstance(given, str) else ""


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


def _input_names(addresses: Iterable[str]) -> frozenset[str]:
    """The names of the inputs that may be meant: whose nodes, only the graph tells."""
    return frozenset(address.rpartition(".")[2].strip() for address in addresses)


def _resolve_names(resolved: ResolvedGraph, owner: str, assets: Assets, *, replaced: frozenset[str]) -> None:
    named = [
        (_Place(node_id, node["class_type"], input_name), node["inputs"], name_in_input_folder(value))
        for node_id, node in resolved.graph.items()
        for input_name, value in node["inputs"].items()
        if isinstance(value, str) and value and takes_file(node["class_type"], input_name) and not is_address(value)
    ]
    names = {name for _, _, name in named}
    _check_count(names)
    found, by_id = assets.by_paths(owner, names), _Found(owner, assets)
    for where, inputs, name in named:
        if name in found:
            inputs[where.input_name] = str(found[name].address)
        elif is_asset_id(name.lower()):
            is_wanted = where.input_name not in replaced
            asset = by_id.meant(name, where) if is_wanted else by_id.if_there(name)
            inputs[where.input_name] = inputs[where.input_name] if asset is None else str(asset.address)
