"""From a build file to a lock: ComfyUI's commit, the packs, and all libraries together.

    BuildFile ─► ComfyUI and packs, fetched side by side ─► what they ask for ─► `resolve` ─► Lock

What the lock at hand pins is kept where the entry is the same, unless it is to be upgraded.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from comfy_serverless.environments import lock_file
from comfy_serverless.environments.build_file import BuildFile, Model, Pack, misspelt, overrides
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS, Lock, LockedModel, LockedPack
from comfy_serverless.environments.locking import requirement_lines
from comfy_serverless.environments.locking.base import COMFYUI, Base
from comfy_serverless.environments.locking.comfyui_source import ComfyUISource
from comfy_serverless.environments.locking.more_requirements import MoreRequirements
from comfy_serverless.environments.locking.pack_sources import FetchedPack, Sources
from comfy_serverless.environments.locking.requirement_lines import Declared
from comfy_serverless.environments.locking.resolve import Wanted, resolve
from comfy_serverless.environments.locking.resolver import Resolver
from comfy_serverless.errors import NotLocked, PackUnavailable

#: How many packs are fetched at once.
_FETCHERS: Final = 6
#: A marker that never holds: the line takes a library out, as `explanations` proposes where nothing else helps.
_LEFT_OUT: Final = "never"
_NOTHING: Final[Callable[[float, str], None]] = lambda _fraction, _words: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What the lock at hand does not hold back: everything, or some names of libraries and packs."""

    everything: bool = False
    names: frozenset[str] = frozenset()

    def moves(self, *names: str | None) -> bool:
        """Whether something with one of these names is chosen anew."""
        return self.everything or any(requirement_lines.normalized(name) in self.names for name in names if name)


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock, and where the archive of each pack is (until the scratch folder goes)."""

    lock: Lock
    packs: tuple[FetchedPack, ...]


@dataclass(frozen=True, slots=True)
class Locker:
    """What locks: where ComfyUI and packs come from, what the image has, who resolves.

    Attributes:
        tell: is told how far it is, from 0 to 1, and what goes on.
    """

    comfyui: ComfyUISource
    sources: Sources
    base: Base
    resolver: Resolver
    tell: Callable[[float, str], None] = _NOTHING

    def lock(
        self,
        build: BuildFile,
        known: Lock | None = None,
        upgrade: Upgrade | None = None,
        *,
        more: MoreRequirements | None = None,
    ) -> Locked:
        """Lock a build file.

        Args:
            known: the lock at hand.
            more: what packs need and do not declare.

        Raises:
            NotLocked: and its kinds; the message has every problem of its kind.
        """
        upgrade, more = upgrade or Upgrade(), more or MoreRequirements()
        ref = ref_of(build)
        overriding, others = _overriding(build)
        self.tell(0.02, f"ComfyUI {ref}")
        kept = known.comfyui if known and known.comfyui.ref == ref and not upgrade.moves(COMFYUI) else None
        with tempfile.TemporaryDirectory(dir=self.sources.scratch) as scratch:
            comfyui, core = self.comfyui.fetch(ref, kept, Path(scratch))
        fetched = self._packs(build.packs, known, upgrade)
        wished = more.declared
        declared = [core, *(pack.declared for pack in fetched), wished]
        if problems := [problem for each in declared for problem in each.problems]:
            raise _not_installable(problems, is_own=problems == wished.problems)
        lines = tuple(_pinned(line, known, upgrade) for each in declared for line in each.lines)
        self.tell(0.5, "libraries")
        resolved = resolve(
            Wanted(lines, tuple(overriding), *_preferred(known, upgrade)),
            self.base,
            self.resolver,
            tell=lambda words: self.tell(0.6, words),
        )
        self.tell(1.0, "done")
        of_packs = [text for pack in fetched for text in pack.warnings]
        told = [*core.warnings, *of_packs, *wished.warnings, *resolved.warnings, *others, *_of_file(build)]
        lock = Lock(
            inputs_sha256=inputs_of(build, self.base, more),
            comfyui=comfyui,
            torch=dict(self.base.torch),
            apt=self.base.apt,
            packs=tuple(pack.locked for pack in fetched),
            requirements=resolved.requirements,
            build_requirements=resolved.build_requirements,
            overrides=resolved.overrides,
            models=tuple(map(_model, build.models)),
            warnings=tuple(told),
            more_requirements=more.lines,
        )
        return Locked(Lock.parse(lock.to_text()), tuple(fetched))

    def _packs(self, packs: Sequence[Pack], known: Lock | None, upgrade: Upgrade) -> list[FetchedPack]:
        """All packs, sorted by name. Raises PackUnavailable with every one that cannot be had."""
        kept = {pack.name: pack for pack in known.packs} if known else {}
        wanted = sorted(packs, key=lambda pack: pack.name)
        done: list[FetchedPack] = []
        failed: list[PackUnavailable] = []
        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="packs") as pool:
            coming = [
                pool.submit(self.sources.fetch, pack, _same(pack, kept.get(pack.name), upgrade)) for pack in wanted
            ]
            for number, (pack, future) in enumerate(zip(wanted, coming, strict=True)):
                self.tell(0.05 + 0.45 * number / len(wanted), f"pack {pack.name}")
                try:
                    done.append(future.result())
                except PackUnavailable as error:
                    failed.append(error)
        if len(failed) == 1:
            raise failed[0]
        if failed:
            problems = [error.message for error in failed]
            raise PackUnavailable(
                f"{len(failed)} packs cannot be had:\n  " + "\n  ".join(problems), details={"problems": problems}
            )
        return done


def inputs_of(build: BuildFile, base: Base, more: MoreRequirements) -> str:
    """The hash of all that is asked for: see `lock_file.inputs_sha256`."""
    asked: dict[str, Any] = {
        "comfyui": build.base_comfy_version,
        "packs": sorted((dataclasses.asdict(pack) for pack in build.packs), key=lambda pack: str(pack["name"])),
        "models": sorted(
            (dataclasses.asdict(model) for model in build.models), key=lambda model: (model["type"], model["filename"])
        ),
        "overrides": sorted(overrides(build)),
    }
    if more.lines:  # without the file, a lock of the days before there was one is not stale
        asked["more_requirements"] = more.lines
    return lock_file.inputs_sha256(asked, torch_in=base.torch_in, apt_txt=base.apt_txt)


def staleness(build: BuildFile, lock: Lock, base: Base, more: MoreRequirements) -> list[str]:
    """Why a lock is not of a build file any more; empty if it is. Nothing is asked of anybody."""
    if lock.inputs_sha256 == inputs_of(build, base, more) and (lock.python, lock.platform) == (
        lock_file.PYTHON, lock_file.PLATFORM,
    ):  # fmt: skip
        return []
    reasons = []
    if lock.comfyui.ref != build.base_comfy_version:
        reasons.append(f"ComfyUI is {build.base_comfy_version} in the build file, {lock.comfyui.ref} in the lock")
    reasons += _changed_packs(build.packs, {pack.name: pack for pack in lock.packs})
    if dict(lock.torch) != dict(base.torch):
        reasons.append("the versions in requirements/torch.in have changed")
    if tuple(lock.apt) != base.apt:
        reasons.append("the list in requirements/apt.txt has changed")
    if set(lock.models) != set(map(_model, build.models)):
        reasons.append("the models have changed")
    if lock.more_requirements != more.lines:
        reasons.append(f"the lines in {MORE_REQUIREMENTS} have changed")
    return reasons or ["pipDependencies, or another entry, has changed"]


def _changed_packs(packs: Iterable[Pack], locked: Mapping[str, LockedPack]) -> list[str]:
    wanted = {pack.name: pack for pack in packs}
    added = [f"the pack {name} is new" for name in sorted(wanted.keys() - locked.keys())]
    removed = [f"the pack {name} is gone" for name in sorted(locked.keys() - wanted.keys())]
    changed = [
        f"the pack {name} has another source or version" for name in sorted(wanted.keys() & locked.keys())
        if not _is_same(wanted[name], locked[name])
    ]  # fmt: skip
    return [*added, *removed, *changed]


def _not_installable(problems: Sequence[str], *, is_own: bool) -> NotLocked:
    of_packs = "Take another version of the pack, or a copy of it (source: local) with that line put right"
    what = "Put that right" if is_own else of_packs
    listed = "\n  ".join(problems)
    return NotLocked(f"Lines that nobody can install:\n  {listed}\n{what}.", details={"problems": list(problems)})


def ref_of(build: BuildFile) -> str:
    """The ComfyUI that a build file names. Raises NotLocked if it names none."""
    if not build.base_comfy_version:
        raise NotLocked(
            "The build file names no ComfyUI: set definition.baseComfyVersion to a tag (v0.33.0), a branch or a commit"
            f"{misspelt('baseComfyVersion', build.unread)}."
        )
    return build.base_comfy_version


def _overriding(build: BuildFile) -> tuple[list[Declared], list[str]]:
    """The lines of pipDependencies that count, and a warning for each one that is of another system.

    Raises:
        NotLocked: a line is no requirement, or does not say which library it replaces.
    """
    lines: list[Declared] = []
    warnings, problems = [], []
    for text in overrides(build):
        bare = text.split(";")[0].strip() if " @ " not in text else text
        read = requirement_lines.read_text(bare, "pipDependencies")
        problems += [*read.problems, *read.warnings]
        unnamed = (line.text for line in read.lines if not line.name)
        problems += [
            f"pipDependencies: `{line}` does not say which library it replaces: name @ address" for line in unnamed
        ]
        if requirement_lines.holds(text) or _LEFT_OUT in text:
            whole = text if ";" in text else None
            lines += [replace(line, text=text, requirement=whole or line.requirement) for line in read.lines]
        else:
            warnings.append(f"pipDependencies has {text}: it is for another system or Python, and not applied.")
    if problems:
        raise NotLocked(
            "pipDependencies has lines that replace nothing a pack may ask for:\n  " + "\n  ".join(problems),
            details={"problems": problems},
        )
    return lines, warnings


def _same(pack: Pack, known: LockedPack | None, upgrade: Upgrade) -> LockedPack | None:
    """What is kept of a pack."""
    return known if known is not None and _is_same(pack, known) and not upgrade.moves(pack.name, pack.id) else None


def _is_same(pack: Pack, known: LockedPack) -> bool:
    asked = (pack.registry_version, pack.repository, (pack.git_ref or "HEAD") if pack.repository else None)
    latest = pack.registry_version is not None and pack.registry_version.lower() == "latest"
    of_registry = known.version if not latest else pack.registry_version
    return pack.source == known.source and asked == (
        of_registry if known.source == "registry" else None, known.repository, known.ref,
    )  # fmt: skip


def _pinned(line: Declared, known: Lock | None, upgrade: Upgrade) -> Declared:
    """A line that asks for a branch or tag of a repository, with the commit that the lock at hand has for it."""
    if known is None or "git+" not in line.requirement:
        return line
    for found in known.requirements:
        if found.kind == "git" and found.url and str(line) in found.declared_by and not upgrade.moves(found.name):
            _, commit = requirement_lines.repository_of(found.url)
            address, hash_sign, below = line.requirement.split(" ;")[0].partition("#")
            bare, _ = requirement_lines.repository_of(address.strip())
            return replace(line, requirement=f"{bare}@{commit}{hash_sign}{below}")
    return line


def _preferred(known: Lock | None, upgrade: Upgrade) -> tuple[dict[str, str], dict[str, str]]:
    if known is None:
        return {}, {}
    return (
        {each.name: each.version for each in known.requirements if not upgrade.moves(each.name)},
        {each.name: each.version for each in known.build_requirements if not upgrade.moves(each.name)},
    )


def _of_file(build: BuildFile) -> list[str]:
    warnings = []
    if build.base_image:
        warnings.append(
            f"baseImage is {build.base_image}, a name of Comfy's own catalogue: it has no meaning here. The image is "
            "the Dockerfile's."
        )
    where = "is in Comfy's own store (blobId), which only Comfy's builder reads"
    what = "give it a sourceUri, or bring it with `comfy-serverless models`"
    warnings += [f"The model {model.path} {where}: {what}." for model in build.models if model.source == "blob"]
    return warnings


def _model(model: Model) -> LockedModel:
    return LockedModel(model.filename, model.type, model.sha256, model.size_bytes, model.source_uri, model.local_path)


def upgrade_of(names: Collection[str] | None) -> Upgrade:
    """None: nothing is upgraded; no names: everything."""
    if names is None:
        return Upgrade()
    return Upgrade(not names, frozenset(map(requirement_lines.normalized, names)))
