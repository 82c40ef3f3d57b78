"""What a workflow needs, as values, and as the JSON that the command line and the API print. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from comfy_serverless.graph.inputs import Input


@dataclass(frozen=True, slots=True)
class Use:
    """An input that names a model. `input_name` is "" where only a value of the node is known, and not its input."""

    node_id: str
    class_type: str
    input_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A file that the workflow names.

    Attributes:
        folder: ComfyUI's folder for it, by its present name; "" if nothing says which.
        name: as the workflow has it: with subfolders of the folder.
        url: where the file says that it can be had; "" if it does not say so.
        sha256: in hex; "" if the file does not say it.
        size_bytes: None if it is not known; workflows do not say it, hosts of models do.
        there: whether ComfyUI has it; None if that is not known.
        near: a model that is there and has the same file name in another subfolder, or in other letters.
        source: what the address is from: "properties" of a node, a "note", the "request"; or a stack's "store".
    """

    folder: str
    name: str
    url: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    there: bool | None = None
    near: str = ""
    source: str = ""
    used_by: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """Where a class comes from, as the editor wrote it down: an id of the registry, or `owner/repository` on GitHub.

    `ver` is a version of the registry, or a commit.
    """

    cnr_id: str = ""
    aux_id: str = ""
    ver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """A class of nodes in the workflow, with its first nodes.

    Attributes:
        pack: None if the file does not name it.
        known: whether ComfyUI has it; None if that is not known.
    """

    class_type: str
    node_ids: tuple[str, ...]
    count: int
    pack: Pack | None = None
    known: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """All that a workflow needs.

    Attributes:
        partner_nodes: classes that call a paid service, and need a key for it.
        inputs: what can be set, in the order of the workflow.
        notes: what could not be found out, and why.
    """

    models: tuple[Model, ...] = ()
    nodes: tuple[NodeClass, ...] = ()
    partner_nodes: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def missing_models(self) -> list[Model]:
        """The models that are surely not there."""
        return [model for model in self.models if model.there is False]

    @property
    def unknown_nodes(self) -> list[NodeClass]:
        """The classes that ComfyUI surely does not have."""
        return [node for node in self.nodes if node.known is False]

    def to_json(self) -> dict[str, Any]:
        """The answer as a JSON document; what is not known is null."""
        return {
            "models": [_without_blanks(asdict(model)) for model in self.models],
            "nodes": [_with_pack(asdict(node)) for node in self.nodes],
            "partner_nodes": list(self.partner_nodes),
            "inputs": [one.to_json() for one in self.inputs],
            "missing": {"models": len(self.missing_models), "nodes": len(self.unknown_nodes)},
            "notes": list(self.notes),
        }


def _with_pack(node: dict[str, Any]) -> dict[str, Any]:
    pack = node["pack"]
    return {**node, "node_ids": list(node["node_ids"]), "pack": pack and _without_blanks(pack)}


#: A name that is blank says that there is none, and not that it is unknown.
_MAY_BE_BLANK = ("name", "input_name")


def _without_blanks(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for what is not known."""
    return {
        name: list(value) if isinstance(value, tuple) else None if value == "" and name not in _MAY_BE_BLANK else value
        for name, value in document.items()
    }
