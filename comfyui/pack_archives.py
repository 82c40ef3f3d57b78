"""A pack of custom nodes, from where the lock says that it is into its folder. In the build: standard library only.

Nothing is taken that is not what was locked: an archive has its size and its SHA-256, a repository its commit. Archives
that lie in `comfyui/archives/{sha256}.zip` are taken from there, so that a build needs no host of packs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lock_reading import COMMIT, LOCK_ANEW, PACK, SHA256, URL, NotBuilt, checked, normal, without_secrets

from comfy_serverless.environments import archives, git_program, tree_zip

#: Where all of ComfyUI is put that one wants to build in place of the lock's; then its own packs stay.
IS_CHECKOUT: Final = "main.py"
_CHUNK_BYTES: Final = 1 << 20
_TRIES: Final = 4
_TIMEOUT_S: Final = 60.0
_GIT_TIMEOUT_S: Final = 900.0


def install_packs(lock: Mapping[str, Any], ours: Path, checkout: Path, folder: Path) -> list[str]:
    """Put every pack of the lock into its folder. Returns their names.

    Args:
        ours: the folder `comfyui` of the repository: archives, and perhaps packs that somebody has put there.
        checkout: ComfyUI's own `custom_nodes`, whose names a pack cannot have.
        folder: where the packs go.

    Raises:
        NotBuilt: one cannot be had, or is not what the lock says, or lies in `ours` and not in the lock.
    """
    packs = list(lock.get("packs") or ())
    names = [checked(PACK, pack.get("name"), "the name of a pack") for pack in packs]
    _refuse_names(names, checkout)
    _refuse_unlocked(names, ours)
    folder.mkdir(parents=True, exist_ok=True)
    for pack in packs:
        name, place = str(pack["name"]), folder / str(pack["name"])
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = ours / "archives" / f"{_sha256_of(pack)}.zip"
            if not archive.is_file():
                archive = _fetched(pack, Path(scratch))
            _check_archive(archive, pack)
            unpack(archive, place, name)
        _refuse_changed(place, ours / "custom_nodes" / name, name, pack)
        print(f"{name}: {pack.get('version') or pack.get('commit') or 'local'}", flush=True)
    return names


def unpack(archive: Path, place: Path, name: str) -> None:
    """Unpack a pack's archive as `place`: a folder, or a file if the pack is a single file of this name.

    Raises:
        NotBuilt: it is no archive, or has something that would be written elsewhere or twice, or too much.
    """
    scratch = place.with_name(f".{name}.unpacked")
    scratch.mkdir()
    try:
        found = archives.unpack(archive, scratch)
    except archives.BadArchive as error:
        raise NotBuilt(f"the archive of the pack {name} {error}") from error
    is_single = name.endswith(".py") and [path.name for path in found.iterdir()] == [name]
    (found / name if is_single else found).rename(place)
    shutil.rmtree(scratch, ignore_errors=True)


def _fetched(pack: Mapping[str, Any], scratch: Path) -> Path:
    """The archive of a pack from where the lock says that it is."""
    name, source, url = str(pack["name"]), pack.get("source"), pack.get("url")
    target = scratch / "pack.zip"
    if source == "git":
        commit = checked(COMMIT, pack.get("commit"), f"the commit of the pack {name}")
        repository = checked(URL, pack.get("repository"), f"the repository of the pack {name}")
        tree = scratch / "tree"
        fetch_commit(repository, commit, tree, f"the pack {name}", expected=commit)
        _zip_tree(tree, target, name)
    elif source == "registry":
        _download(checked(URL, url, f"the address of the pack {name}"), target, pack)
    else:
        raise NotBuilt(
            f"the pack {name} is a local one, and comfyui/archives/{_sha256_of(pack)}.zip, which `comfy-serverless env "
            f"lock` makes of it, is missing. Run that again where the pack is, or copy the folder comfyui/archives here"
        )
    return target


def _zip_tree(tree: Path, target: Path, name: str) -> None:
    """The ZIP that the lock's hash is of: what made the lock writes it, too."""
    try:
        with target.open("xb") as writing:
            tree_zip.write(tree, writing)
    except tree_zip.NotATree as error:
        raise NotBuilt(f"the pack {name}: {error}") from error


def _download(url: str, target: Path, pack: Mapping[str, Any]) -> None:
    name, shown = str(pack["name"]), without_secrets(url)
    most = int(pack["size"]) if isinstance(pack.get("size"), int) else archives.MOST_PACKED_BYTES
    for attempt in range(1, _TRIES + 1):
        try:
            _read_into(url, target, most, name)
            break
        except (OSError, ValueError, EOFError) as error:
            is_final = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
            if is_final or attempt == _TRIES:
                raise NotBuilt(
                    f"the archive of the pack {name} cannot be fetched from {shown}: {error}. Where the pack is gone, "
                    "choose another version in comfyui/comfy-build.yaml and lock anew; where this machine does "
                    "not reach it, lock with --vendor on one that does, and copy comfyui/archives here"
                ) from error
            time.sleep(2.0 ** (attempt - 1))


