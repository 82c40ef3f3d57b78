"""What people do at the console: they come with a key, and drop files on it."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Mapping
from typing import Any

from playwright.sync_api import Page, expect

from tests.console.browsing import Browsing
from tests.console.samples import Person
from tests.patience import PATIENCE_S

#: A slow machine is no failure.
expect.set_options(timeout=PATIENCE_S * 1000)
KEY = "comfy-serverless-key"
_DROP = """([selector, files]) => {
  const transfer = new DataTransfer();
  for (const {name, type, content} of files) {
    transfer.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name, {type}));
  }
  const target = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
  }
}"""


def console(browsing: Browsing, person: Person, path: str, **options: Any) -> Page:
    """The console in a session of its own, with somebody's key, at a path: "run/poster"."""
    page = browsing.open(**options)
    # Once: a test may give another key later.
    page.add_init_script(
        f"sessionStorage.getItem('{KEY}') ?? sessionStorage.setItem('{KEY}', {json.dumps(person.key)})"
    )
    page.goto(f"/#/{path}")
    return page


def go(page: Page, path: str) -> None:
    """Another page of the console, as by a link."""
    page.evaluate("(path) => { location.hash = `#/${path}`; }", path)


def drop(page: Page, selector: str, files: Mapping[str, bytes]) -> None:
    """Drop files, by their names, on what a selector finds."""
    items = [
        {"name": name, "type": mimetypes.guess_type(name)[0] or "", "content": base64.b64encode(content).decode()}
        for name, content in files.items()
    ]
    page.evaluate(_DROP, [selector, items])
