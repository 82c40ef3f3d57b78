"""Another ComfyUI is pinned with what it needs, from any git repository; what is no ComfyUI changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import comfyui_upgrade as tool

ROOT = Path(__file__).parents[3]
REQUIREMENTS = """\
comfyui-frontend-package==2.0.0
comfyui_workflow_templates==1.0
torch
torchvision>=0.20
torchaudio

numpy>=2
Pillow  # pictures
#non essential dependencies:
kornia>=0.9
"""


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_COMMITTER_DATE": "2027-03-04T05:06:07Z",
    }
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with one release, and a branch that is no ComfyUI."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "master")
    git(folder, "commit", "-q", "--allow-empty", "-m", "empty")
    git(folder, "branch", "empty")
    (folder / "comfyui_version.py").write_text('# generated\n__version__ = "1.2.3"\n')
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "ComfyUI v1.2.3")
    git(folder, "tag", "-a", "v1.2.3", "-m", "an annotated tag has an id of its own")
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Our Dockerfile and comfyui.in, and a library of a custom node."""
    folder = tmp_path / "ours"
    (folder / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "Dockerfile", folder)
    needs = (ROOT / "requirements" / "comfyui.in").read_text(encoding="utf-8")
    (folder / "requirements" / "comfyui.in").write_text(f"{needs}opencv-python-headless\n", encoding="utf-8")
    return folder


def upgrade(ours: Path, upstream: Path, ref: str) -> int:
    return tool.main([ref, "--repository", f"file://{upstream}"], root=ours)


@pytest.mark.parametrize("ref", ["v1.2.3", "master", "the commit"])
def test_the_commit_is_pinned_and_its_requirements_are_taken_over(ours: Path, upstream: Path, ref: str) -> None:
    git(upstream, "config", "uploadpack.allowAnySHA1InWant", "true")
    commit = git(upstream, "rev-parse", "master")
    assert upgrade(ours, upstream, commit if ref == "the commit" else ref) == 0
    dockerfile = (ours / "Dockerfile").read_text(encoding="utf-8")
    assert f"ARG COMFYUI_PINNED={commit}\n" in dockerfile
    assert "# ---- ComfyUI, at a pinned commit: 1.2.3, as of 4 March 2027 ----\n" in dockerfile
    needs = (ours / "requirements" / "comfyui.in").read_text(encoding="utf-8")
    assert "# of ComfyUI 1.2.3, as of 4 March 2027\nkornia>=0.9\nnumpy>=2\nPillow\n\n# of torch\nfilelock\n" in needs
    assert needs.endswith("# of custom nodes\nopencv-python-headless\n")


def test_the_same_release_twice_changes_nothing_more(ours: Path, upstream: Path) -> None:
    files = (ours / "Dockerfile", ours / "requirements" / "comfyui.in")
    upgrade(ours, upstream, "v1.2.3")
    once = [path.read_bytes() for path in files]
    assert upgrade(ours, upstream, "v1.2.3") == 0
    assert [path.read_bytes() for path in files] == once


@pytest.mark.parametrize(
    ("ref", "reason"),
    [("v9.9.9", "v9.9.9"), ("empty", "is no ComfyUI: it has no comfyui_version.py"), ("--upload-pack=x", "x")],
)
def test_what_cannot_be_pinned_changes_nothing(
    ours: Path, upstream: Path, capsys: pytest.CaptureFixture[str], ref: str, reason: str
) -> None:
    before = (ours / "Dockerfile").read_bytes()
    arguments = ["--repository", f"file://{upstream}", "--", ref]
    assert tool.main(arguments, root=ours) == 1
    said = capsys.readouterr().err
    assert said.startswith("Nothing was changed: ")
    assert reason in said
    assert (ours / "Dockerfile").read_bytes() == before


def test_a_dockerfile_without_a_pin_is_said(ours: Path, upstream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ours / "Dockerfile").write_text("FROM scratch\n")
    assert upgrade(ours, upstream, "v1.2.3") == 1
    assert "ARG COMFYUI_PINNED" in capsys.readouterr().err


def test_make_locks_what_was_taken_over(tmp_path: Path, upstream: Path, ours: Path) -> None:
    """With a `uv` that only writes down how it is called."""
    shutil.copy(ROOT / "Makefile", ours)
    (ours / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "comfyui_upgrade.py", ours / "tools")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    (programs / "uv").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["make", "comfyui-upgrade", "REF=v1.2.3", f"COMFYUI_REPOSITORY=file://{upstream}"]
    subprocess.run(command, cwd=ours, env=environment, capture_output=True, check=True)
    calls = (tmp_path / "calls").read_text()
    assert re.findall(r"-o (\S+)", calls) == ["requirements/comfyui.txt", "requirements/torch-cuda.txt"]
    assert calls.count("--generate-hashes") == 2
    assert "numpy>=2" in (ours / "requirements" / "comfyui.in").read_text(encoding="utf-8")


def test_our_own_pin_has_its_day_in_both_places() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (when,) = re.findall(r"^# ---- ComfyUI, at a pinned commit: (.+) ----$", dockerfile, re.MULTILINE)
    assert f"# of ComfyUI {when}\n" in (ROOT / "requirements" / "comfyui.in").read_text(encoding="utf-8")
