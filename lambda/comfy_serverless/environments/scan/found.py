"""What a source of an environment has: an install, a snapshot, a workflow, another build file. No IO."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from comfy_serverless.environments.build_file import Model, Pack, rules

#: ComfyUI's Manager would change the image, and its page is not shown there.
_NOT_FOR_IMAGES: Final = frozenset({"comfyui-manager", "comfy-manager"})
_COMMIT = re.compile(r"[0-9a-f]{7,40}", re.ASCII)
_GITHUB: Final = re.compile(r"(?:https?://)?(?:www\.)?github\.com/", re.IGNORECASE)
_RELEASE = re.compile(r"v?[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.+_-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FoundPack:
    """A pack, and further ids that it is known by, in small letters: a workflow may name it by one of them."""

    pack: Pack
    known_as: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All that it is told by, in small letters."""
        repository = (self.pack.repository or "").removesuffix(".git").rpartition("/")[2]
        return frozenset(
            name.lower() for name in (self.pack.name, self.pack.id or "", repository, *self.known_as) if name
        )


@dataclass(slots=True)
class Found:
    """What one source has.

    Attributes:
        source: what people call it.
        version: a ref of ComfyUI's repository; "" if it does not say one.
        is_of_install: whether there was such a ComfyUI; a workflow only says with which it was made.
        libraries: pip lines, e.g. "numpy==2.4.6", by their normalized names.
        declared: the libraries that its packs declare, by normalized names.
        pip: lines that a build file has itself, with its comments.
        left_out: what could not be taken, and why; `remarks` is what else people should know.
    """

    source: str
    version: str = ""
    is_of_install: bool = True
    packs: list[FoundPack] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    pip: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add_pack(self, found: FoundPack, remark: str = "") -> None:
        """Take a pack, with what is to be known of it, or say why it is left out."""
        pack = found.pack
        if _NOT_FOR_IMAGES & found.names:
            self.left_out.append(f"{pack.name}: ComfyUI's Manager is of no use in an image, which nobody changes")
        elif wrong := wrong_with(pack):
            self.left_out.append(f"{pack.name}: {wrong}")
        else:
            self.packs.append(found)
            self.remarks += [remark] if remark else []

    def add_model(self, model: Model) -> None:
        """Take a model, or say why it is left out."""
        wrong = rules.model_folder(model.type) or rules.file_name(model.filename)
        wrong = wrong or (rules.model_address(model.source_uri) if model.source_uri is not None else "")
        if wrong:
            self.left_out.append(f"models/{model.path}: {wrong}")
        else:
            self.models.append(model)


def wrong_with(pack: Pack) -> str:
    """Why a pack cannot stand in a build file; "" if it can."""
    checks = (
        (pack.name, rules.pack_name),
        (pack.id, rules.registry_id),
        (pack.registry_version, rules.registry_version),
        (pack.repository, rules.repository),
        (pack.git_ref, rules.git_ref),
        (pack.local_path, rules.path_below),
    )
    return next((wrong for text, rule in checks if text is not None and (wrong := rule(text))), "")


def pack_of(pack_id: str, owner_and_name: str, version: str) -> tuple[Pack, str]:
    """The pack that a workflow or a snapshot names, and a remark about its version, or "".

    Args:
        pack_id: of the registry, or "".
        owner_and_name: `owner/repository` on GitHub, or ""; one of the two is given.
        version: of the registry, or a commit, or a word such as "nightly", or "".
    """
    is_commit = _COMMIT.fullmatch(version) is not None
    is_release = _RELEASE.fullmatch(version) is not None
    if pack_id and is_release:
        return Pack(name=pack_id, id=pack_id, registry_version=version), ""
    said = f"its version there is {version!r}" if version else "its version is not said there"
    if owner_and_name:
        below = _GITHUB.sub("", owner_and_name).strip("/").removesuffix(".git")
        repository = f"https://github.com/{below}"
        name = pack_id or repository.rpartition("/")[2]
        if is_commit:
            return Pack(name=name, id=pack_id or None, repository=repository, git_ref=version), ""
        pack = Pack(name=name, id=pack_id or None, repository=repository)
        return pack, f"{name}: {said}, so the lock takes its default branch; write a commit as `gitRef`"
    pack = Pack(name=pack_id, id=pack_id, registry_version="latest")
    return pack, f"{pack_id}: {said}, so the lock takes the newest release; write another `registryVersion`"


def counted_names(names: Iterable[str], most: int = 8) -> str:
    """Names in a sentence: the first, and how many more."""
    kept = list(names)
    more = f" and {len(kept) - most} more" if len(kept) > most else ""
    return ", ".join(kept[:most]) + more
