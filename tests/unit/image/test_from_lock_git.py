"""ComfyUI and packs from repositories, at the commits of the lock, and a checkout in place of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from comfy_serverless.environments import tree_zip
from tests.unit.locked_world import Lock, install, lock_of, pack, run


def git(folder: Path, *arguments: str) -> str:
    environment = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A ComfyUI with one release and a branch after it."""
    folder = tmp_path / "upstream"
    (folder / "custom_nodes").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "master")
    for name in ("main.py", "__init__.py", "custom_nodes/own.py"):
        (folder / name).write_text("one")
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").touch()
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "v1")
    git(folder, "tag", "v1")
    git(folder, "checkout", "-q", "-b", "next")
    (folder / "main.py").write_text("two")
    git(folder, "commit", "-q", "-a", "-m", "next")
    return folder


def comfyui(ours: Path, repository: Path, *arguments: str, packs: tuple[Lock, ...] = ()) -> tuple[str, Path]:
    pinned = {"repository": f"file://{repository}", "commit": git(repository, "rev-parse", "v1"), "version": "1"}
    (ours / "start.sh").write_text("#!/bin/sh\n")
    (ours / "models/loras").mkdir(parents=True)
    (ours / "comfy-build.yaml").touch()
    folder = ours.parent / "made"
    done = run("comfyui", ours, folder, *arguments, lock=lock_of(comfyui=pinned, packs=packs), ours=ours)
    return done.stderr, folder


def test_comfyui_is_fetched_at_its_commit_with_our_files_and_without_what_no_worker_needs(
    ours: Path, repository: Path
) -> None:
    said, made = comfyui(ours, repository)
    assert said == ""
    assert (made / "main.py").read_text() == "one"
    source = json.loads((made / "comfyui-source.json").read_text())
    assert source == {"from": "lock", "commit": git(repository, "rev-parse", "v1")}
    names = {path.name for path in made.iterdir()}
    assert {"start.sh", "models", "input", "web", "custom_nodes"} <= names
    assert not names & {".git", "tests", "archives", "comfy-build.lock", "comfy-build.yaml"}


def test_another_ref_runs_with_the_same_libraries_and_is_told_as_such(ours: Path, repository: Path) -> None:
    _, made = comfyui(ours, repository, "", "next")
    assert (made / "main.py").read_text() == "two"
    source = json.loads((made / "comfyui-source.json").read_text())
    assert source == {"from": "ref", "commit": git(repository, "rev-parse", "next")}


def test_a_mirror_may_take_the_place_of_the_repository(ours: Path, repository: Path) -> None:
    pinned = {"repository": "file:///gone", "commit": git(repository, "rev-parse", "v1")}
    done = run("comfyui", ours, ours.parent / "made", f"file://{repository}", lock=lock_of(comfyui=pinned), ours=ours)
    assert (done.returncode, (ours.parent / "made/main.py").read_text()) == (0, "one")


def test_a_ref_that_is_not_there_is_said(ours: Path, repository: Path) -> None:
    said, _ = comfyui(ours, repository, "", "v9")
    assert f"ComfyUI: v9 of file://{repository} cannot be fetched" in said


def test_a_whole_checkout_is_taken_as_it_is_but_for_packs_of_the_lock(ours: Path, repository: Path) -> None:
    (ours / "main.py").write_text("mine")
    for name in ("mine", "locked"):
        (ours / "custom_nodes" / name).mkdir(parents=True)
        (ours / "custom_nodes" / name / "__init__.py").touch()
    said, made = comfyui(ours, Path(repository), packs=(pack("locked", b""),))
    assert said == ""
    assert (made / "main.py").read_text() == "mine"
    assert {path.name for path in (made / "custom_nodes").iterdir()} == {"mine"}
    assert json.loads((made / "comfyui-source.json").read_text()) == {"from": "checkout", "commit": ""}


def test_a_pack_of_a_repository_is_its_commit_and_the_hash_of_its_tree(
    ours: Path, repository: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree.zip"
    git(repository, "checkout", "-q", "v1")
    with tree.open("wb") as file:
        tree_zip.write(repository, file)
    commit = git(repository, "rev-parse", "v1")
    locked = pack(
        "toy", tree.read_bytes(), source="git", version=None, commit=commit, repository=f"file://{repository}"
    )  # fmt: skip
    done = install(ours, locked)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "packs/toy/main.py").read_text() == "one"
    wrong = install(ours, {**locked, "name": "other", "sha256": "0" * 64})
    assert "is another than was locked" in wrong.stderr
