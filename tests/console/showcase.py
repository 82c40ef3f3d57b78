"""Pictures of the console for the docs, of the whole service on this machine with something to look at.

    python -m tests.console.showcase [--folder docs/images] [--real]

It needs a Chromium, as `make test-console` does. `--real` takes those of a ComfyUI, which COMFYUI_DIR names.
No picture may show a path, a name or an address of the machine that it was taken on: look at them before you commit.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import requests
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from comfy_lite.nodes.painting import Motif, paint
from comfy_lite.nodes.pixels import to_pillow
from local.dev import DevStack
from tests.console.at_console import KEY, drop
from tests.console.browsing import PHONE, WIDE, chromium

ROOT = Path(__file__).parents[2]
_WITHIN_S = 120.0
_ALL_SEEN = """() => document.querySelector("main h1") && !document.querySelector("main[aria-busy]")
  && (!location.hash.startsWith("#/jobs/") || document.querySelector(".graph"))
  && (!location.hash.startsWith("#/usage") || document.querySelector(".counts"))
  && [...document.images].every((image) => image.getBoundingClientRect().top > innerHeight || image.complete)"""
#: What the painted photos show, with the seed that makes each look so.
PHOTOS = {
    "fjord": 3, "dunes": 8, "ridge": 12, "valley": 21, "harbour": 34, "glacier": 42,
    "moor": 55, "coast": 63, "pass": 77, "lagoon": 81, "steppe": 93, "canyon": 104,
}  # fmt: skip
PROMPTS = (
    "a lighthouse above the sea at dusk, warm light in its window",
    "first snow on the pass, morning light",
    "a harbour in the fog, soft colours",
    "the moor after rain, low sun",
)


def photo(name: str, *, size: tuple[int, int] = (960, 640)) -> bytes:
    """A painted landscape as a JPEG: the same for the same name."""
    picture = to_pillow(paint(Motif(name, PHOTOS[name], steps=40), *size))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


def workflow(name: str) -> dict[str, Any]:
    """A workflow of the examples, by its name."""
    graph: dict[str, Any] = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return graph


@dataclass(slots=True)
class Guest:
    """Somebody with a key, who makes what there is to see.

    Attributes:
        url: where the API is.
        key: of the owner whose jobs they are.
    """

    url: str
    key: str
    _uploads: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """What the API answers.

        Raises:
            RuntimeError: it is no 2xx.
        """
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=_WITHIN_S, **more)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def upload(self, name: str) -> dict[str, Any]:
        """A photo as a value of an input."""
        if name not in self._uploads:
            file = {"file": (f"{name}.jpg", photo(name), "image/jpeg")}
            form = {"content_type": "image/jpeg", "file_path": f"{name}.jpg"}
            self._uploads[name] = self.ask("POST", "/api/v2/assets", data=form, files=file)["id"]
        return {"__type": "core/ASSET", "info": {"id": self._uploads[name]}}

    def run(self, name: str, inputs: Mapping[str, object], **labels: str) -> str:
        """The id of a run of a named workflow, which may not be over."""
        body = {"inputs": inputs, "metadata": labels}
        run_id: str = self.ask("POST", f"/api/v2/workflows/{name}/runs", body)["id"]
        return run_id

    def end_of(self, job_id: str) -> Any:
        """A job once it is over."""
        for job in self._looks(f"/api/v2/jobs/{job_id}"):
            if job["completed_at"]:
                return job
        raise AssertionError

    def batch(self, name: str, lines: list[Any], *, is_awaited: bool = True) -> None:
        """Begin a batch, and wait for its end."""
        self.ask("POST", "/api/v2/batches", {"name": name, "lines": lines, "force": True})
        for batch in self._looks(f"/api/v2/batches/{name}"):
            if not is_awaited or batch["status"] in {"completed", "failed"}:
                return

    def _looks(self, path: str) -> Iterator[Any]:
        until = time.monotonic() + _WITHIN_S
        while time.monotonic() < until:
            yield self.ask("GET", path)
            time.sleep(0.3)
        raise TimeoutError(f"{path} has not ended within {_WITHIN_S:g} s")


def furnish(guest: Guest) -> dict[str, str]:
    """Make what there is to see; returns ids of jobs by what they show: "poster", "triptych", "failed"."""
    notes = {"text_to_image": "for the autumn campaign", "photo_poster": "a frame, and five colours of the photo"}
    for name in ("text_to_image", "photo_poster", "thumbnail"):
        body = {"workflow": workflow(name), "note": notes.get(name, "")}
        guest.ask("PUT", f"/api/v2/workflows/{name}", body)
    softer = workflow("photo_poster")
    softer["22"]["inputs"]["blend_factor"] = 0.45
    guest.ask("PUT", "/api/v2/workflows/photo_poster", {"workflow": softer, "note": "less glow", "force": True})
    guest.ask("POST", "/api/v2/workflows/photo_poster/alias", {"alias": "staging", "version": 2})
    lines = [
        {"workflow": "photo_poster", "inputs": {"photo": guest.upload(name)}, "metadata": {"photo": name}}
        for name in PHOTOS
    ]
    broken = {"workflow": too_small(), "metadata": {"photo": "stamp"}}
    guest.batch("autumn-posters", [*lines[:7], broken, *lines[7:]])
    shown = {"failed": guest.ask("POST", "/api/v2/jobs", {"workflow": too_small()})["id"]}
    for number, prompt in enumerate(PROMPTS):
        labels = {"campaign": "autumn", "market": ("nordics", "alps")[number % 2]}
        shown["painting"] = guest.run("text_to_image", {"prompt": prompt, "seed": 7_364_589_107 + number}, **labels)
    for name in ("coast", "pass", "canyon"):
        shown["poster"] = guest.run("photo_poster", {"photo": guest.upload(name)}, campaign="autumn")
    shown["triptych"] = guest.run("triptych", {"photo": guest.upload("glacier")}, market="alps")
    for job_id in shown.values():
        guest.end_of(job_id)
    return shown


def too_small() -> dict[str, Any]:
    """A poster of a picture that is smaller than its blur."""
    graph = workflow("photo_poster")
    graph["10"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x7788AA},
    }
    graph["20"]["inputs"] |= {"width": 12, "height": 12}
    return graph


def open_console(
    browser: Browser, guest: Guest, scheme: Literal["light", "dark"] = "light", *, is_phone: bool = False
) -> Page:
    """The console in a session of its own, with the guest's key."""
    context = browser.new_context(
        base_url=guest.url, viewport=PHONE if is_phone else WIDE, color_scheme=scheme, locale="en-GB", timezone_id="UTC"
    )
    context.set_default_timeout(_WITHIN_S * 1000)
    page: Page = context.new_page()
    page.add_init_script(f"sessionStorage.getItem('{KEY}') ?? sessionStorage.setItem('{KEY}', '{guest.key}')")
    page.goto("/")
    return page


