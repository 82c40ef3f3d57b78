"""Films, sounds, texts, models: they play in the gallery and on the job's page, and what is hostile runs nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Locator, Page, Route, expect

from local.dev import DevStack
from tests.console.accessible import check_accessible
from tests.console.at_console import console, go
from tests.console.browsing import Browsing
from tests.console.media_engine import MAKES, RUNS, SECONDS
from tests.console.samples import Person
from tests.patience import PATIENCE_S

#: Whose these are: the galleries of the other tests' people stay as they are.
OWNER = "mia"
FILMS, SOUNDS = ("mp4", "webm"), ("flac", "mp3", "wav")
HOSTILE = ("svg", "a page", "a page as a film", "a page as a sound", "a page as a picture")
#: Plays it without a sound, and tells once it has gone on: how long it is, its size, and what could be decoded of it.
PLAYED = """async (element) => {
  element.muted = true;
  await element.play();
  while (element.currentTime < 0.3) await new Promise((then) => setTimeout(then, 20));
  element.pause();
  return {
    seconds: element.duration, width: element.videoWidth ?? 0, height: element.videoHeight ?? 0,
    frames: element.getVideoPlaybackQuality?.().totalVideoFrames ?? 0,
  };
}"""
#: The color in the middle of what a film shows now.
COLOR = """(element) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [element.videoWidth, element.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(element, 0, 0);
  return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
}"""


@pytest.fixture(scope="module")
def mia(stack: DevStack) -> Person:
    """Somebody who makes films and sounds."""
    return Person(stack.url, OWNER, stack.keys.create(OWNER, owner=OWNER).text)


def made(person: Person, *kinds: str) -> Any:
    """A job that has made a file of each of these kinds."""
    graph = {
        "1": {"class_type": "MakesMedia", "inputs": {"kinds": ", ".join(kinds), "filename_prefix": kinds[0]}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": f"said: {RUNS}"}},
    }
    job = person.end_of(person.submit(graph, metadata={"kinds": kinds[0]}))
    assert job["status"] == "succeeded", job
    return job


@pytest.fixture(scope="module")
def shown(mia: Person) -> Any:
    """A job with what a browser plays and shows, and a model."""
    return made(mia, *FILMS, *SOUNDS, "txt", "glb")


@pytest.fixture(scope="module")
def hostile(mia: Person) -> Any:
    """A job with files that would run something, each under a name that says otherwise."""
    return made(mia, *HOSTILE)


def ending(kind: str) -> str:
    return MAKES[kind][1]


def output_of(job: Any, kind: str) -> Any:
    [found] = [
        output
        for output in job["outputs"]
        if re.search(r"_\d{5}_\.", output["name"]) and output["name"].endswith(ending(kind))
    ]
    return found


def played(element: Locator) -> Any:
    expect(element).to_have_js_property("error", None)
    return element.evaluate(PLAYED)


def piece(page: Page, output: Any) -> Locator:
    """An output on the job's page or in the gallery: what is opened by it."""
    return page.get_by_role("button", name=f"Open {output['class_type']}: {output['name']}").or_(
        page.get_by_role("button", name=f"Open Makes media: {output['name']}")
    )


def ran(page: Page) -> Any:
    return page.evaluate("() => globalThis.ran")


