"""From a pack's entry in the build file to its files, its commit or archive, its hash, and what it asks for.

registryVersion   the registry says where the archive is; the archive's hash is locked
repository        git fetches one commit; the hash is that of the tree
local             the folder on this machine; the tree goes to the archives, since nobody else has it
blobId            refused: only Comfy's own builder reads that store
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfy_serverless.environments import archives, tree_zip
from comfy_serverless.environments.build_file import Pack
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS, LockedPack
from comfy_serverless.environments.locking import git, install_scripts, requirement_lines
from comfy_serverless.environments.locking.registry import NotThere, Registry
from comfy_serverless.environments.locking.requirement_lines import Declarations
from comfy_serverless.errors import PackUnavailable
from comfy_serverless.redaction import redact_addresses

_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class FetchedPack:
    """A pack as it is locked, what it asks for, and what a person should know of it.

    Attributes:
        archive: the file whose hash is locked.
    """

    locked: LockedPack
    declared: Declarations
    archive: Path
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packs come from.

    Attributes:
        registry: the Comfy Registry.
        custom_nodes: folders in which a local pack may lie, the first that has it counts.
        scratch: an empty folder, for what is fetched.
    """

    registry: Registry
    custom_nodes: tuple[Path, ...]
    scratch: Path

    def fetch(self, pack: Pack, known: LockedPack | None = None) -> FetchedPack:
        """Fetch a pack.

        Args:
            known: what the lock at hand says of it; its commit is kept where the entry is the same.

        Raises:
            PackUnavailable: it cannot be had; the message names it, and says what to do.
        """
        try:
            return self._fetch(pack, known)
        except (NotThere, git.GitFailed, archives.BadArchive, tree_zip.NotATree) as error:
            end = "" if str(error).endswith("?") else "."
            raise PackUnavailable(f"{_called(pack)} {error}{end}", details={"pack": pack.name}) from error
        except OSError as error:
            raise PackUnavailable(f"{_called(pack)} cannot be read: {error}.", details={"pack": pack.name}) from error

    def _fetch(self, pack: Pack, known: LockedPack | None) -> FetchedPack:
        if pack.blob_id:
            raise NotThere(
                "is in Comfy's own store (blobId), which only Comfy's builder reads: name its registryVersion or its "
                "repository, or put a copy below custom_nodes and say `source: local`"
            )
        if pack.local_path is not None:
            return self._local(pack, pack.local_path)
        if pack.registry_version is not None:
            return self._registered(pack, pack.registry_version)
        if pack.repository is None:
            raise NotThere("has no source: name a registryVersion, a repository, or `source: local`")
        return self._of_repository(pack, pack.repository, known)

    def _registered(self, pack: Pack, wanted: str) -> FetchedPack:
        if not pack.id:
            raise NotThere("has a registryVersion and no id: name the registry's id of it")
        version = self.registry.version(pack.id, wanted)
        archive = Path(tempfile.mkdtemp(dir=self.scratch)) / "archive.zip"
        self.registry.download(version.url, archive)
        folder = archives.unpack(archive, Path(tempfile.mkdtemp(dir=self.scratch)))
        warnings = [f"{pack.name} {version.version}: {version.warning}."] if version.warning else []
        return _fetched(
            pack, folder, archive, source="registry", version=version.version, url=version.url, warnings=warnings
        )

    def _of_repository(self, pack: Pack, repository: str, known: LockedPack | None) -> FetchedPack:
        asked = pack.git_ref or "HEAD"
        wanted = known.commit if known is not None and known.commit else asked
        try:
            found = git.checkout(repository, wanted, Path(tempfile.mkdtemp(dir=self.scratch)))
        except git.GitFailed as error:
            raise git.GitFailed(f"comes from {redact_addresses(repository)}, which {error}") from error
        warnings = list(_missing_files(pack.name, found))
        archive = self._tree(found.folder)
        return _fetched(
            pack, found.folder, archive, source="git", ref=asked, commit=found.commit, repository=repository,
            warnings=warnings,
        )  # fmt: skip

    def _local(self, pack: Pack, local_path: str) -> FetchedPack:
        folder = self.local_folder(local_path)
        if folder is None:
            places = " and ".join(map(str, self.custom_nodes)) or "no folder: give one with --comfyui DIR"
            raise NotThere(
                f"is of this machine (source: local, localPath {local_path}), and not there: looked for it in "
                f"{places}. Run this where it is, or name its repository"
            )
        if folder.is_file():  # a single .py below custom_nodes is a pack, too, and stays one
            copied = Path(tempfile.mkdtemp(dir=self.scratch)) / pack.name
            copied.mkdir()
            (copied / (pack.name if pack.name.endswith(".py") else "__init__.py")).write_bytes(folder.read_bytes())
            folder = copied
        return _fetched(pack, folder, self._tree(folder), source="local", warnings=[])

    def local_folder(self, local_path: str) -> Path | None:
        """Where a local pack is; None if nowhere."""
        inner = local_path.removeprefix("custom_nodes/")
        found = (base / inner for base in self.custom_nodes)
        return next((path for path in found if path.exists()), None)

    def _tree(self, folder: Path) -> Path:
        archive = Path(tempfile.mkdtemp(dir=self.scratch)) / "tree.zip"
        with archive.open("wb") as file:
            tree_zip.write(folder, file)
        return archive


