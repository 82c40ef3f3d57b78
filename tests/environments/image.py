"""An image without a container: what the Dockerfile makes of a lock, made by the same program, in folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.environments.checkout import Checkout

_ROOT = Path(__file__).parents[2]


def from_lock(checkout: Checkout, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python from_lock.py …`, as the build runs it: with nothing of ours but what is copied beside it."""
    return subprocess.run(
        [sys.executable, "-I", "-c", _AS_IN_THE_BUILD, *map(str, arguments)],
        cwd=checkout.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout.folder)},
        capture_output=True,
        text=True,
        check=False,
    )


_AS_IN_THE_BUILD = f"""
import runpy, sys
sys.path[:0] = [{str(_ROOT / "comfyui")!r}, {str(_ROOT / "lambda")!r}]
sys.argv[0] = {str(_ROOT / "comfyui" / "from_lock.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class BuiltImage:
    """`comfyui` with its packs, and `venv` with their libraries (torch, and what it needs, is somebody else's)."""

    def __init__(self, folder: Path, checkout: Checkout) -> None:
        self.folder = folder
        self.comfyui = folder / "comfyui"
        self.venv = folder / "venv"
        self.environment = folder / "environment"
        self._checkout = checkout
        self.environment.mkdir(parents=True)
        for file in checkout.lock_file.parent.glob("comfy-build.*"):
            (self.environment / file.name).write_bytes(file.read_bytes())

    @property
    def site_packages(self) -> Path:
        return self.venv / "lib" / "python3.11" / "site-packages"

    def build(self, *, ours: Path | None = None) -> subprocess.CompletedProcess[str]:
        """ComfyUI and the packs. Returns the first step that has failed, else the last one."""
        lock, ours = self._checkout.lock_file, ours or self._checkout.lock_file.parent
        packs = self.folder / "packs"
        done = from_lock(
            self._checkout, "libraries", lock, self._checkout.folder / "requirements", self.folder / "lists"
        )
        if done.returncode == 0:
            done = from_lock(self._checkout, "comfyui", lock, ours, self.comfyui)
        if done.returncode == 0:
            done = from_lock(self._checkout, "packs", lock, ours, self.comfyui / "custom_nodes", packs)
        if done.returncode == 0:
            for pack in packs.iterdir():
                pack.rename(self.comfyui / "custom_nodes" / pack.name)
        return done

    def install(self) -> None:
        """The libraries of the lists, by their hashes, from the index of the tests."""
        lists = [self.folder / "lists" / f"{name}.txt" for name in ("core", "packs", "sources")]
        command: list[str | Path] = ["uv", "pip", "install", "-q", "--target", self.site_packages]
        command += ["--no-deps", "--require-hashes", "--python", sys.executable]
        done = subprocess.run(
            [*command, *(word for file in lists if file.read_text() for word in ("-r", file))],
            env=self._checkout.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
