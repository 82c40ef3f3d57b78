"""Git repositories over file://, with commits that are the same each time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.environments import packs

_WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "kit"), ("EMAIL", "kit@example.com"), ("DATE", "2026-10-01T12:00:00Z"))
}
#: Nobody's own configuration changes what the tests see.
ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **_WHO}

#: What ComfyUI's requirements.txt asks for, in small: the base's, pages that a worker does not serve, and the rest.
COMFYUI_REQUIREMENTS = """\
comfyui-frontend-package==1.49.6
comfyui-workflow-templates==0.11.44
comfyui-embedded-docs==0.5.10
torch
torchvision
torchaudio
numpy>=1.25.0
Pillow
kit-engine>=0.33

#non essential dependencies:
kit-colors
"""


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder. Returns what it prints; a failure is an AssertionError with all of it."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


class Repository:
    """A bare repository (`url`) that is filled commit by commit."""

    def __init__(self, folder: Path, name: str) -> None:
        self.bare = folder / f"{name}.git"
        self._work = folder / f".{name}-work"
        self._work.mkdir(parents=True)
        git(self._work, "init", "-q", "-b", "master", ".")
        git(folder, "init", "-q", "--bare", "-b", "master", str(self.bare))
        # As the forges do: any commit can be asked for, and parts of a history.
        git(self.bare, "config", "uploadpack.allowAnySHA1InWant", "true")
        git(self.bare, "config", "uploadpack.allowFilter", "true")

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def commit(self, files: Mapping[str, bytes | str], *, tag: str = "", branch: str = "master") -> str:
        """A commit with exactly these files. Returns its 40 hex digits."""
        branches = git(self._work, "branch", "--format=%(refname:short)").split()
        if branches:
            git(self._work, "checkout", "-q", *([] if branch in branches else ["-b"]), branch)
            git(self._work, "rm", "-rfq", "--ignore-unmatch", ".")
        packs.unpack(
            {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}, self._work
        )
        git(self._work, "add", "-A", "-f")
        git(self._work, "commit", "-q", "--allow-empty", "-m", tag or "a change")
        if tag:
            git(self._work, "tag", tag)
        git(self._work, "push", "-q", "--force", str(self.bare), branch, *(["--tags"] if tag else []))
        return git(self._work, "rev-parse", "HEAD")


def comfyui(folder: Path) -> Repository:
    """A repository like ComfyUI's, in small: tags v0.32.0 and v0.33.0, and a master beyond them."""
    repository = Repository(folder, "ComfyUI")
    for version in ("0.32.0", "0.33.0"):
        repository.commit(comfyui_files(version), tag=f"v{version}")
    repository.commit({**comfyui_files("0.33.0"), "comfy/newer.py": "NEWER = True\n"})
    return repository


def comfyui_files(version: str, requirements: str = COMFYUI_REQUIREMENTS) -> dict[str, str]:
    """The files of a small ComfyUI: those that tell what it is, and one of each kind that an install has."""
    return {
        "main.py": '"""Stands for ComfyUI."""\n\nraise SystemExit("the ComfyUI of the tests starts nothing")\n',
        "comfyui_version.py": f'# This file is generated\n__version__ = "{version}"\n',
        "pyproject.toml": f'[project]\nname = "ComfyUI"\nversion = "{version}"\nrequires-python = ">=3.10"\n',
        "requirements.txt": requirements,
        "nodes.py": "NODE_CLASS_MAPPINGS = {}\n",
        "custom_nodes/websocket_image_save.py": "NODE_CLASS_MAPPINGS = {}\n",
        "custom_nodes/example_node.py.example": "# an example\n",
        "models/checkpoints/put_checkpoints_here": "",
        "models/configs/v1-inference.yaml": "model: {}\n",
        "models/loras/put_loras_here": "",
        ".gitignore": "/custom_nodes/\n/models/\n/output/\n/input/\n/user/\n__pycache__/\n",
    }


def of_pack(folder: Path, name: str, *, releases: tuple[str, ...] = ()) -> Repository:
    """A pack's repository: a tag for each version, and master at the newest."""
    repository = Repository(folder, name)
    for version in releases or packs.versions(name):
        repository.commit(packs.files(name, version), tag=f"v{version}")
    return repository