def test_the_api_says_what_each_file_is(shown: Any, hostile: Any) -> None:
    """What the node made is delivered as it is, and called what it is."""
    types = {kind: output_of(shown, kind)["content_type"] for kind in (*FILMS, *SOUNDS, "txt", "glb")}
    assert types == {
        "mp4": "video/mp4",
        "webm": "video/webm",
        "flac": "audio/flac",
        "mp3": "audio/mpeg",
        "wav": "audio/wav",
        "txt": "text/plain",
        "glb": "model/gltf-binary",
    }
    assert {output_of(shown, kind)["type"] for kind in FILMS} == {"video"}
    assert {output_of(shown, kind)["type"] for kind in SOUNDS} == {"audio"}
    for kind in ("svg", "a page"):
        answer = requests.get(output_of(hostile, kind)["url"], timeout=PATIENCE_S)
        assert answer.headers["content-disposition"].startswith("attachment"), "opened by itself it is saved, not shown"


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_of_a_job_plays(browsing: Browsing, mia: Person, shown: Any, kind: str) -> None:
    output = output_of(shown, kind)
    page = console(browsing, mia, f"jobs/{shown['id']}")
    thumbnail = piece(page, output).locator("img")
    expect(thumbnail).to_have_js_property("complete", True)
    assert thumbnail.evaluate("(image) => image.naturalWidth") == 96, "its first frame"
    piece(page, output).click()
    film = page.get_by_role("dialog").locator("video")
    told = played(film)
    assert abs(told["seconds"] - SECONDS) < 0.3
    assert (told["width"], told["height"]) == (96, 64)
    assert told["frames"] > 0
    check_accessible(page, f"lightbox-{kind}")


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_sound_of_a_job_plays_where_it_stands(browsing: Browsing, mia: Person, shown: Any, kind: str) -> None:
    page = console(browsing, mia, f"jobs/{shown['id']}")
    told = played(page.locator(f"audio[aria-label$='{ending(kind)}']"))
    assert abs(told["seconds"] - SECONDS) < 0.2


def test_texts_are_shown_as_texts_and_a_model_is_a_file(
    browsing: Browsing, mia: Person, shown: Any, tmp_path: Path
) -> None:
    page = console(browsing, mia, f"jobs/{shown['id']}")
    outputs = page.get_by_role("region", name="Outputs")
    expect(outputs.locator("pre").filter(has_text="a fox")).to_contain_text(RUNS)
    expect(outputs.locator("pre").filter(has_text="said: ")).to_contain_text(RUNS)
    assert ran(page) is None
    row = outputs.get_by_role("listitem").filter(has_text=ending("glb"))
    with page.expect_download() as download:
        row.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == output_of(shown, "glb")["name"]
    download.value.save_as(tmp_path / "model.glb")
    assert (tmp_path / "model.glb").read_bytes() == MAKES["glb"][2]()
    check_accessible(page, "job-media")


@pytest.mark.parametrize("kind", [*FILMS, *SOUNDS])
def test_a_film_or_sound_is_downloaded_as_it_was_made(
    browsing: Browsing, mia: Person, shown: Any, tmp_path: Path, kind: str
) -> None:
    output = output_of(shown, kind)
    page = console(browsing, mia, f"jobs/{shown['id']}")
    if kind in FILMS:
        piece(page, output).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {output['name']}").click()
    assert download.value.suggested_filename == output["name"]
    download.value.save_as(tmp_path / output["name"])
    assert (tmp_path / output["name"]).read_bytes() == requests.get(output["url"], timeout=PATIENCE_S).content


def test_the_gallery_plays_films_and_sounds_and_goes_on_by_keys(browsing: Browsing, mia: Person, shown: Any) -> None:
    page = console(browsing, mia, "gallery?type=video&label=kinds=mp4")
    piece(page, output_of(shown, "mp4")).click()
    light = page.get_by_role("dialog")
    assert played(light.locator("video"))["frames"] > 0
    where = light.get_by_role("status")
    before = where.inner_text()
    light.get_by_role("button", name="Close").focus()
    page.keyboard.press("ArrowRight" if before.startswith("1 ") else "ArrowLeft")
    expect(where).not_to_have_text(before)
    assert played(light.locator("video"))["frames"] > 0
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sounds").click()
    sound = page.get_by_role("list", name="Outputs").locator("audio").first
    assert abs(played(sound)["seconds"] - SECONDS) < 0.2
    check_accessible(page, "gallery-sounds")
    for kind, wanted in (("3D", ending("glb")), ("Texts", ending("txt"))):
        page.get_by_role("button", name=kind, exact=True).click()
        expect(page.get_by_role("list", name="Outputs")).to_contain_text(wanted)
    piece(page, output_of(shown, "txt")).click()
    expect(light.locator("pre")).to_contain_text(RUNS)
    assert ran(page) is None