def _missing_files(name: str, found: git.Checkout) -> Iterator[str]:
    """What a commit has and a checkout has not."""
    if found.submodules:
        yield (
            f"{name} has files of another repository in {', '.join(found.submodules[:_MOST_NAMED])} (submodules): they "
            "are not in the image. If it does not import without them, take a copy (source: local)."
        )
    if found.pointers:
        yield (
            f"{name} has files in git LFS, of which only pointers are in the image: "
            f"{', '.join(found.pointers[:_MOST_NAMED])}. If they are needed, take a copy (source: local)."
        )


def _fetched(
    pack: Pack,
    folder: Path,
    archive: Path,
    *,
    source: str,
    warnings: list[str],
    version: str | None = None,
    ref: str | None = None,
    commit: str | None = None,
    repository: str | None = None,
    url: str | None = None,
) -> FetchedPack:
    sha256, size = tree_zip.sha256_and_size(archive)
    declared = requirement_lines.read(folder, pack.name)
    scripts = install_scripts.scripts_of(folder)
    told = [
        f"{pack.name} has {script.file}, which is not run: {_what_it_fetches(script.fetches)}" for script in scripts
    ]
    if not (folder / "requirements.txt").is_file() and (named := _in_pyproject(folder)):
        told.append(
            f"{pack.name} names libraries in pyproject.toml and has no requirements.txt: none is installed for it. "
            f"Those that it needs belong in {MORE_REQUIREMENTS}: {', '.join(named)}."
        )
    return FetchedPack(
        LockedPack(
            name=pack.name,
            id=pack.id,
            source=source,  # type: ignore[arg-type]
            version=version,
            ref=ref,
            repository=repository,
            commit=commit,
            url=url,
            sha256=sha256,
            size=size,
            requirements=tuple(line.text for line in declared.lines if not line.is_limit),
            install_scripts=scripts,
        ),
        declared,
        archive,
        (*warnings, *told, *declared.warnings),
    )


def _what_it_fetches(fetches: tuple[str, ...]) -> str:
    if not fetches:
        return "nothing that it would fetch was found in it; what it makes is missing in the image."
    named = "; ".join(fetches[:_MOST_NAMED]) + ("; …" if len(fetches) > _MOST_NAMED else "")
    return f"it would fetch {named}. Libraries belong in {MORE_REQUIREMENTS}, models in the build file."


def _in_pyproject(folder: Path) -> list[str]:
    """What `[project]` depends on, which nobody installs."""
    import tomllib

    path = folder / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return []
    project = document.get("project")
    lines = project.get("dependencies") if isinstance(project, dict) else None
    return [str(line) for line in lines] if isinstance(lines, list) else []


def _called(pack: Pack) -> str:
    version = pack.registry_version or pack.git_ref
    return f"The pack {pack.name}{f' ({pack.id})' if pack.id and pack.id != pack.name else ''}" + (
        f" {version}" if version else ""
    )
