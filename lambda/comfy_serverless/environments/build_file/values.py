"""A build file as values. They hold what counts; the file itself may say more (`writing` keeps that)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Where something comes from; "blob" is Comfy's own store, which nobody else can reach.
PackSource = Literal["registry", "git", "local", "blob"]
ModelSource = Literal["local", "address", "blob"]

SCHEMA, DEFINITION_SCHEMA = "comfy-build/1", "distribution-definition/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A file below `models/`.

    Attributes:
        filename: without folders.
        type: the folder below `models/`; it may be nested: `text_encoders/gemma`.
        sha256: 64 hex digits in lower case; None if the file does not say it.
        source_uri: the address it is fetched from: https, or s3.
        blob_id: its name in Comfy's store.
        local_path: the file below `models/` of the install; only where that is its source.
    """

    filename: str
    type: str
    sha256: str | None = None
    size_bytes: int | None = None
    source_uri: str | None = None
    blob_id: str | None = None
    local_path: str | None = None

    @property
    def source(self) -> ModelSource:
        """Where it comes from."""
        if self.local_path is not None:
            return "local"
        return "address" if self.source_uri is not None else "blob"

    @property
    def path(self) -> str:
        """Its place below `models/`."""
        return f"{self.type}/{self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A pack of custom nodes. Of the fields below `id` only those of its one source are set.

    Attributes:
        name: the folder (or the one `.py` file) below `custom_nodes/`.
        id: what the Comfy Registry calls it; a pack of git or of this machine may have one, too.
        registry_version: a version of the registry.
        repository: the address of a git repository.
        git_ref: a branch, tag or commit of it; None is its default branch.
        local_path: the folder or file below `custom_nodes/` of the install.
        blob_id: its name in Comfy's store.
    """

    name: str
    id: str | None = None
    registry_version: str | None = None
    repository: str | None = None
    git_ref: str | None = None
    local_path: str | None = None
    blob_id: str | None = None

    @property
    def source(self) -> PackSource:
        """Where it comes from."""
        if self.registry_version is not None:
            return "registry"
        if self.repository is not None:
            return "git"
        return "local" if self.local_path is not None else "blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFile:
    """What a build file asks for.

    Attributes:
        base_comfy_version: a ref of ComfyUI's repository; None if it names none, and then nothing can be built of it.
        packs: sorted as the format says (`new_text`); the order in the file does not count.
        models: likewise.
        pip_dependencies: the text of pip lines, with comments; `overrides` has those that count.
        environment: the machine that it was taken from: evidence, nothing is pinned by it.
        base_image: a name of Comfy's own catalogue, which has no meaning here.
        unread: the keys of its definition that nothing here reads: of other programs, or misspelt.
    """

    base_comfy_version: str | None = None
    packs: tuple[Pack, ...] = ()
    models: tuple[Model, ...] = ()
    pip_dependencies: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    base_image: str | None = None
    name: str = ""
    description: str = ""
    unread: tuple[str, ...] = field(default=(), compare=False)


def pack_order(pack: Pack) -> tuple[str, ...]:
    """The place of a pack in a file: by name, id, repository."""
    return pack.name, pack.id or "", pack.repository or ""


def model_order(model: Model) -> tuple[str, ...]:
    """The place of a model in a file: by type, filename, sha256."""
    return model.type, model.filename, model.sha256 or ""
