"""The limit for the start of containers with ComfyUI, as the end-to-end tests use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.settings import Settings
from tests.start_limit import DEFAULT_S, VARIABLE, patient, start_limit_s

E2E = Path(__file__).parents[1] / "e2e"


def test_it_is_a_setting_with_a_default() -> None:
    assert start_limit_s({}) == start_limit_s({VARIABLE: " "}) == DEFAULT_S
    assert start_limit_s({VARIABLE: "1800"}) == 1800


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "٣"])
def test_what_is_no_number_of_seconds_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        start_limit_s({VARIABLE: text})


def test_the_worker_itself_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in patient({"MAX_COMFY_START_ATTEMPTS": "5"}, {VARIABLE: "900"}).items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment().start_timeout_s == 900


def test_every_container_with_comfyui_starts_within_it() -> None:
    of_comfyui = [path for path in E2E.glob("test_*.py") if "pytest.mark.comfyui" in path.read_text(encoding="utf-8")]
    assert len(of_comfyui) == 2
    for path in of_comfyui:
        text = path.read_text(encoding="utf-8")
        assert text.count("LambdaContainer(") == text.count("comfyui_environment, start_s=start_limit_s())"), path.name
