"""What a person wants to know about two locks: what came, what went, what has another version, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from comfy_serverless.environments.lock_file import Lock, LockedModel, LockedPack, LockedRequirement

_Entry = TypeVar("_Entry", LockedPack, LockedRequirement, LockedModel)
_COMMIT_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was. `old` is None where it is new, `new` where it is gone."""

    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.name} {self.new}"
        return f"- {self.name} {self.old}" if self.new is None else f"  {self.name} {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes to fetch: archives of packs, files of libraries (where the index says them), models."""

    packs: int
    libraries: int
    models: int


@dataclass(frozen=True, slots=True)
class Differences:
    """Two locks, compared.

    Attributes:
        base: ComfyUI, torch and its kin, Debian's packages, Python and platform.
        libraries: likewise of those that build sources, `name (build)`.
        overrides: lines of pipDependencies; `warnings` those that came or went.
    """

    base: tuple[Change, ...]
    packs: tuple[Change, ...]
    libraries: tuple[Change, ...]
    overrides: tuple[Change, ...]
    models: tuple[Change, ...]
    warnings: tuple[Change, ...]
    old_sizes: Sizes
    new_sizes: Sizes

    @property
    def is_empty(self) -> bool:
        """Whether both build the same."""
        return not (self.base or self.packs or self.libraries or self.overrides or self.models)

    def to_json(self) -> dict[str, Any]:
        """As one JSON document."""
        return asdict(self)


def compare(old: Lock, new: Lock) -> Differences:
    """Compare two locks."""
    return Differences(
        base=tuple(_changes(_base(old), _base(new))),
        packs=tuple(_changes(*_both(old.packs, new.packs, lambda pack: pack.name, _pack))),
        libraries=(
            *_changes(*_both(old.requirements, new.requirements, lambda each: each.name, _library)),
            *_changes(
                *_both(old.build_requirements, new.build_requirements, lambda each: f"{each.name} (build)", _library)
            ),
        ),
        overrides=tuple(_lines(old.overrides, new.overrides)),
        models=tuple(_changes(*_both(old.models, new.models, lambda model: f"{model.type}/{model.filename}", _model))),
        warnings=tuple(_lines(old.warnings, new.warnings)),
        old_sizes=sizes(old),
        new_sizes=sizes(new),
    )


def sizes(lock: Lock) -> Sizes:
    """What a lock weighs."""
    return Sizes(
        sum(pack.size for pack in lock.packs),
        sum(each.size or 0 for each in lock.requirements),
        sum(model.size or 0 for model in lock.models),
    )


def pack_version(pack: LockedPack) -> str:
    """A pack's version, as people say it: of the registry, `main 1a2b3c4d5e`, or the hash of its files."""
    if pack.source == "registry":
        return str(pack.version)
    if pack.source == "local":
        return f"local {pack.sha256[:_COMMIT_DIGITS]}"
    commit = str(pack.commit)
    is_commit = pack.ref is None or commit.startswith(pack.ref)
    return commit[:_COMMIT_DIGITS] if is_commit else f"{pack.ref} {commit[:_COMMIT_DIGITS]}"


def _pack(pack: LockedPack) -> tuple[str, object]:
    shown = pack_version(pack)
    return shown, (shown, pack.source, pack.sha256, pack.repository)


def _library(each: LockedRequirement) -> tuple[str, object]:
    shown = (
        f"{each.version} (from git {each.url.partition('#')[0][-40:][:_COMMIT_DIGITS]})"
        if each.kind == "git" and each.url
        else each.version
    )
    return shown + (" (sources)" if each.kind == "sdist" else ""), (each.version, each.kind, each.hashes, each.url)


def _model(model: LockedModel) -> tuple[str, object]:
    return (model.sha256 or model.url or "unknown")[:_COMMIT_DIGITS], (model.sha256, model.url, model.local_path)


def _base(lock: Lock) -> dict[str, tuple[str, object]]:
    comfyui = f"{lock.comfyui.version} ({lock.comfyui.ref}, {lock.comfyui.commit[:_COMMIT_DIGITS]})"
    values = {"ComfyUI": comfyui, "Python": lock.python, "platform": lock.platform, **lock.torch}
    values |= {f"{name} (Debian)": "installed" for name in lock.apt}
    return {name: (value, value) for name, value in values.items()}


def _both(
    old: Sequence[_Entry],
    new: Sequence[_Entry],
    name: Callable[[_Entry], str],
    shown: Callable[[_Entry], tuple[str, object]],
) -> tuple[dict[str, tuple[str, object]], dict[str, tuple[str, object]]]:
    return {name(each): shown(each) for each in old}, {name(each): shown(each) for each in new}


def _changes(old: Mapping[str, tuple[str, object]], new: Mapping[str, tuple[str, object]]) -> Iterable[Change]:
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield Change(name, before[0] if before else None, after[0] if after else None)
        elif before[1] != after[1]:
            same = before[0] == after[0]
            yield Change(name, before[0], f"{after[0]} (other files)" if same else after[0])


def _lines(old: Iterable[str], new: Iterable[str]) -> Iterable[Change]:
    before, after = set(old), set(new)
    yield from (Change(line, "", None) for line in sorted(before - after))
    yield from (Change(line, None, "") for line in sorted(after - before))
