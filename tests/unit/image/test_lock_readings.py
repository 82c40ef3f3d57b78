"""The build reads a lock by itself, the package by `lock_file`: both take the same ones, and refuse the same ones.

The build cannot use the package's reading: its stages would have to be made anew, gigabytes and all, whenever a file
that `lock_file` imports changes.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from comfy_serverless.environments import lock_file
from comfy_serverless.environments.lock_file import ComfyUI, Lock, LockedPack, LockedRequirement
from comfy_serverless.errors import InvalidLock

ROOT = Path(__file__).parents[3]
DIGITS, COMMIT = "1" * 64, "2" * 40
GIT = f"git+https://github.com/owner/toy@{COMMIT}"
FORMS = ("NAME", "VERSION", "SHA256", "COMMIT", "PACK", "APT", "URL")

Change = Callable[[dict[str, Any]], object]


def pack(name: str, **more: Any) -> LockedPack:
    empty = dict.fromkeys(("id", "version", "ref", "repository", "commit", "url"))
    rest = {"sha256": DIGITS, "size": 5, "requirements": (), "install_scripts": ()}
    return LockedPack(name=name, **{**empty, **rest, **more})


def library(name: str, kind: Any = "wheel", url: str | None = None) -> LockedRequirement:
    hashes = () if kind == "git" else (f"sha256:{DIGITS}",)
    return LockedRequirement(name, "1.0", hashes, 5, kind, url, ("ComfyUI: x",))


WHOLE = Lock(
    inputs_sha256=DIGITS,
    comfyui=ComfyUI("https://github.com/owner/ComfyUI.git", "v1", COMMIT, "1"),
    torch={"torch": "2.0"},
    apt=("libgl1",),
    packs=(
        pack("of registry", source="registry", version="1", url="https://host.test/a.zip"),
        pack("of-git", source="git", repository="https://github.com/owner/pack.git", ref="main", commit=COMMIT),
    ),
    requirements=(
        library("numpy"),
        library("docopt", "sdist"),
        library("toy", "git", GIT),
        library("wheelhouse", "url", "https://host.test/w-1-py3-none-any.whl"),
    ),
    build_requirements=(library("setuptools"),),
)

#: What is wrong in a lock: each is found by both, before anything is fetched or installed.
WRONG: dict[str, Change] = {
    "schema": lambda lock: lock.update(schema="comfy-serverless-lock/9"),
    "no schema": lambda lock: lock.pop("schema"),
    "commit of ComfyUI": lambda lock: lock["comfyui"].update(commit="v1"),
    "no commit of ComfyUI": lambda lock: lock["comfyui"].update(commit=None),
    "repository of ComfyUI": lambda lock: lock["comfyui"].update(repository="--upload-pack=x"),
    "library with an option": lambda lock: lock["requirements"][0].update(name="numpy --index-url=http://x"),
    "library without a name": lambda lock: lock["requirements"][0].update(name=""),
    "library twice": lambda lock: lock["requirements"].append({**lock["requirements"][1], "name": "NumPy"}),
    "version with an option": lambda lock: lock["requirements"][1].update(version="1 --pre"),
    "hash of another kind": lambda lock: lock["requirements"][1].update(hashes=["md5:1"]),
    "hash that is short": lambda lock: lock["requirements"][1].update(hashes=["sha256:1"]),
    "library without a hash": lambda lock: lock["requirements"][1].update(hashes=[]),
    "kind of library": lambda lock: lock["requirements"][1].update(kind="egg"),
    "repository without a commit": lambda lock: lock["requirements"][2].update(url="git+https://host.test/x@main"),
    "repository of a library": lambda lock: lock["requirements"][2].update(url=None),
    "address of a library": lambda lock: lock["requirements"][3].update(url="../x.whl"),
    "builder with an option": lambda lock: lock["build_requirements"][0].update(name="-r/etc/passwd"),
    "package of Debian": lambda lock: lock.update(apt=["-oAPT::X=1"]),
    "pack that leads out": lambda lock: lock["packs"][0].update(name="../x"),
    "pack without a name": lambda lock: lock["packs"][0].update(name=""),
    "pack called ..": lambda lock: lock["packs"][0].update(name=".."),
    "hash of a pack": lambda lock: lock["packs"][0].update(sha256="1"),
    "address of a pack": lambda lock: lock["packs"][0].update(url="/etc/passwd"),
    "commit of a pack": lambda lock: lock["packs"][1].update(commit="main"),
    "repository of a pack": lambda lock: lock["packs"][1].update(repository="-x"),
    "source of a pack": lambda lock: lock["packs"][1].update(source="ftp"),
}
#: Texts that are no lock at all.
NONE = {"nothing": "", "no JSON": "{", "a list": "[]", "a merge": "<<<<<<< ours\n{}", "deep": "[" * 100_000}


class Build(NamedTuple):
    """What the build does with a lock, without fetching anything, and what it raises for one that it refuses."""

    read: Callable[[str], object]
    refusal: type[Exception]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Build:
    """The build's own reading."""
    monkeypatch.syspath_prepend(str(ROOT / "comfyui"))
    names = ("from_lock", "lock_reading", "pack_archives")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    from_lock, packs = importlib.import_module("from_lock"), importlib.import_module("pack_archives")
    monkeypatch.setattr(from_lock, "fetch_commit", lambda *_, expected, **__: expected)
    for name in ("fetch_commit", "_zip_tree", "_download", "_check_archive", "unpack", "_refuse_changed"):
        monkeypatch.setattr(packs, name, lambda *_, **__: None)
    for name in ("torch-cpu", "torch-cuda"):
        (tmp_path / f"{name}.txt").write_text("")
    (tmp_path / "ours" / "archives").mkdir(parents=True)

    def read(text: str) -> object:
        path = tmp_path / "comfy-build.lock"
        path.write_text(text, encoding="utf-8")
        lock = from_lock.read_lock(path)
        from_lock.write_lists(lock, tmp_path, tmp_path / "lists")
        from_lock.make_comfyui(lock, tmp_path / "ours", tmp_path / "comfyui")
        packs.install_packs(lock, tmp_path / "ours", tmp_path / "core", tmp_path / "packs")
        return lock

    return Build(read, from_lock.NotBuilt)


def changed(change: Change) -> str:
    document = copy.deepcopy(json.loads(WHOLE.to_text()))
    change(document)
    return json.dumps(document)


def test_both_take_what_the_package_writes(build: Build) -> None:
    assert Lock.parse(WHOLE.to_text()).to_text() == WHOLE.to_text()
    assert build.read(WHOLE.to_text()) == json.loads(WHOLE.to_text())


def test_both_take_the_lock_of_this_repository(build: Build) -> None:
    text = (ROOT / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8")
    assert Lock.parse(text).to_text() == text
    assert build.read(text) == json.loads(text)


@pytest.mark.parametrize(
    "text", [changed(change) for change in WRONG.values()] + list(NONE.values()), ids=[*WRONG, *NONE]
)
def test_both_refuse_the_same(text: str, build: Build) -> None:
    with pytest.raises(InvalidLock, match="comfy-serverless env lock"):
        Lock.parse(text)
    with pytest.raises(build.refusal):
        build.read(text)


def test_both_know_the_same_forms(build: Build) -> None:
    reading = sys.modules["lock_reading"]
    assert reading.SCHEMA == lock_file.SCHEMA
    assert {name: getattr(reading, name).pattern for name in FORMS} == {
        name: getattr(lock_file, name).pattern for name in FORMS
    }
