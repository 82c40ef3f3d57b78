"""Makes of comfy-build.lock what the image is built from. Runs in the build: standard library only.

    python from_lock.py libraries LOCK REQUIREMENTS OUT            lists for pip and apt: see `write_lists`
    python from_lock.py comfyui LOCK OURS FOLDER [REPOSITORY] [REF]    ComfyUI at the lock's commit, or at another ref
    python from_lock.py packs LOCK OURS CHECKOUT FOLDER            its packs, each in its folder

Nothing is taken that is not what the lock says: an archive has its size and its SHA-256, a repository its commit.
Archives that lie in `comfyui/archives/{sha256}.zip` are taken from there, so that a build needs no host of packs.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from lock_reading import APT, COMMIT, HASH, LOCK_ANEW, NAME, URL, VERSION, NotBuilt, checked, normal, read_lock
from pack_archives import IS_CHECKOUT, fetch_commit, install_packs

#: What ComfyUI in the image is, and from where: JSON, in its folder.
SOURCE: Final = "comfyui-source.json"
#: Files of the folder `comfyui` that only the build needs.
_FOR_THE_BUILD: Final = frozenset(
    {"README.md", "archives", "from_lock.py", "lock_reading.py", "pack_archives.py", "comfy_serverless", "__pycache__"}
    | {"more-requirements.txt"}
)
_NOT_SHIPPED: Final = (".git", ".github", ".ci", "tests", "tests-unit", *("input", "output", "temp", "user"))
_EMPTY: Final = ("input", "web", "custom_nodes")
_ENTRY: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==|@)")
#: Who asks for a library that is installed in the layer that changes when ComfyUI or torch does.
_BASE: Final = frozenset({"comfyui", "torch", "torchvision", "torchaudio"})


def write_lists(lock: Mapping[str, Any], requirements: Path, out: Path) -> None:
    """Write what is installed, a list for each layer.

        core.txt              wheels that ComfyUI and torch need, with hashes
        packs.txt             wheels that only packs need, with hashes
        sources.txt, git.txt  libraries that come as sources, with hashes, and of repositories, with commits
        builders.txt          what builds those
        torch-cpu.txt, torch-cuda.txt   as they are in `requirements`, without what the lock has itself
        apt.txt               packages of Debian

    Raises:
        NotBuilt: an entry is none that pip could be given.
    """
    entries = _entries(lock, "requirements")
    core = _core(entries)
    locked = {normal(entry["name"]) for entry in entries}
    lists: dict[str, list[str]] = {name: [] for name in ("core", "packs", "sources", "git")}
    for entry in entries:
        layer = "core" if normal(entry["name"]) in core else "packs"
        lists[_list_of(entry, layer)].append(_line(entry))
    lists["builders"] = [_line(entry) for entry in _entries(lock, "build_requirements")]
    for build in ("torch-cpu", "torch-cuda"):
        text = (requirements / f"{build}.txt").read_text(encoding="utf-8")
        lists[build] = [line for line in _joined(text) if _entry_name(line) not in locked]
    lists["apt"] = [checked(APT, name, "a package of Debian") for name in lock.get("apt", ())]
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (out / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _entries(lock: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in lock.get(key) or ():
        name = normal(checked(NAME, entry.get("name"), f"the name of a library in {key}"))
        if name in found:
            raise NotBuilt(f"comfyui/comfy-build.lock has the library {name} twice in {key}. {LOCK_ANEW}")
        found[name] = entry
    return [found[name] for name in sorted(found)]


def _core(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """The libraries that ComfyUI, torch, or a library of theirs asks for: they change when ComfyUI does."""
    asked = {normal(entry["name"]): {_asker(text) for text in entry.get("declared_by") or ()} for entry in entries}
    core = set(_BASE)
    while more := {name for name, askers in asked.items() if name not in core and (not askers or askers & core)}:
        core |= more
    return core & asked.keys()


def _asker(declared_by: str) -> str:
    """`scipy` of `scipy 1.16.0: numpy>=1.25.2`; of a pack nothing that is a library: its name may be a library's."""
    who = declared_by.partition(":")[0].strip()
    if who == "ComfyUI":
        return "comfyui"
    name, _, version = who.partition(" ")
    is_library = bool(version and VERSION.fullmatch(version)) or name in _BASE
    return normal(name) if is_library else f"pack {who}"


def _list_of(entry: Mapping[str, Any], layer: str) -> str:
    kind, url = entry.get("kind"), str(entry.get("url") or "")
    if kind == "wheel" or (kind == "url" and urlsplit(url).path.endswith(".whl")):
        return layer
    if kind in ("sdist", "url"):
        return "sources"
    if kind == "git":
        return "git"
    raise NotBuilt(f"comfyui/comfy-build.lock: {entry['name']} is of the kind {kind!r}, which is none. {LOCK_ANEW}")