def _read_into(url: str, target: Path, most: int, name: str) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, target.open("wb") as writing:
        while chunk := answer.read(_CHUNK_BYTES):
            if writing.tell() + len(chunk) > most:
                raise NotBuilt(
                    _other_content(name, without_secrets(url), f"more than the {most} bytes that were locked")
                )
            writing.write(chunk)


def _check_archive(archive: Path, pack: Mapping[str, Any]) -> None:
    digest, size = hashlib.sha256(), archive.stat().st_size
    with archive.open("rb") as reading:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
    found, name, expected = digest.hexdigest(), str(pack["name"]), _sha256_of(pack)
    if found != expected:
        where = (
            "comfyui/archives"
            if archive.stem == expected
            else without_secrets(str(pack.get("url") or pack.get("repository")))
        )
        raise NotBuilt(_other_content(name, where, f"the SHA-256 {found} ({size} bytes) in place of {expected}"))
    if isinstance(pack.get("size"), int) and size != pack["size"]:
        raise NotBuilt(f"comfyui/comfy-build.lock: {name} has {size} bytes, and not {pack['size']}. {LOCK_ANEW}")


def _other_content(name: str, where: str, what: str) -> str:
    return (
        f"the archive of the pack {name} in {where} is another than was locked: it has {what}. Do not build what "
        f"nobody has looked at: see what has changed, then lock anew (comfy-serverless env lock --upgrade {name})"
    )


def _sha256_of(pack: Mapping[str, Any]) -> str:
    return checked(SHA256, pack.get("sha256"), f"the SHA-256 of the pack {pack.get('name')}")


def _refuse_names(names: Sequence[str], checkout: Path) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name in (".", "..") or name.startswith(".") or name != name.strip() or normal(name) == "__pycache__":
            raise NotBuilt(
                f"comfyui/comfy-build.lock: {name!r} is no folder that ComfyUI would read as a pack. {LOCK_ANEW}"
            )
        if other := seen.get(name.casefold()):
            raise NotBuilt(f"two packs want the folder custom_nodes/{name}: {other} and {name}. Keep one of them")
        seen[name.casefold()] = name
    if own := [name for name in names if (checkout / name).exists()]:
        raise NotBuilt(
            f"custom_nodes/{own[0]} is ComfyUI's own: give the pack another name in comfyui/comfy-build.yaml"
        )


def _refuse_unlocked(names: Iterable[str], ours: Path) -> None:
    """Packs that were put into comfyui/custom_nodes, and that the lock does not know."""
    if (ours / IS_CHECKOUT).is_file() or not (ours / "custom_nodes").is_dir():
        return
    for entry in sorted((ours / "custom_nodes").iterdir()):
        is_pack = entry.is_dir() or entry.suffix == ".py"
        if is_pack and not entry.name.startswith((".", "__pycache__")) and entry.name not in names:
            raise NotBuilt(
                f"comfyui/custom_nodes/{entry.name} is not in the lock, so nobody knows what it needs. Name it below "
                f"`customNodes` in comfyui/comfy-build.yaml (`name: {entry.name}`, `source: local`, `localPath: "
                f"{entry.name}`) and run: comfy-serverless env lock. Or take it out of comfyui/custom_nodes"
            )


def _refuse_changed(place: Path, origin: Path, name: str, pack: Mapping[str, Any]) -> None:
    """A local pack that was changed where it lies since it was locked."""
    if pack.get("source") != "local" or not origin.exists():
        return
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    for path in files:
        source = origin if path == place else origin / path.relative_to(place)
        if not source.is_file() or source.read_bytes() != path.read_bytes():
            what = name if path == place else f"{name}/{path.relative_to(place)}"
            raise NotBuilt(
                f"the lock is stale: comfyui/custom_nodes/{what} has changed since. Lock it again: "
                "comfy-serverless env lock"
            )


def fetch_commit(repository: str, ref: str, folder: Path, what: str, *, expected: str) -> str:
    """The tree of a ref, without its history and without submodules. Git checks that a commit is its content."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = without_secrets(repository)

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                git_program.command(folder, git_program.EXACT, *arguments),
                env=git_program.environment(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=_GIT_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuilt(f"{what}: git cannot fetch {shown}: {error}") from error
        if done.returncode:
            said = (done.stderr.strip() or f"exit code {done.returncode}").replace(repository, shown)
            raise NotBuilt(f"{what}: {ref} of {shown} cannot be fetched: {said}")
        return done.stdout.strip()

    git("init", "-q")
    git("fetch", "-q", "--depth", "1", "--", repository, ref)
    found = git("rev-parse", "FETCH_HEAD^{commit}")
    if expected and found != expected:
        raise NotBuilt(f"{what}: {shown} gave the commit {found} in place of {expected}")
    git("checkout", "-q", "--force", "FETCH_HEAD")
    return found
