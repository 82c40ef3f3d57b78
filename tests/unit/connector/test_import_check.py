"""One start of ComfyUI as a worker would: what it wrote, what it declares, how it ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from comfy_serverless.connector.import_check import READ_ONLY, WRITABLE, start
from tests.patience import slack
from tests.unit.fake_comfyui import FakeComfyUI

INFO = {"KSampler": {"python_module": "nodes"}}


@pytest.fixture
def comfyui(tmp_path: Path) -> FakeComfyUI:
    return FakeComfyUI(tmp_path)


@pytest.mark.parametrize("mode", [READ_ONLY, WRITABLE])
def test_it_is_asked_once_it_answers_and_ended_then(comfyui: FakeComfyUI, mode: str) -> None:
    (comfyui.folder / "input").mkdir()
    (comfyui.folder / "input" / "example.png").touch()
    comfyui.says("Import times for custom nodes:", object_info=INFO)
    found = start(comfyui.command, mode)
    assert (found.mode, found.code, found.object_info, found.version) == (mode, None, INFO, "0.33.0")
    assert found.output == "Import times for custom nodes:\n"
    assert "example.png" in found.files


def test_only_where_nothing_can_be_written_there_is_no_network_either(
    comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for mode in (READ_ONLY, WRITABLE):
        start(comfyui.command, mode)
    lambdas, sagemakers = (entry["environment"] for entry in comfyui.starts)
    assert lambdas["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert "127.0.0.1" in lambdas["NO_PROXY"]
    assert "HTTPS_PROXY" not in sagemakers
    assert not {"AWS_SECRET_ACCESS_KEY"} & (lambdas.keys() | sagemakers.keys())


def test_one_that_ends_before_it_answers_leaves_its_code_and_its_words(comfyui: FakeComfyUI) -> None:
    comfyui.says("ImportError: no torch", ends=("pack",), code=3)
    found = start(comfyui.command, READ_ONLY)
    assert (found.code, found.object_info, found.output) == (3, None, "ImportError: no torch\n")


def test_one_that_never_answers_says_where_it_hangs(comfyui: FakeComfyUI) -> None:
    comfyui.says(hangs=True)
    found = start(comfyui.command, WRITABLE, timeout_s=2.0 * slack())
    assert (found.code, found.object_info) == (None, None)
    assert "Fatal Python error: Aborted" in found.output
    assert "program.py" in found.output, "the stack of each thread"


def test_a_command_that_is_killed_is_told_by_its_signal(tmp_path: Path) -> None:
    found = start(["sh", "-c", "kill -SEGV $$"], READ_ONLY)
    assert found.code == -signal.SIGSEGV