def _line(entry: Mapping[str, Any]) -> str:
    """The line for pip, which takes nothing without a hash but a commit."""
    name, url = entry["name"], entry.get("url")
    hashes = [checked(HASH, digest, f"a hash of {name}") for digest in entry.get("hashes") or ()]
    if entry.get("kind") == "git":
        address = checked(URL, url, f"the repository of {name}")
        if not re.search(r"@[0-9a-f]{40}(?:#\S*)?$", address):
            raise NotBuilt(f"comfyui/comfy-build.lock: {name} is of a repository, without its commit. {LOCK_ANEW}")
        return f"{name} @ {address}"
    if not hashes:
        raise NotBuilt(f"comfyui/comfy-build.lock: {name} has no hash, so anything could be installed. {LOCK_ANEW}")
    what = (
        f"{name} @ {checked(URL, url, f'the address of {name}')}"
        if entry.get("kind") == "url"
        else f"{name}=={checked(VERSION, entry.get('version'), f'the version of {name}')}"
    )
    return " ".join([what, *(f"--hash={digest}" for digest in sorted(hashes))])


def _joined(requirements: str) -> Iterator[str]:
    """The requirements of a file, each on one line, without comments."""
    text = re.sub(r"^ *#.*\n", "", requirements, flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            yield re.sub(r"\s+", " ", line.strip())


def _entry_name(line: str) -> str:
    found = _ENTRY.match(line)
    return normal(found[1]) if found else ""


def make_comfyui(lock: Mapping[str, Any], ours: Path, folder: Path, *, repository: str = "", ref: str = "") -> None:
    """Put ComfyUI into a folder, with the files of ours over it, and without what no worker needs.

    What it is, stands in its file `SOURCE`: of the lock, of another ref, or a checkout that lies in `ours` as a whole.

    Args:
        ours: the folder `comfyui` of the repository.
        repository: in place of the lock's, e.g. a mirror of it.
        ref: a tag, a branch or a commit in place of the lock's commit.

    Raises:
        NotBuilt: it cannot be had, or is another commit than the lock says.
    """
    pinned = lock.get("comfyui") or {}
    commit = checked(COMMIT, pinned.get("commit"), "the commit of ComfyUI")
    is_checkout = (ours / IS_CHECKOUT).is_file()
    folder.mkdir(parents=True, exist_ok=True)
    if is_checkout:
        source = {"from": "checkout", "commit": ""}
    else:
        address = repository or checked(URL, pinned.get("repository"), "the repository of ComfyUI")
        found = fetch_commit(address, ref or commit, folder, "ComfyUI", expected="" if ref else commit)
        source = {"from": "ref" if ref else "lock", "commit": found}
    locked = {str(pack.get("name")) for pack in lock.get("packs") or ()}
    for entry in sorted(ours.iterdir()):
        if entry.name.startswith(".") or entry.name in _FOR_THE_BUILD or entry.name.startswith("comfy-build."):
            continue
        if entry.name == "custom_nodes":
            if is_checkout:  # its own packs stay; those of the lock come from their archives
                _copy(entry, folder / entry.name, without=locked)
        else:
            _copy(entry, folder / entry.name)
    for name in _NOT_SHIPPED:
        _remove(folder / name)
    for name in _EMPTY:
        (folder / name).mkdir(exist_ok=True)
    (folder / SOURCE).write_text(json.dumps(source, sort_keys=True) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path, *, without: Container[str] = ()) -> None:
    if not source.is_dir():
        shutil.copy2(source, target)
        return
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.name not in without:
            _copy(entry, target / entry.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _libraries(lock: str, requirements: str, out: str) -> None:
    write_lists(read_lock(Path(lock)), Path(requirements), Path(out))


def _comfyui(lock: str, ours: str, folder: str, repository: str = "", ref: str = "") -> None:
    make_comfyui(read_lock(Path(lock)), Path(ours), Path(folder), repository=repository, ref=ref)


def _packs(lock: str, ours: str, checkout: str, folder: str) -> None:
    install_packs(read_lock(Path(lock)), Path(ours), Path(checkout), Path(folder))


def main(arguments: Sequence[str]) -> int:
    """Do one of the three; returns the exit code."""
    actions: dict[str, Callable[..., None]] = {"libraries": _libraries, "comfyui": _comfyui, "packs": _packs}
    if not arguments or arguments[0] not in actions:
        _usage()
    try:
        actions[arguments[0]](*arguments[1:])
    except NotBuilt as error:
        print(f"\nThe image cannot be built: {error}.\n", file=sys.stderr)
        return 1
    return 0


def _usage() -> NoReturn:
    print(__doc__, file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
