"""Whether an engine's folders are on this machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from comfy_serverless.connector.folders import are_here


def folders(base: Path, *there: str, output: str = "output") -> dict[str, Path]:
    for name in there:
        (base / name).mkdir(parents=True)
    return {"input": base / "input", "output": base / output, "temp": base / "temp"}


def test_folders_of_another_machine_are_not_made(tmp_path: Path) -> None:
    assert not are_here(folders(tmp_path / "elsewhere"))
    assert not are_here(folders(tmp_path / "another", "output"))
    assert [path.name for path in tmp_path.rglob("*")] == ["another", "output"]


def test_an_output_folder_that_comfyui_makes_later_is_made_as_its_input_folder_is(tmp_path: Path) -> None:
    found = folders(tmp_path, "input")
    found["input"].chmod(0o750)
    assert are_here(found)
    state = found["output"].stat()
    assert stat.S_IMODE(state.st_mode) == 0o750
    assert state.st_uid == found["input"].stat().st_uid
    assert not found["temp"].exists(), "ComfyUI makes and removes it as it likes"


def test_folders_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    found = folders(tmp_path, "input", "output")
    found["output"].chmod(0o700)
    assert are_here(found)
    assert stat.S_IMODE(found["output"].stat().st_mode) == 0o700


@pytest.mark.parametrize("output", ["volume/output", "a-file"])
def test_an_output_folder_that_cannot_be_made_is_elsewhere(tmp_path: Path, output: str) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    assert not are_here(folders(tmp_path, "input", output=output))
    assert not (tmp_path / "volume").exists()
