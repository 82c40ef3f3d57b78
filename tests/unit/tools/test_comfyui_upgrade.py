"""Another ComfyUI is the build file's ref, and a lock of it; where there is no lock, nothing is changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from comfy_serverless.environments import build_file
from tools import comfyui_upgrade as tool

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    (tmp_path / "comfyui").mkdir()
    shutil.copy(ROOT / "comfyui" / "comfy-build.yaml", tmp_path / "comfyui")
    return tmp_path


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The calls of the command line, which answers with success."""
    calls: list[list[str]] = []

    def succeed(arguments: list[str]) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(tool, "comfy_serverless", succeed)
    return calls


def test_the_ref_is_written_and_the_environment_locked(ours: Path, locked: list[list[str]]) -> None:
    before = (ours / "comfyui/comfy-build.yaml").read_text()
    assert tool.main(["v0.39.0", "--comfyui-repository", "https://mirror.test/ComfyUI"], root=ours) == 0
    text = (ours / "comfyui/comfy-build.yaml").read_text()
    assert build_file.parse(text).base_comfy_version == "v0.39.0"
    assert text.splitlines()[:3] == before.splitlines()[:3], "comments stay"
    (call,) = locked
    assert call[:2] == ["env", "lock"]
    assert call[-2:] == ["--comfyui-repository", "https://mirror.test/ComfyUI"]
    assert str(ours / "comfyui/comfy-build.lock") in call


def test_where_it_cannot_be_locked_nothing_is_changed(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (ours / "comfyui/comfy-build.yaml").read_bytes()
    monkeypatch.setattr(tool, "comfy_serverless", lambda _: 1)
    assert tool.main(["v9"], root=ours) == 1
    assert (ours / "comfyui/comfy-build.yaml").read_bytes() == before
    assert "Nothing was changed" in capsys.readouterr().err


def test_a_build_file_that_cannot_be_read_is_said(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ours / "comfyui/comfy-build.yaml").write_text("[]")
    assert tool.main(["v9"], root=ours) == 1
    assert "Nothing was changed: " in capsys.readouterr().err
