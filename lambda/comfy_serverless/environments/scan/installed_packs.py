"""Finds the packs of an install: where each is from, and why a folder that is no pack is left out. It runs none."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from comfy_serverless.environments import git_program
from comfy_serverless.environments.build_file import Pack, rules
from comfy_serverless.environments.scan.found import Found, FoundPack

_ENTRY_POINTS: Final = (b"NODE_CLASS_MAPPINGS", b"comfy_entrypoint")
_DISABLED: Final = ".disabled"
#: Comes with ComfyUI itself, also where git cannot say so.
_COMFYUIS_OWN: Final = frozenset({"websocket_image_save.py", "example_node.py"})
_MOST_PYTHON_FILES, _MOST_FILE_BYTES = 5_000, 5_000_000
_GIT_TIMEOUT_S: Final = 30.0
_FORGES: Final = ("github.com", "gitlab.com", "codeberg.org", "huggingface.co")
_SCP_LIKE = re.compile(r"(?:[\w.-]+@)?([\w.-]+):(?!//)(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkout:
    """What git says of a folder. `address` is "" where there is no remote, `commit` where there is no commit."""

    address: str
    commit: str
    tag: str
    is_changed: bool
    is_pushed: bool


def find_packs(custom_nodes: Path, found: Found) -> None:
    """Put what is below `custom_nodes/` into `found`."""
    seen: dict[str, str] = {}
    for path in _entries(custom_nodes, found):
        try:
            pack = _pack_in(path, found)
        except OSError as error:
            found.left_out.append(f"{path.name}: it cannot be read: {error.strerror}")
            continue
        if pack is None:
            continue
        claims = [f"name {pack.pack.name.lower()}"]
        claims += [f"id {pack.pack.id.lower()}"] if pack.pack.id else []
        claims += [f"repository {pack.pack.repository.lower()}"] if pack.pack.repository else []
        twin = next((seen[claim] for claim in claims if claim in seen), None)
        if twin is not None:
            found.left_out.append(f"{path.name}: it is the same pack as {twin}")
            continue
        seen |= dict.fromkeys(claims, path.name)
        found.add_pack(pack)


def git_facts(folder: Path) -> Checkout | None:
    """What git says of a folder that is a checkout itself; None for one that is none, or if git cannot be asked."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "--verify", "-q", "HEAD")
    if commit is None:
        return None
    remotes = (_git(folder, "remote") or "").split()
    remote = "origin" if "origin" in remotes or not remotes else remotes[0]
    address = _git(folder, "config", "--get", f"remote.{remote}.url") or ""
    tags = sorted((_git(folder, "tag", "--points-at", "HEAD") or "").split(), key=lambda tag: not tag.startswith("v"))
    changed = _git(
        folder, *_without_filters(folder), "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"
    )
    known_there = _git(folder, "branch", "-r", "--contains", "HEAD") or _git(folder, "tag", "--contains", "HEAD")
    return Checkout(address, commit, tags[0] if tags else "", bool(changed), bool(known_there))


def public_address(address: str) -> tuple[str, bool]:
    """An address that everybody can use, as far as it has one; and whether a name or a password was taken out of it."""
    scp = _SCP_LIKE.fullmatch(address)
    if scp is not None and scp[1] in _FORGES:
        return f"https://{scp[1]}/{scp[2].removesuffix('.git')}", False
    if address.partition("/")[0].lower() in _FORGES:  # snapshots of the Manager have them so
        address = f"https://{address}"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return address, False
    if parts.scheme == "ssh" and host in _FORGES:
        return f"https://{host}{parts.path.removesuffix('.git')}", False
    if parts.scheme in ("https", "http") and "@" in parts.netloc:
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), True
    return address, False


def requirements_in(folder: Path) -> list[str]:
    """The lines of a pack's requirements.txt, which is all that counts of what it declares."""
    try:
        text = (folder / "requirements.txt").read_bytes()[:_MOST_FILE_BYTES].decode("utf-8-sig", "replace")
    except OSError:
        return []
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _entries(custom_nodes: Path, found: Found) -> Iterator[Path]:
    """What may be a pack; what is switched off is told."""
    try:
        entries = sorted(custom_nodes.iterdir())
    except OSError as error:
        found.remarks.append(f"{custom_nodes} cannot be read: {error.strerror}; there are no packs of it")
        return
    switched_off = []
    for path in entries:
        if path.name == _DISABLED and path.is_dir():
            switched_off += [inner.name for inner in sorted(path.iterdir()) if inner.is_dir() or inner.suffix == ".py"]
        elif path.name.endswith(_DISABLED):
            switched_off.append(path.name.removesuffix(_DISABLED))
        elif not path.name.startswith(".") and path.name != "__pycache__":
            yield path
    found.left_out += [f"{name}: it is switched off in ComfyUI" for name in switched_off]


