"""A project with a build file, and the outside of environments, for the commands `env lock` and `env diff`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.main import main
from comfy_serverless.environments.lock_file import Lock
from tests.environments.outside import Outside, outside
from tests.environments.packs import registry_id


def registered(name: str, version: str = "1.0.0") -> str:
    return f"    - name: {name}\n      id: {registry_id(name)}\n      registryVersion: {version}\n"


def of_git(name: str, url: str, ref: str) -> str:
    return f"    - name: {name}\n      repository: {url}\n      gitRef: {ref}\n"


def local(name: str) -> str:
    return f"    - name: {name}\n      source: local\n      localPath: {name}\n"


@dataclass
class Project:
    """A folder as a checkout of ours is, with `requirements/` and `comfyui/`; commands run in it."""

    folder: Path
    world: Outside
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    @property
    def lock_path(self) -> Path:
        return self.folder / "comfyui" / "comfy-build.lock"

    @property
    def locked(self) -> Lock:
        return Lock.parse(self.lock_path.read_text())

    @property
    def versions(self) -> dict[str, str]:
        return {each.name: each.version for each in self.locked.requirements}

    def write(
        self, *entries: str, overrides: Sequence[str] = (), ref: str = "v0.33.0", models: str = "", more: str = ""
    ) -> None:
        text = f"schema: comfy-build/1\ndefinition:\n  schema: distribution-definition/0\n  baseComfyVersion: {ref}\n"
        text += "  customNodes:\n" + "".join(entries) if entries else ""
        text += "  models:\n" + models if models else ""
        text += more
        if overrides:
            text += "  pipDependencies: |\n" + "".join(f"    {line}\n" for line in overrides)
        (self.folder / "comfyui" / "comfy-build.yaml").write_text(text)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code of a command, what it prints, and what it says."""
        self.monkeypatch.chdir(self.folder)
        code = main(["env", *arguments])
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def lock(self, *arguments: str) -> str:
        """Lock; returns what is printed and said. It has to work."""
        code, out, err = self.run("lock", *arguments)
        assert code == 0, err
        return out + err

    def fail(self, *arguments: str) -> dict[str, Any]:
        """Lock, which must fail. Returns the error as programs read it."""
        code, out, err = self.run("lock", "--json", *arguments)
        assert code == 1, out + err
        error: dict[str, Any] = json.loads(out)["error"]
        return error


@contextmanager
def project(
    folder: Path, world: Outside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    for name in ("requirements", "comfyui"):
        (folder / name).mkdir(parents=True)
    (folder / "requirements" / "torch.in").write_text("torch==2.14.1\ntorchvision==0.29.1\ntorchaudio==2.11.0\n")
    (folder / "requirements" / "apt.txt").write_text("# of Debian\n")
    yield Project(folder, world, capsys, monkeypatch)


__all__ = ["Project", "local", "of_git", "outside", "project", "registered"]