@dataclass(slots=True)
class Album:
    """Pictures of pages, as files of a folder."""

    folder: Path

    def take(self, page: Page, name: str, path: str | None = None, *, height: int | None = None) -> None:
        """Go to a page of the console, and keep a picture of it; of its upper part, if a height is given."""
        if path is not None:
            page.evaluate("(path) => { location.hash = `#/${path}`; }", path)
            page.wait_for_timeout(200)
        page.mouse.move(2, 400)
        page.locator("main[aria-busy]").wait_for(state="detached")
        page.wait_for_timeout(2500)
        page.wait_for_function(_ALL_SEEN)
        taken = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide"))).convert("RGB")
        if height is not None:
            taken = taken.crop((0, 0, taken.width, height))
        taken.save(self.folder / f"console-{name}.webp", quality=84, method=6)


def embedded(browser: Browser, stack: DevStack, album: Album) -> None:
    """The pictures of the embedded engine."""
    guest = Guest(stack.url, stack.keys.create("studio", owner="studio").text)
    admin = Guest(stack.url, stack.keys.create("ops", owner="ops", is_admin=True).text)
    website = {"name": "website", "owner": "shop", "max_in_flight": 20, "budget_usd": 50, "budget_action": "refuse"}
    admin.ask("POST", "/api/v2/keys", website)
    other = Guest(stack.url, admin.ask("POST", "/api/v2/keys", {"name": "night-batches", "owner": "shop"})["key"])
    shown = furnish(guest)
    other.end_of(other.run("text_to_image", {"prompt": PROMPTS[2], "seed": 11}))
    page = open_console(browser, guest)
    page.goto("/#/run/text_to_image")
    page.get_by_label("Prompt", exact=True).fill("a lighthouse above the sea at dusk, warm light in its window")
    page.get_by_label("Steps").fill("40")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".run .succeeded").first.wait_for()
    page.get_by_label("Steps").fill("900")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function(
        "() => document.querySelector('.run [aria-valuenow]')?.getAttribute('aria-valuenow') > 40",
        timeout=_WITHIN_S * 1000,
    )
    running = guest.ask("GET", "/api/v2/jobs?limit=1")["jobs"][0]["id"]
    album.take(page, "run")
    album.take(page, "jobs", "jobs")
    album.take(page, "job-live", f"jobs/{running}")
    guest.ask("POST", f"/api/v2/jobs/{running}/cancel")
    guest.end_of(running)
    album.take(page, "job", f"jobs/{shown['triptych']}")
    album.take(page, "job-failed", f"jobs/{shown['failed']}", height=640)
    album.take(page, "batch", "batches/autumn-posters")
    album.take(page, "workflow", "workflows/photo_poster")
    page.evaluate("() => { location.hash = '#/batches?new=1'; }")
    page.get_by_text("Drop a manifest").wait_for()
    drop(page, "main", {f"{name}.jpg": photo(name) for name in PHOTOS})
    page.get_by_text("12 of 12 uploaded").wait_for()
    page.locator("#batch-workflow").select_option("photo_poster")
    album.take(page, "batch-new")
    dark = open_console(browser, guest, "dark")
    album.take(dark, "gallery", "gallery")
    dark.locator(".piece-open").nth(3).click()
    album.take(dark, "lightbox")
    phone = open_console(browser, guest, "dark", is_phone=True)
    album.take(phone, "phone", "jobs")
    album.take(phone, "phone-gallery", "gallery")
    at_ops = open_console(browser, admin)
    album.take(at_ops, "usage", "usage?by=owner&days=7")


