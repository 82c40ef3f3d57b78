"""Files that people have, dropped on the console of a real ComfyUI, in a real browser: from the drop to the picture.

With COMFYUI_DIR only; the same on the embedded engine is in tests/console.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.dev import OWNER, DevStack
from tests.console.at_console import console, drop
from tests.console.browsing import Browsing, chromium
from tests.console.samples import Person, picture
from tests.console.test_media_in_browser import played
from tests.console.test_run_in_browser import job_of_first_run, press_run
from tests.contract.engines import REAL_COMFYUI, START_PATIENCE_S
from tests.patience import PATIENCE_S
from tests.unit.editor_samples import plain, with_subgraph

pytestmark = pytest.mark.skipif(REAL_COMFYUI is None, reason="needs a real ComfyUI: COMFYUI_DIR")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """What `make dev COMFYUI_DIR=…` starts."""
    with DevStack(log_folder=tmp_path_factory.mktemp("dev")) as started:
        yield started


@pytest.fixture(scope="module")
def ann(stack: DevStack) -> Person:
    """Somebody for whom this ComfyUI has made a picture already: it runs, and has said what nodes it has."""
    person = Person(stack.url, OWNER, stack.api_key)
    first = person.submit(picture(1))
    assert person.end_of(first, within_s=START_PATIENCE_S)["status"] == "succeeded"
    assert "comfy_lite" not in (person.job(first)["engine"] or "")
    return person


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright, chromium(playwright) as started:
        yield started


@pytest.fixture
def page(stack: DevStack, browser: Browser, ann: Person) -> Iterator[Page]:
    """Her console, at Run."""
    sessions = Browsing(browser, stack.url, origins={stack.aws.endpoint_url})
    opened = console(sessions, ann, "run")
    expect(opened.get_by_role("heading", name="Run", exact=True)).to_be_visible()
    yield opened
    sessions.close()
    assert sessions.seen() == []


def run_and_see(page: Page, ann: Person) -> tuple[Any, Image.Image]:
    """Run the form; the newest run's job, and the picture that the page shows of it."""
    before = page.locator(".run").count()
    press_run(page)
    expect(page.locator(".run")).to_have_count(before + 1)
    job = job_of_first_run(page, ann)
    assert job["status"] == "succeeded", job["error"]
    shown = page.locator(".run").first.locator(".made img")
    expect(shown).to_have_js_property("complete", True)
    [output] = job["outputs"]
    assert shown.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [output["width"], output["height"]]
    return job, Image.open(io.BytesIO(content_of(output))).convert("RGB")


def content_of(output: Any) -> bytes:
    return requests.get(output["url"], timeout=PATIENCE_S).content


def test_a_file_of_the_editor_becomes_a_picture(page: Page, ann: Person) -> None:
    drop(page, "main", {"From the editor.json": json.dumps(plain(color=0x3366CC)).encode()})
    expect(page.get_by_role("heading", level=1)).to_have_text("From the editor.json")
    page.get_by_label("Width").fill("40")
    _, seen = run_and_see(page, ann)
    assert seen.width == 40


def test_a_file_with_a_subgraph_becomes_a_picture(page: Page, ann: Person) -> None:
    drop(page, "main", {"subgraph.json": json.dumps(with_subgraph(color=0xFF0000)).encode()})
    expect(page.get_by_role("heading", level=1)).to_have_text("subgraph.json")
    _, seen = run_and_see(page, ann)
    assert (seen.size, seen.getpixel((0, 0))) == ((48, 24), (0, 255, 255))


def test_an_api_file_and_the_picture_that_it_made_become_pictures(page: Page, ann: Person) -> None:
    drop(page, "main", {"api.json": json.dumps(picture(0x2288AA, size=48)).encode()})
    expect(page.get_by_role("heading", level=1)).to_have_text("api.json")
    page.get_by_label("Width").fill("56")
    job, seen = run_and_see(page, ann)
    assert (seen.size, seen.getpixel((0, 0))) == ((56, 48), (0x22, 0x88, 0xAA))

    # What this ComfyUI has written into its picture.
    page.get_by_role("button", name="Another one").click()
    drop(page, "main", {"Made by it.png": content_of(job["outputs"][0])})
    expect(page.get_by_role("heading", level=1)).to_have_text("Made by it.png")
    expect(page.get_by_label("Width")).to_have_value("56")
    page.get_by_label("Height").fill("32")
    again, seen = run_and_see(page, ann)
    assert again["id"] != job["id"]
    assert (seen.size, seen.getpixel((0, 0))) == ((56, 32), (0x22, 0x88, 0xAA))


def test_its_films_and_sounds_play(page: Page, ann: Person) -> None:
    film = {"video": ["2", 0], "filename_prefix": "film", "format": "mp4", "codec": "h264"}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 24, "color": 0x3366CC}},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 12.0}},
        "3": {"class_type": "SaveVideo", "inputs": film},
        "4": {"class_type": "EmptyAudio", "inputs": {"duration": 2.0, "sample_rate": 44100, "channels": 2}},
        "5": {"class_type": "SaveAudio", "inputs": {"audio": ["4", 0], "filename_prefix": "flac"}},
        "6": {"class_type": "SaveAudioMP3", "inputs": {"audio": ["4", 0], "filename_prefix": "mp3", "quality": "128k"}},
    }  # fmt: skip
    drop(page, "main", {"media.json": json.dumps(graph).encode()})
    expect(page.get_by_role("heading", level=1)).to_have_text("media.json")
    press_run(page)
    job = job_of_first_run(page, ann)
    assert job["status"] == "succeeded", job["error"]
    page.evaluate("(id) => { location.hash = `#/jobs/${id}`; }", job["id"])
    for ending in (".flac", ".mp3"):
        assert abs(played(page.locator(f"audio[aria-label$='{ending}']"))["seconds"] - 2) < 0.2
    page.get_by_role("button", name="Open SaveVideo").click()
    told = played(page.get_by_role("dialog").locator("video"))
    assert (told["width"], told["height"]) == (96, 64)
    assert abs(told["seconds"] - 2) < 0.3
    assert told["frames"] > 0
