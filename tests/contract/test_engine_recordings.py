"""The engine against recordings of ComfyUI: the same requests must have the same answers and messages.

With COMFYUI_DIR set, the same recordings are replayed against that ComfyUI, which shows that the tests are right.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.contract.conftest import speaking
from tests.contract.engines import EngineProcess, StartEngine
from tests.contract.replay import Replay, load

ORDERED = (
    "success_simple",
    "cached_rerun",
    "upload_image",
    "upload_mask",
    "validation_errors",
    "status_leak",
    "interrupt",
    "queue",
    "history",
    "prompt_id",
    "ws_reconnect",
    "ws_same_id",
    "two_clients",
    "no_client_id",
    "save_websocket",
    "misc_endpoints",
    "origin",
    "http_details",
)
#: With several outputs, ComfyUI starts with the one that comes first in a set.
UNORDERED = ("success_multi_output", "validation_partial", "execution_error", "view")

#: Files that the recording found in the output folder.
FILES_TO_VIEW = {
    "page.html": b"<b>x</b>",
    "a.json": b"{}",
    "x.js": b"1",
    "s.svg": b"<svg/>",
    "noext": b"\0\1",
    "m.mp4": bytes(3000),
    "empty.png": b"",
    "a..b.png": b"",
}


def replay(name: str, release: str, engine: EngineProcess, *, unordered: bool = False) -> None:
    run = Replay(load(name, release), engine.url, engine.base, unordered=unordered)
    differences = asyncio.run(run.run())
    assert not differences.lines, str(differences)


@pytest.mark.parametrize("name", ORDERED)
def test_answers_and_messages_are_those_of_the_recording(
    release: str, engine_of_release: EngineProcess, name: str
) -> None:
    replay(name, release, engine_of_release)


@pytest.mark.parametrize("name", UNORDERED)
def test_answers_and_messages_are_those_of_the_recording_in_some_order(
    release: str, engine_of_release: EngineProcess, name: str
) -> None:
    output = engine_of_release.folder("output")
    for file_name, content in FILES_TO_VIEW.items():
        (output / file_name).write_bytes(content)
    (output / "adir").mkdir()
    _picture(output / 'q"uo te é.png')
    replay(name, release, engine_of_release, unordered=True)


def test_the_smallest_number_runs_first(release: str, start_engine: StartEngine) -> None:
    # A fresh engine: `front` depends on how many prompts there were before.
    replay("priority", release, start_engine(*speaking(release)))


def test_a_sampler_reports_its_steps(release: str, start_engine: StartEngine) -> None:
    replay("ksampler_progress", release, start_engine(*speaking(release), "--preview-method", "none"))


def test_previews_come_in_the_form_a_client_has_asked_for(release: str, start_engine: StartEngine) -> None:
    replay("ksampler_previews", release, start_engine(*speaking(release), "--preview-method", "latent2rgb"))


def _picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (16, 16), (255, 0, 0)).save(path)
