"""A checkout of comfy-serverless as far as `env` needs one, and its commands run there as somebody would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.environments import packs
from tests.environments.outside import Outside

_ROOT = Path(__file__).parents[2]


class Checkout:
    """A folder with `comfyui/` and `requirements/`; what its commands reach is the outside of the tests."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        self.folder = folder
        self._outside = outside
        shutil.copytree(_ROOT / "requirements", folder / "requirements")
        (folder / "requirements" / "apt.txt").write_text("")
        # What torch asks for of the real index is no part of these tests.
        (folder / "requirements" / "torch-needs.in").write_text("")
        (folder / "comfyui").mkdir()

    @property
    def build_file(self) -> Path:
        return self.folder / "comfyui" / "comfy-build.yaml"

    @property
    def lock_file(self) -> Path:
        return self.folder / "comfyui" / "comfy-build.lock"

    @property
    def variables(self) -> dict[str, str]:
        """Nothing of the machine's but its programs, and the outside of the tests."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "COMFY_REGISTRY_URL": self._outside.registry.url,
            "COMFYUI_REPOSITORY": self._outside.comfyui.url,
            # One cache for all tests of a module.
            "UV_CACHE_DIR": str(self._outside.folder / "uv-cache"),
            **self._outside.variables,
        }

    def env(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`comfy-serverless env …`, in this folder."""
        return subprocess.run(
            [sys.executable, "-m", "comfy_serverless.cli", "env", *map(str, arguments)],
            cwd=self.folder,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def succeeds(self, *arguments: str | Path, **variables: str) -> str:
        """The same, of a command that must. Returns what it prints."""
        done = self.env(*arguments, **variables)
        assert done.returncode == 0, f"env {' '.join(map(str, arguments))}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, *entries: str, comfyui: str = "v0.33.0", pip: Iterable[str] = ()) -> None:
        """Write the build file: entries of customNodes, each the lines of one (see `registry`, `git`, `local`)."""
        text = (
            f"schema: comfy-build/1\ndefinition:\n  schema: distribution-definition/0\n  baseComfyVersion: {comfyui}\n"
        )
        text += "  models: []\n  customNodes:" + ("\n" if entries else " []\n")
        for entry in entries:
            first, *rest = entry.splitlines()
            text += f"    - {first}\n" + "".join(f"      {line}\n" for line in rest)
        if pip:
            text += "  pipDependencies: |\n" + "".join(f"    {line}\n" for line in pip)
        self.build_file.write_text(text)


def registry(name: str, version: str | None = None, *, folder: str = "") -> str:
    """An entry of a pack of the registry; its folder is the id unless told otherwise."""
    node = packs.registry_id(name)
    return f"name: {folder or node}\nid: {node}\nregistryVersion: {version or packs.versions(name)[-1]}"


def git(name: str, url: str, ref: str) -> str:
    """An entry of a pack of a repository."""
    return f"name: {name}\nrepository: {url}\ngitRef: {ref}"


def local(name: str) -> str:
    """An entry of a pack that lies below custom_nodes."""
    return f"name: {name}\nsource: local\nlocalPath: {name}"