def _pack_in(path: Path, found: Found) -> FoundPack | None:
    if path.is_symlink() and not path.exists():
        found.left_out.append(f"{path.name}: it is a link to what is not there")
        return None
    if path.is_file():
        return _one_file(path, found)
    if not path.is_dir():
        return None
    if not (path / "__init__.py").is_file():
        inner = [one.name for one in sorted(path.iterdir()) if (one / "__init__.py").is_file()] if path.is_dir() else []
        hint = f"; {inner[0]} inside of it has one: move that up" if inner else ""
        found.left_out.append(f"{path.name}: it is no pack: it has no __init__.py{hint}")
        return None
    if not _has_entry_point(_python_files(path)):
        found.left_out.append(
            f"{path.name}: it is no pack: nothing in it declares NODE_CLASS_MAPPINGS or comfy_entrypoint"
        )
        return None
    return _folder(path, found)


def _one_file(path: Path, found: Found) -> FoundPack | None:
    if path.suffix != ".py" or path.name in _COMFYUIS_OWN:
        return None
    if not _has_entry_point([path]):
        found.left_out.append(
            f"{path.name}: it is no pack: it declares neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"
        )
        return None
    return FoundPack(Pack(name=path.name, local_path=path.name), frozenset({path.stem.lower()}))


def _folder(path: Path, found: Found) -> FoundPack:
    project, is_published = _project(path)
    name, version = project.get("name"), project.get("version")
    known_as = frozenset({name.lower()} if isinstance(name, str) and is_published else ())
    local = FoundPack(Pack(name=path.name, local_path=path.name), known_as)
    checkout = git_facts(path)
    if checkout is not None:
        return _of_git(path, checkout, local, found)
    if (path / ".git").exists():
        found.remarks.append(f"{path.name}: git cannot say which commit it is: it is taken as a folder of this machine")
        return local
    if not (is_published or (path / ".tracking").is_file()):
        return local
    if isinstance(name, str) and isinstance(version, str):
        pack = Pack(name=path.name, id=name.lower(), registry_version=version)
        if not (rules.registry_id(name) or rules.registry_version(version)):
            return FoundPack(pack, known_as)
    found.remarks.append(f"{path.name}: its pyproject.toml names no version: it is taken as a folder of this machine")
    return local


def _of_git(path: Path, checkout: Checkout, local: FoundPack, found: Found) -> FoundPack:
    address, had_secret = public_address(checkout.address)
    if had_secret:
        found.remarks.append(f"{path.name}: the name or password in its remote's address is not taken over")
    if not address or rules.repository(address):
        why = f"its remote {address!r} is not one that others reach" if address else "it has no remote"
        found.remarks.append(f"{path.name}: {why}: it is taken as a folder of this machine")
        return local
    if checkout.is_changed:
        found.remarks.append(f"{path.name}: it has changes that are not committed, and they are not taken")
    if not checkout.is_pushed:
        found.remarks.append(
            f"{path.name}: its commit {checkout.commit[:12]} is on no branch of {address}: push it first"
        )
    return FoundPack(Pack(name=path.name, repository=address, git_ref=checkout.commit), local.known_as)


def _project(folder: Path) -> tuple[dict[str, Any], bool]:
    """`[project]` of a pack, and whether it says who publishes it in the registry."""
    try:
        with (folder / "pyproject.toml").open("rb") as file:
            found = tomllib.loads(file.read(_MOST_FILE_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # there is none, or it is no TOML
        return {}, False
    project, tool = found.get("project"), found.get("tool")
    published = isinstance(tool, dict) and isinstance(tool.get("comfy"), dict)
    return project if isinstance(project, dict) else {}, published


def _python_files(folder: Path) -> Iterator[Path]:
    """The files of Python in a pack, its `__init__.py` first."""
    yield folder / "__init__.py"
    for number, path in enumerate(folder.rglob("*.py")):
        if number >= _MOST_PYTHON_FILES:
            return
        yield path


def _has_entry_point(files: Iterable[Path]) -> bool:
    for path in files:
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_FILE_BYTES)
        except OSError:
            continue
        if any(word in content for word in _ENTRY_POINTS):
            return True
    return False


def _without_filters(folder: Path) -> Iterator[str]:
    """Settings that take a checkout's own filters away: whoever made it may have put any program there."""
    said = _git(folder, "config", "--show-scope", "--name-only", "--get-regexp", r"^filter\..*\.(clean|process)$")
    for line in (said or "").splitlines():
        scope, _, name = line.partition("\t")
        if scope in ("local", "worktree"):
            yield from ("-c", f"{name}=", "-c", f"{name.rpartition('.')[0]}.required=false")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails, or is not there. The folder's own settings start no program."""
    try:
        done = subprocess.run(
            git_program.command(folder, git_program.HARMLESS, *arguments),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_TIMEOUT_S,
            check=False,
            env=git_program.environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
