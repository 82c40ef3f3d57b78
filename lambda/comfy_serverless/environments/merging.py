"""Merges what several sources have, and an existing build file with that; says in words what changed. No IO."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from comfy_serverless.environments.build_file import BuildFile, Model, Pack
from comfy_serverless.environments.found import Found, FoundPack, counted_names
from comfy_serverless.environments.installed_libraries import is_evidence, pip_text
from comfy_serverless.environments.workflow_packs import newer

#: Where a model without an address is from.
_ELSEWHERE = {"local": "of this machine", "blob": "of Comfy's store", "address": ""}


@dataclass(frozen=True, slots=True)
class Change:
    """What became another thing: "pack", "model" or "key"; "added", "changed" or "removed"; and what it is now."""

    kind: str
    name: str
    what: str
    now: str


def merged(sources: Sequence[Found], *, ref: str | None, name: str) -> tuple[BuildFile, list[str]]:
    """What the sources have together, and remarks on where they differ. What an earlier source says counts more.

    Args:
        ref: ComfyUI's ref, if the caller says one.
        name: what the build is called.
    """
    remarks: list[str] = []
    libraries = {key: line for source in reversed(sources) for key, line in source.libraries.items()}
    declared = {key for source in sources for key in source.declared}
    environment = {key: value for source in reversed(sources) for key, value in source.environment.items()}
    build = BuildFile(
        base_comfy_version=ref or _version(sources, remarks) or None,
        packs=tuple(found.pack for found in _packs(sources, remarks)),
        models=tuple(_models(sources, remarks)),
        pip_dependencies=next((source.pip for source in sources if source.pip), "")
        or pip_text(libraries, declared, remarks),
        environment=environment,
        name=name,
    )
    return build, remarks


def onto(
    existing: BuildFile, build: BuildFile, *, ref: str | None, is_of_install: bool, wished: Collection[str] = ()
) -> tuple[BuildFile, list[str]]:
    """An existing build with what the sources have; what only the existing one has is kept, and told.

    Args:
        is_of_install: whether the version of `build` is one that was run; else a newer one of the file stays.
        wished: the names of packs that only a workflow names: it is told what the file has, and changes nothing of it.
    """
    remarks = []
    packs = {_key(pack): pack for pack in existing.packs}
    keys = {known: key for key, pack in packs.items() for known in _known(pack)}
    for pack in build.packs:
        key = next((keys[known] for known in _known(pack) if known in keys), None)
        if key is None:
            packs[_key(pack)] = pack
        elif pack.name in wished:
            if _differ(packs[key], pack):
                remarks.append(f"{packs[key].name}: a workflow has {in_words(pack)}; {in_words(packs[key])} is kept")
        else:  # it keeps its folder: the rest of the file may speak of it
            packs[key] = replace(pack, name=packs[key].name, id=pack.id or packs[key].id)
    told = {known for pack in build.packs for known in _known(pack)}
    kept = [pack.name for pack in existing.packs if not told & set(_known(pack))]
    if kept:
        remarks.append(f"kept as they are, and not in what was read now: {counted_names(kept)}")
    models = {model.path: model for model in existing.models}
    for model in build.models:
        models[model.path] = _joined(models[model.path], model, remarks) if model.path in models else model
    pip = build.pip_dependencies
    if not is_evidence(existing.pip_dependencies) or not pip:
        pip = existing.pip_dependencies
        if build.pip_dependencies:
            remarks.append("pipDependencies is kept as it is: it has lines of your own")
    there, wanted = existing.base_comfy_version, build.base_comfy_version
    version = ref or (wanted if is_of_install or there is None or wanted is None else newer(there, wanted)) or there
    return replace(
        existing,
        base_comfy_version=version,
        packs=tuple(packs.values()),
        models=tuple(models.values()),
        pip_dependencies=pip,
        environment={**existing.environment, **build.environment},
    ), remarks


def changes(old: BuildFile, new: BuildFile) -> list[Change]:
    """What is another thing in the new build, in the order of the file."""
    found = []
    if old.base_comfy_version != new.base_comfy_version:
        found.append(_change("key", "baseComfyVersion", old.base_comfy_version, new.base_comfy_version))
    before, after = _entries_in_words(old), _entries_in_words(new)
    found += [
        _change(kind, name, before.get((kind, name)), after.get((kind, name)))
        for kind, name in sorted({*before, *after})
        if before.get((kind, name)) != after.get((kind, name))
    ]
    if old.pip_dependencies != new.pip_dependencies:
        count = new.pip_dependencies.count("\n")
        found.append(_change("key", "pipDependencies", old.pip_dependencies or None, f"{count} lines"))
    return found


def in_words(pack: Pack) -> str:
    """Where a pack is from, for people."""
    if pack.source == "registry":
        return f"{pack.id} {pack.registry_version} of the registry"
    if pack.source == "git":
        return f"{pack.repository} at {(pack.git_ref or 'its default branch')[:40]}"
    return "of this machine" if pack.source == "local" else "of Comfy's store"


def _change(kind: str, name: str, before: str | None, after: str | None) -> Change:
    what = "added" if before is None else "removed" if after is None else "changed"
    return Change(kind, name, what, after or "")


def _entries_in_words(build: BuildFile) -> dict[tuple[str, str], str]:
    """Packs and models, by kind and name."""
    packs = {("pack", pack.name): in_words(pack) for pack in build.packs}
    models = {
        ("model", model.path): f"{model.source_uri or _ELSEWHERE[model.source]}, SHA-256 {(model.sha256 or '?')[:12]}"
        for model in build.models
    }
    return {**packs, **models}


def _version(sources: Sequence[Found], remarks: list[str]) -> str:
    by_worth = sorted(sources, key=lambda source: not source.is_of_install)
    versions = [(source.version, source.source) for source in by_worth if source.version]
    if not versions:
        return ""
    first, said_by = versions[0]
    for version, source in versions[1:]:
        if newer(first, version) != first:
            remarks.append(f"{source} was made with ComfyUI {version}, and {said_by} has {first}")
    return first


def _packs(sources: Sequence[Found], remarks: list[str]) -> Iterator[FoundPack]:
    taken: list[tuple[FoundPack, Found]] = []
    for source in sources:
        for found in source.packs:
            others = ((one, by) for one, by in taken if by is not source and one.names & found.names)
            twin = next(others, None)
            if twin is None:
                taken.append((found, source))
                yield found
            elif _differ(twin[0].pack, found.pack):
                remarks.append(
                    f"{found.pack.name}: {source.source} has {in_words(found.pack)}; {in_words(twin[0].pack)} is taken"
                )


def _differ(taken: Pack, other: Pack) -> bool:
    if "latest" in (taken.registry_version, other.registry_version):
        return False
    return (taken.registry_version, taken.git_ref) != (other.registry_version, other.git_ref)


def _models(sources: Sequence[Found], remarks: list[str]) -> Iterator[Model]:
    models: dict[str, Model] = {}
    for source in sources:
        for model in source.models:
            there = models.get(model.path)
            models[model.path] = model if there is None else _joined(there, model, remarks)
    yield from models.values()


def _joined(first: Model, second: Model, remarks: list[str]) -> Model:
    """One model of two sources. An address is worth more than a file of this machine: everybody has it."""
    address = first.source_uri or second.source_uri
    hashes = [sha256 for sha256 in (second.sha256, first.sha256) if sha256]
    if len(set(hashes)) > 1:
        remarks.append(
            f"models/{first.path}: two contents have this name (SHA-256 {hashes[0][:12]}… and {hashes[1][:12]}…): "
            f"the file with {hashes[0][:12]}… is taken"
        )
        return second
    return replace(
        first,
        source_uri=address,
        sha256=hashes[0] if hashes else None,
        size_bytes=second.size_bytes if second.size_bytes is not None else first.size_bytes,
        local_path=None if address else second.local_path or first.local_path,
        blob_id=first.blob_id or second.blob_id,
    )


def _key(pack: Pack) -> str:
    return pack.name.lower()


def _known(pack: Pack) -> list[str]:
    """What a pack is known by: an entry of the file and a pack of a source that share some of it are one."""
    claims = [f"name {pack.name.lower()}"]
    claims += [f"id {pack.id.lower()}"] if pack.id else []
    if pack.repository:
        address = pack.repository.lower().removesuffix(".git")
        claims += [f"repository {address}", f"name {address.rpartition('/')[2]}"]
    if pack.id:  # the registry's ids are mostly the names of repositories
        claims.append(f"name {pack.id.lower()}")
    return claims