def real(browser: Browser, stack: DevStack, album: Album) -> None:
    """The pictures of a ComfyUI: a video of its own making, and a picture that tells its workflow."""
    guest = Guest(stack.url, stack.keys.create("studio", owner="studio").text)
    for name in ("photo_poster", "thumbnail"):
        guest.ask("PUT", f"/api/v2/workflows/{name}", {"workflow": workflow(name)})
    for name in ("coast", "fjord", "valley", "lagoon"):
        guest.run("thumbnail", {"photo": guest.upload(name), "width": 480, "height": 320}, campaign="autumn")
    guest.batch(
        "autumn-thumbnails",
        [
            {"workflow": "thumbnail", "inputs": {"photo": guest.upload(name), "width": 480, "height": 320}}
            for name in ("canyon", "glacier", "pass", "steppe")
        ],
    )
    poster = guest.run("photo_poster", {"photo": guest.upload("pass")}, campaign="autumn")
    film = guest.ask(
        "POST", "/api/v2/jobs", {"workflow": panning(guest.upload("steppe")), "metadata": {"kind": "film"}}
    )
    failed = guest.ask("POST", "/api/v2/jobs", {"workflow": too_small()})["id"]
    for job_id in (poster, film["id"], failed):
        guest.end_of(job_id)
    page = open_console(browser, guest)
    album.take(page, "real-jobs", "jobs", height=640)
    album.take(page, "real-job", f"jobs/{poster}")
    album.take(page, "real-failed", f"jobs/{failed}", height=640)
    album.take(page, "real-film", f"jobs/{film['id']}")
    album.take(page, "real-gallery", "gallery")
    album.take(page, "real-batch", "batches/autumn-thumbnails")
    album.take(page, "real-workflow", "workflows/photo_poster")
    album.take(page, "real-run", "run/photo_poster")
    admin = Guest(stack.url, stack.keys.create("ops", owner="ops", is_admin=True).text)
    at_ops = open_console(browser, admin)
    album.take(at_ops, "real-usage", "usage?by=owner&days=7")
    made = guest.ask("GET", f"/api/v2/jobs/{poster}")["outputs"][0]
    page.evaluate("() => { location.hash = '#/run'; }")
    page.get_by_text("Drop a workflow").wait_for()
    drop(page, "main", {"poster.png": requests.get(made["url"], timeout=_WITHIN_S).content})
    page.get_by_role("heading", name="poster.png").wait_for()
    album.take(page, "real-dropped")


def panning(picture: dict[str, Any]) -> dict[str, Any]:
    """A film that goes over a picture, from left to right."""
    graph: dict[str, Any] = {"1": {"class_type": "LoadImage", "inputs": {"image": picture}}}
    crops: list[str] = []
    for number in range(24):
        crop = {"image": ["1", 0], "width": 480, "height": 320, "x": number * 20, "y": 160}
        graph[f"c{number}"] = {"class_type": "ImageCrop", "inputs": crop}
        crops.append(f"c{number}")
    last = crops[0]
    for number, name in enumerate(crops[1:]):
        graph[last_of := f"b{number}"] = {
            "class_type": "ImageBatch",
            "inputs": {"image1": [last, 0], "image2": [name, 0]},
        }
        last = last_of
    graph["90"] = {"class_type": "CreateVideo", "inputs": {"images": [last, 0], "fps": 12}}
    save = {"video": ["90", 0], "filename_prefix": "video/steppe", "format": "mp4", "codec": "h264"}
    graph["91"] = {"class_type": "SaveVideo", "inputs": save, "_meta": {"title": "Film"}}
    return graph


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument("--real", action="store_true", help="those of a ComfyUI")
    wanted = parser.parse_args()
    prices = {"USD_PER_SECOND": "0.00005"}
    with (
        tempfile.TemporaryDirectory() as logs,
        DevStack(log_folder=Path(logs), environment=prices, workers=1 if wanted.real else 2) as stack,
        sync_playwright() as playwright,
        chromium(playwright) as browser,
    ):
        (real if wanted.real else embedded)(browser, stack, Album(wanted.folder))


if __name__ == "__main__":
    main()
