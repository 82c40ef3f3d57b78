"""The start at the end of an image's build, which fails on packs that do not import."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.connector import import_check
from comfy_serverless.errors import InvalidSetting

LOST = "Cannot import /opt/comfyui/custom_nodes/{} module for custom nodes: No module named 'cv2'"


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that stands for ComfyUI; tests write what it says."""
    script = tmp_path / "start.sh"
    monkeypatch.setenv("API_COMMAND_LINE", f"sh {script}")
    return script


def test_nothing_is_said_where_all_packs_import(comfyui: Path) -> None:
    comfyui.write_text('[ "$1" = --quick-test-for-ci ] && echo "Import times for custom nodes:"\n')
    assert import_check.main([""]) is None


def test_packs_that_do_not_import_are_named_with_the_reason_and_what_to_do(comfyui: Path) -> None:
    comfyui.write_text(f'echo "{LOST.format("one")}" >&2; echo "{LOST.format("two")}"\n')
    said = import_check.main([]) or ""
    assert "  one (No module named 'cv2')" in said
    assert "requirements/comfyui.in" in said
    assert "ALLOW_IMPORT_FAILURES" in said


@pytest.mark.parametrize(
    ("allowed", "refused"), [("one", ["two"]), ("one, two", []), ("*", []), ("on,tw", ["one", "two"])]
)
def test_packs_that_are_named_may_fail(comfyui: Path, allowed: str, refused: list[str]) -> None:
    comfyui.write_text(f'echo "{LOST.format("one")}"; echo "{LOST.format("two")}"\n')
    said = import_check.main([allowed])
    problems = said.rpartition("These did not import:")[2] if said else ""
    assert [pack for pack in ("one", "two") if f"  {pack} (" in problems] == refused
    assert (said is None) is (refused == [])


def test_a_comfyui_that_does_not_start_fails_the_build_whatever_is_allowed(comfyui: Path) -> None:
    comfyui.write_text("echo ImportError: no torch; exit 3\n")
    said = import_check.main(["*"]) or ""
    assert "ImportError: no torch" in said
    assert "exit code 3" in said


def test_without_a_command_it_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_COMMAND_LINE", raising=False)
    with pytest.raises(InvalidSetting, match="API_COMMAND_LINE"):
        import_check.main([])
