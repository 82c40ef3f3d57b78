"""Reads a ComfyUI folder of this machine: its version, packs, models and libraries. It starts nothing of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comfy_serverless.environments.further_folders import FurtherFolder, further_folders
from comfy_serverless.environments.model_hashes import HashCache, hash_files
from comfy_serverless.environments.scan import installed_libraries as libraries
from comfy_serverless.environments.scan import undeclared
from comfy_serverless.environments.scan.found import Found, counted_names
from comfy_serverless.environments.scan.installed_models import ModelFiles, find_models
from comfy_serverless.environments.scan.installed_packs import (
    Checkout,
    find_packs,
    git_facts,
    public_address,
    requirements_in,
)
from comfy_serverless.environments.scan.model_notes import address_beside
from comfy_serverless.errors import InvalidBuildFile

_VERSION = re.compile(r"""^(?:__)?version(?:__)?\s*=\s*["'](\d+(?:\.\d+)+)["']""", re.MULTILINE)
_UPSTREAM: Final = re.compile(r"(?:^|[/:])(?:comfyanonymous|comfy-org)/comfyui(?:\.git)?/?$", re.IGNORECASE)
_MOST_BYTES: Final = 1_000_000

#: Shows how far hashing is: bytes done, and bytes in all.
Show = Callable[[int, int], None]


def comfyui_folder(folder: Path) -> Path | None:
    """The folder of an install in a folder: itself, or `ComfyUI` inside of it (the portable one). None if none is."""
    for candidate in (folder, folder / "ComfyUI"):
        if (candidate / "custom_nodes").is_dir() or all(
            (candidate / name).exists() for name in ("main.py", "nodes.py")
        ):
            return candidate
    return None


def scan(folder: Path, cache: HashCache, *, python: Path | None, with_models: bool, show: Show) -> Found:
    """All that an install has.

    Args:
        folder: `comfyui_folder` of it.
        python: of the install, where it is not in one of the usual places.
        with_models: whether its models are taken; they are hashed.
        show: called while models are hashed, with the bytes that are done, and those of all that have to be.

    Raises InvalidBuildFile if there is nothing to be read.
    """
    found = Found(str(folder))
    _find_version(folder, found)
    find_packs(folder / "custom_nodes", found)
    if with_models:
        _find_models(folder, found, cache, show)
    for pack in found.packs:
        found.declared |= libraries.names_in(requirements_in(folder / "custom_nodes" / pack.pack.name))
    packages = libraries.packages_of(folder, python)
    if packages is not None:
        found.libraries = libraries.installed(packages)
        found.environment = libraries.python_of(packages)
        coming = found.declared | libraries.names_in(requirements_in(folder))
        places = [folder / "custom_nodes" / pack.pack.name for pack in found.packs]
        found.remarks += undeclared.remarks(places, coming, packages)
    elif python is not None:
        raise InvalidBuildFile(f"--python {python} has no site-packages: name the Python that ComfyUI runs with.")
    else:
        found.remarks.append(
            "the Python of the install was not found: its libraries are not listed (--python names it)"
        )
    return found


def _find_version(folder: Path, found: Found) -> None:
    told = _told_version(folder)
    checkout = git_facts(folder)
    if checkout is None:
        found.version = f"v{told}" if told else ""
        if not told:
            found.remarks.append("nothing says which ComfyUI this is: write `baseComfyVersion` (or give --comfyui-ref)")
        return
    found.version = checkout.tag or checkout.commit
    if not checkout.tag and told:
        found.remarks.append(f"ComfyUI is at the commit {checkout.commit[:12]}, which is no release (it says {told})")
    _remark_on_checkout(checkout, found)


def _remark_on_checkout(checkout: Checkout, found: Found) -> None:
    if checkout.is_changed:
        found.remarks.append("ComfyUI itself has changes that are not committed, and they are not taken")
    if checkout.address and not _UPSTREAM.search(checkout.address):
        found.remarks.append(
            f"ComfyUI is a clone of {public_address(checkout.address)[0]}: its ref must be one of ComfyUI's own "
            "repository, or name yours with `env lock --comfyui-repository`"
        )


def _told_version(folder: Path) -> str:
    """The version that ComfyUI's files name; "" if they name none."""
    for name in ("comfyui_version.py", "pyproject.toml"):
        try:
            text = (folder / name).read_bytes()[:_MOST_BYTES].decode("utf-8", "replace")
        except OSError:
            continue
        if match := _VERSION.search(text):
            return match[1]
    return ""


def _find_models(folder: Path, found: Found, cache: HashCache, show: Show) -> None:
    further = further_folders(folder, found.remarks.append)
    if not (folder / "models").is_dir() and not further:
        found.remarks.append("it has no folder models/")
        return
    files = find_models(folder / "models") if (folder / "models").is_dir() else ModelFiles()
    _add_further(further, files, found)
    total = sum(model.size_bytes or 0 for model, path in files.models if cache.get(path) is None)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        show(done, total)

    hashes, failed = hash_files([path for _, path in files.models], cache, progress=progress)
    found.left_out += files.left_out
    for model, path in files.models:
        if path in failed:
            found.left_out.append(f"models/{model.path}: it cannot be read: {failed[path].strerror}")
        else:
            address, remark = address_beside(path, hashes[path])
            found.remarks += [f"models/{model.path}: {remark}"] if remark else []
            whole = replace(model, sha256=hashes[path])
            found.add_model(replace(whole, source_uri=address, local_path=None) if address else whole)


def _add_further(further: Sequence[FurtherFolder], files: ModelFiles, found: Found) -> None:
    """Add the models of folders outside of the install. What has its name already is passed over, as a loader does."""
    taken = {model.path: path for model, path in files.models}
    counts: dict[str, int] = {}
    for one in further:
        more = find_models(one.folder, of_type=one.type)
        files.left_out += more.left_out
        for model, path in more.models:
            if (first := taken.setdefault(model.path, path)) is path:
                files.models.append((model, path))
                counts[str(one.folder)] = counts.get(str(one.folder), 0) + 1
            elif first.resolve() != path.resolve():
                files.left_out.append(f"{path}: there is a {model.path} in {first.parent} already")
    if counts:
        places = counted_names((f"{folder} ({count})" for folder, count in counts.items()), 4)
        found.remarks.append(
            f"models outside of it are taken, too, from {places}: the build file names them as if they were in "
            "models/, and `env models` finds them where they are"
        )
