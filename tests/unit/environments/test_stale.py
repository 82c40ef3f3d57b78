"""What the build of the image asks first: whether the lock is of the files that it was made from. Nobody is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comfy_serverless.environments import build_file, stale
from comfy_serverless.environments.lock_file import ComfyUI, Lock
from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.lock import inputs_of
from comfy_serverless.environments.locking.more_requirements import MoreRequirements

BUILD = """\
schema: comfy-build/1
definition:
  schema: distribution-definition/0
  baseComfyVersion: v0.33.0
  customNodes: []
  pipDependencies: |
    numpy==2.4.6
"""
MORE = "# cv2 of some pack\nopencv-python-headless\n"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """`comfyui` and `requirements` of a checkout whose lock is of its files."""
    comfyui, requirements = tmp_path / "comfyui", tmp_path / "requirements"
    for folder in (comfyui, requirements):
        folder.mkdir()
    (comfyui / "comfy-build.yaml").write_text(BUILD)
    (comfyui / "more-requirements.txt").write_text(MORE)
    (requirements / "torch.in").write_text("torch==2.14.1\n")
    (requirements / "apt.txt").write_text("libgl1\n")
    base = Base.read(requirements)
    lock = Lock(
        inputs_sha256=inputs_of(build_file.parse(BUILD), base, MoreRequirements(MORE)),
        comfyui=ComfyUI("https://github.com/comfyanonymous/ComfyUI", "v0.33.0", "a" * 40, "0.33.0"),
        torch=base.torch,
        apt=base.apt,
        more_requirements=MoreRequirements(MORE).lines,
    )
    (comfyui / "comfy-build.lock").write_text(lock.to_text())
    return comfyui, requirements


def test_a_lock_of_its_files_ends_with_0_and_says_nothing(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stale.why_stale(*folders) == []
    assert stale.main([str(folder) for folder in folders]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("comfyui/comfy-build.yaml", BUILD.replace("v0.33.0", "v0.34.0"), "ComfyUI is v0.34.0 in the build file"),
        ("comfyui/comfy-build.yaml", BUILD.replace("2.4.6", "2.4.5"), "pipDependencies, or another entry, has changed"),
        ("comfyui/more-requirements.txt", MORE + "pyyaml\n", "the lines in more-requirements.txt have changed"),
        ("comfyui/more-requirements.txt", None, "the lines in more-requirements.txt have changed"),
        ("requirements/torch.in", "torch==2.15.0\n", "the versions in requirements/torch.in have changed"),
        ("requirements/apt.txt", "libgl1\nffmpeg\n", "the list in requirements/apt.txt has changed"),
    ],
)
def test_what_has_changed_ends_the_build_with_the_reason_and_the_command(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], file: str, text: str | None, reason: str
) -> None:
    path = folders[0].parent / file
    path.write_text(text) if text is not None else path.unlink()
    assert stale.main([str(folder) for folder in folders]) == 1
    said = capsys.readouterr().err
    assert "The image cannot be built" in said
    assert reason in said
    assert "comfy-serverless env lock" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("comfyui/more-requirements.txt", "\n  opencv-python-headless   # another remark\r\n"),
        ("comfyui/comfy-build.yaml", f"# a remark\n{BUILD}"),
        ("requirements/apt.txt", "# of Debian\nlibgl1\n"),
    ],
)
def test_remarks_make_nothing_stale(folders: tuple[Path, Path], file: str, text: str) -> None:
    (folders[0].parent / file).write_text(text)
    assert stale.why_stale(*folders) == []


def test_without_a_build_file_there_is_nothing_to_compare(folders: tuple[Path, Path]) -> None:
    (folders[0] / "comfy-build.yaml").unlink()
    assert stale.why_stale(*folders) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("comfyui/comfy-build.yaml", "definition: [", "comfy-build.yaml"),
        ("comfyui/comfy-build.lock", "{", "comfy-build.lock is no JSON"),
        ("requirements/torch.in", "torch\n", "pins no version"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], file: str, text: str, said: str
) -> None:
    (folders[0].parent / file).write_text(text)
    assert stale.main([str(folder) for folder in folders]) == 1
    assert said in capsys.readouterr().err


def test_a_lock_of_the_days_before_there_was_such_a_file_stays_as_it_is(folders: tuple[Path, Path]) -> None:
    comfyui, requirements = folders
    (comfyui / "more-requirements.txt").unlink()
    locked = Lock.parse((comfyui / "comfy-build.lock").read_text())
    inputs = inputs_of(build_file.parse(BUILD), Base.read(requirements), MoreRequirements())
    text = replace(locked, inputs_sha256=inputs, more_requirements=()).to_text()
    assert "more_requirements" not in text
    assert Lock.parse(text).to_text() == text
    (comfyui / "comfy-build.lock").write_text(text)
    (comfyui / "more-requirements.txt").write_text("# nothing yet\n")
    assert stale.why_stale(comfyui, requirements) == []
