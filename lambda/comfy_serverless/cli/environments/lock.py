"""`comfy-serverless env lock`: what the build file asks for becomes what that is, to the byte."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comfy_serverless.cli.environments.lock_paths import ARCHIVES, add_files, read_build, read_lock, write_atomically
from comfy_serverless.cli.habits import FAILED, add_command, counted, print_json, report, say, size_in_words
from comfy_serverless.cli.paths import is_folder, local_path
from comfy_serverless.errors import InvalidLock, NotLocked

if TYPE_CHECKING:
    from comfy_serverless.environments.build_file import BuildFile
    from comfy_serverless.environments.lock_file import Lock
    from comfy_serverless.environments.locking.base import Base
    from comfy_serverless.environments.locking.lock import Locker
    from comfy_serverless.environments.locking.more_requirements import MoreRequirements
    from comfy_serverless.environments.locking.pack_sources import FetchedPack
    from comfy_serverless.environments.locking.resolver import Resolver

_REQUIREMENTS: Final = Path("requirements")


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env lock`."""
    parser = add_command(
        actions,
        "lock",
        summary="resolve the build file once: every ref to a commit, every archive and library to a hash",
        examples=(
            "comfy-serverless env lock",
            "comfy-serverless env lock --upgrade",
            "comfy-serverless env lock --upgrade numpy rgthree-comfy",
            "comfy-serverless env lock --check",
            "comfy-serverless env lock --comfyui ~/ComfyUI --vendor",
        ),
        notes=(
            "What the lock pins is kept as long as nothing speaks against it; --upgrade lets it move.\n"
            "An index of your own: UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS, or pip's variables. It is never written\n"
            "into the lock.\n"
            "Libraries that packs need and do not declare are lines of more-requirements.txt, beside the build file:\n"
            "pipDependencies replaces what is asked for, and adds nothing."
        ),
        exit_codes="exit codes: 0 done, 1 failed, or --check finds the lock stale, 2 wrong usage, 130 interrupted",
    )
    add_files(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="only say whether the lock is of the build file; asks nobody"
    )
    what.add_argument(
        "--upgrade", nargs="*", metavar="NAME",
        help="choose anew: these libraries and packs (ComfyUI: its branch), or everything",
    )  # fmt: skip
    parser.add_argument(
        "--vendor",
        action="store_true",
        help=f"keep the archive of every pack in {ARCHIVES}/ beside the lock, so that a build asks no host",
    )
    parser.add_argument(
        "--comfyui", type=local_path, default=os.environ.get("COMFYUI_DIR") or None, metavar="DIR",
        help="a ComfyUI on this machine: read instead of its repository, and where local packs are",
    )  # fmt: skip
    parser.add_argument(
        "--comfyui-repository", metavar="URL", help="another repository of ComfyUI (COMFYUI_REPOSITORY)"
    )
    parser.add_argument("--registry", metavar="URL", help="another Comfy Registry (COMFY_REGISTRY_URL)")
    parser.add_argument(
        "--requirements", type=local_path, default=_REQUIREMENTS, metavar="DIR",
        help="the folder with torch.in and apt.txt: what the image has (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from comfy_serverless.environments.locking.base import Base
    from comfy_serverless.environments.locking.lock import ref_of
    from comfy_serverless.environments.locking.more_requirements import MoreRequirements

    build = read_build(options.file)
    if not options.check:
        ref_of(build)  # what is wrong with the file itself comes first
    base = Base.read(options.requirements)
    if options.comfyui is not None and not is_folder(options.comfyui):
        raise NotLocked(f"{options.comfyui} (--comfyui, or COMFYUI_DIR) is no folder: name that of a ComfyUI.")
    more = MoreRequirements.read(options.file.parent)
    if options.check:
        return _check(options, build, base, more)
    known = _known(options.lock)
    _check_names(options.upgrade, known)
    lock, text, is_new = _locked(options, build, base, more, known)
    if options.json:
        print_json(_summary(options.lock, lock, text, is_new))
    else:
        _tell(options.lock, lock, text, known, is_new)
    return 0


def _check(options: argparse.Namespace, build: BuildFile, base: Base, more: MoreRequirements) -> int:
    """Say whether the lock is of the build file. Returns the exit code."""
    from comfy_serverless.environments.locking.lock import staleness

    lock, text = read_lock(options.lock)
    reasons = [*staleness(build, lock, base, more), *_changed_local(options, build, lock)]
    if reasons:
        message = (
            f"{options.lock} is not of {options.file} any more: {'; '.join(reasons)}. Run comfy-serverless env lock."
        )
        report("lock_stale", message, {"reasons": reasons}, as_json=options.json)
        return FAILED
    if options.json:
        print_json(_summary(options.lock, lock, text, False))
    else:
        say(f"{options.lock} is of {options.file}.")
    return 0


def _locked(
    options: argparse.Namespace, build: BuildFile, base: Base, more: MoreRequirements, known: Lock | None
) -> tuple[Lock, str, bool]:
    """The lock, its text, and whether it was written anew."""
    from comfy_serverless.cli.progress_line import ProgressLine
    from comfy_serverless.environments.locking.lock import staleness, upgrade_of

    with tempfile.TemporaryDirectory(prefix="comfy-lock-") as scratch:
        is_fresh = known is not None and not staleness(build, known, base, more) and options.upgrade is None
        if known is not None and is_fresh and not options.vendor and _keep_local(options, build, known, Path(scratch)):
            return known, known.to_text(), False
        with ProgressLine("lock") as line:
            locker = _locker(options, base, Path(scratch), line.show)
            locked = locker.lock(build, known, upgrade_of(options.upgrade), more=more)
        _keep_archives(options, locked.packs)
        text = locked.lock.to_text()
        is_new = known is None or known.to_text() != text
        if is_new:
            write_atomically(options.lock, text.encode("utf-8"))
        return locked.lock, text, is_new


def _locker(options: argparse.Namespace, base: Base, scratch: Path, tell: Callable[[float, str], None]) -> Locker:
    from comfy_serverless.environments.locking import comfyui_source, git, registry
    from comfy_serverless.environments.locking.lock import Locker
    from comfy_serverless.environments.locking.pack_sources import Sources

    repository = options.comfyui_repository or os.environ.get(comfyui_source.VARIABLE) or comfyui_source.REPOSITORY
    try:
        git.check_address(repository)
    except git.GitFailed as error:
        raise NotLocked(f"The address of ComfyUI's repository ({comfyui_source.VARIABLE}) {error}.") from error
    address = options.registry or os.environ.get(registry.VARIABLE) or registry.DEFAULT_URL
    return Locker(
        comfyui=comfyui_source.ComfyUISource(repository, options.comfyui),
        sources=Sources(registry.Registry(address), _custom_nodes(options), scratch),
        base=base,
        resolver=_resolver(),
        tell=tell,
    )


def _resolver() -> Resolver:
    from comfy_serverless.environments.locking.pip import Pip
    from comfy_serverless.environments.locking.uv import Uv

    return Uv.found() or Pip.found()


def _custom_nodes(options: argparse.Namespace) -> tuple[Path, ...]:
    """Where local packs may be: in the ComfyUI of this machine, in the one beside the build file."""
    folders = [options.comfyui] if options.comfyui is not None else []
    return tuple(
        folder / "custom_nodes" for folder in [*folders, options.file.parent] if (folder / "custom_nodes").is_dir()
    )


def _known(path: Path) -> Lock | None:
    """The lock at hand; None where there is none, or one that nothing can be kept of."""
    try:
        return read_lock(path)[0] if path.exists() else None
    except InvalidLock as error:
        say(f"warning: {error.message.partition(' Make it anew')[0]} It is made anew, and none of its pins is kept.")
        return None


def _check_names(names: Sequence[str] | None, lock: Lock | None) -> None:
    """Refuse names to upgrade that the lock does not have. Raises NotLocked."""
    from comfy_serverless.environments.locking.requirement_lines import normalized
    from comfy_serverless.graph.near import Guesses

    known = {"ComfyUI"}
    if lock is not None:
        known |= {each.name for each in (*lock.requirements, *lock.build_requirements)}
        known |= {name for pack in lock.packs for name in (pack.name, pack.id) if name}
    unknown = [name for name in names or () if normalized(name) not in set(map(normalized, known))]
    if unknown:
        near = Guesses().near(unknown[0], sorted(known))
        hint = f" Did you mean {near[0]}?" if near else ""
        raise NotLocked(f"There is nothing of the name {', '.join(unknown)} in the lock that could be upgraded.{hint}")


def _changed_local(options: argparse.Namespace, build: BuildFile, lock: Lock) -> list[str]:
    """The local packs whose files have changed since they were locked; those that are not here are not looked at."""
    with tempfile.TemporaryDirectory() as scratch:
        return [
            f"the files of the local pack {name} have changed"
            for name in _local(options, build, lock, Path(scratch))[1]
        ]


def _keep_local(options: argparse.Namespace, build: BuildFile, lock: Lock, scratch: Path) -> bool:
    """Keep the archives of local packs that are here. Returns whether they are as they were."""
    same, changed = _local(options, build, lock, scratch)
    if not changed:
        _keep_archives(options, same)
    return not changed


def _local(
    options: argparse.Namespace, build: BuildFile, lock: Lock, scratch: Path
) -> tuple[list[FetchedPack], list[str]]:
    from comfy_serverless.environments.locking.pack_sources import Sources
    from comfy_serverless.environments.locking.registry import Registry

    sources = Sources(Registry(), _custom_nodes(options), scratch)
    locked = {pack.name: pack.sha256 for pack in lock.packs}
    here = [pack for pack in build.packs if pack.local_path is not None and sources.local_folder(pack.local_path)]
    fetched = [sources.fetch(pack) for pack in here]
    changed = [pack.locked.name for pack in fetched if locked.get(pack.locked.name) != pack.locked.sha256]
    return [pack for pack in fetched if pack.locked.name not in changed], changed


def _keep_archives(options: argparse.Namespace, packs: Iterable[FetchedPack]) -> None:
    """Keep the archives that a build cannot fetch, or shall not: by their hash, beside the lock."""
    folder = options.lock.parent / ARCHIVES
    for pack in packs:
        kept = folder / f"{pack.locked.sha256}.zip"
        if (pack.locked.source == "local" or options.vendor) and not kept.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                part = kept.with_suffix(f".{os.getpid()}.part")
                shutil.copyfile(pack.archive, part)
                part.replace(kept)
            except OSError as error:
                raise NotLocked(f"{kept} cannot be written: {error.strerror}.") from error


def _summary(path: Path, lock: Lock, text: str, is_new: bool) -> dict[str, object]:
    from comfy_serverless.environments.differences import pack_version, sizes
    from comfy_serverless.environments.lock_file import release_version

    weight = sizes(lock)
    return {
        "lock": str(path),
        "changed": is_new,
        "release_version": release_version(text),
        "comfyui": {"version": lock.comfyui.version, "ref": lock.comfyui.ref, "commit": lock.comfyui.commit},
        "packs": {pack.name: pack_version(pack) for pack in lock.packs},
        "libraries": len(lock.requirements),
        "built_from_sources": [each.name for each in lock.requirements if each.kind != "wheel"],
        "size_bytes": {"packs": weight.packs, "libraries": weight.libraries, "models": weight.models},
        "overrides": list(lock.overrides),
        "warnings": list(lock.warnings),
    }


def _tell(path: Path, lock: Lock, text: str, known: Lock | None, is_new: bool) -> None:
    from comfy_serverless.cli.environments.diff import lines_of
    from comfy_serverless.environments.differences import compare, sizes
    from comfy_serverless.environments.lock_file import release_version

    for warning in lock.warnings:
        say(f"warning: {warning}")
    if known is not None and is_new:
        print("\n".join(lines_of(compare(known, lock))))
    weight = sizes(lock)
    print(
        f"{path}: ComfyUI {lock.comfyui.version}, {counted(len(lock.packs), 'pack')} ({size_in_words(weight.packs)}), "
        f"{len(lock.requirements):,} libraries ({size_in_words(weight.libraries)} to fetch), "
        f"release {release_version(text)}" + ("" if is_new else "; nothing has changed")
    )