def test_what_is_hostile_runs_nothing_and_can_be_downloaded(
    browsing: Browsing, mia: Person, hostile: Any, tmp_path: Path
) -> None:
    page = console(browsing, mia, f"jobs/{hostile['id']}")
    outputs = page.get_by_role("region", name="Outputs")
    expect(outputs.get_by_role("listitem").filter(has_text=".svg")).to_be_visible()
    assert page.locator("img[src*='.svg'], iframe, object, embed").count() == 0, "it is no picture of the page"
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {output_of(hostile, 'svg')['name']}").click()
    download.value.save_as(tmp_path / "evil.svg")
    assert (tmp_path / "evil.svg").read_bytes() == MAKES["svg"][2]()
    expect(outputs.get_by_text("cannot be shown here")).to_have_count(1)  # the sound
    for kind in ("a page as a film", "a page as a picture"):
        piece(page, output_of(hostile, kind)).click()
        expect(page.get_by_role("dialog").locator(".stage")).to_contain_text("cannot be shown here")
        page.keyboard.press("Escape")
    assert ran(page) is None
    go(page, "gallery?label=kinds=svg")
    expect(page.get_by_role("list", name="Outputs").get_by_role("listitem")).to_have_count(len(hostile["outputs"]))
    piece(page, output_of(hostile, "svg")).click()
    expect(page.get_by_role("dialog").locator(".as-file")).to_contain_text("image/svg+xml")
    page.wait_for_timeout(300)
    assert ran(page) is None


def ended(page: Page, job: Any) -> None:
    """Let the page get a job whose links have ended an hour ago, as in a tab that was open for long."""

    def answer(route: Route) -> None:
        told = route.fetch().json()
        for output in told["outputs"]:
            for name in ("url", "thumb_url"):
                if output.get(name):
                    output[name] = output[name].replace("?", ".ended?", 1)
            output["url_expires_at"] = "2020-01-01T00:00:00Z"
        route.fulfill(json=told)

    page.route(f"**/api/v2/jobs/{job['id']}", answer)


def test_links_that_have_ended_are_renewed_where_something_is_shown_played_or_saved(
    browsing: Browsing, mia: Person, shown: Any, tmp_path: Path
) -> None:
    page = console(browsing, mia, "usage")
    browsing.watched(page).expect(r"404.*\.ended")
    ended(page, shown)
    go(page, f"jobs/{shown['id']}")
    film = output_of(shown, "mp4")
    page.wait_for_function("() => document.querySelector('.piece img')?.naturalWidth === 96")
    sound = page.locator(f"audio[aria-label$='{ending('flac')}']")
    page.wait_for_function("(element) => element.duration > 1", arg=sound.element_handle())
    expect(page.get_by_role("region", name="Outputs").locator("pre").filter(has_text="a fox")).to_be_visible()
    piece(page, film).click()
    light = page.get_by_role("dialog")
    page.wait_for_function("(element) => element.duration > 1", arg=light.locator("video").element_handle())
    page.keyboard.press("Escape")
    model = output_of(shown, "glb")
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {model['name']}").click()
    download.value.save_as(tmp_path / "model.glb")
    assert (tmp_path / "model.glb").read_bytes() == MAKES["glb"][2](), "never what S3 says of a link that has ended"


def test_a_file_that_is_gone_is_told_and_not_saved_as_something_else(
    browsing: Browsing, mia: Person, shown: Any
) -> None:
    page = console(browsing, mia, "usage")
    browsing.watched(page).expect(r"404.*\.ended")
    ended(page, shown)
    page.route(f"**/api/v2/jobs/{shown['id']}/outputs*", lambda route: route.fulfill(json={"outputs": []}))
    allowed = {"access-control-allow-origin": "*"}  # S3 lets the page read its refusals, too; the one here does not
    page.route(re.compile(r"\.ended\?"), lambda route: route.fulfill(status=404, headers=allowed))
    go(page, f"jobs/{shown['id']}")
    saved: list[Any] = []
    page.on("download", lambda download: saved.append(download))
    page.get_by_role("button", name=f"Download {output_of(shown, 'glb')['name']}").click()
    expect(page.locator("#toasts")).to_contain_text("S3 answers 404")
    assert saved == []
    expect(page.get_by_text("cannot be shown here").first).to_be_visible()
