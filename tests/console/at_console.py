"""What people do at the console: they come with a key, and drop files on it."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Callable, Mapping
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.console.browsing import Browsing
from tests.console.samples import Person
from tests.patience import PATIENCE_S, wait_until

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


class Held:
    """Requests of a page whose answers are held back: what comes before `release` has waited for none of them.

    Args:
        page: the page.
        url: which addresses, as `page.route` takes them.
    """

    def __init__(self, page: Page, url: str | re.Pattern[str]) -> None:
        self._routes: list[Route] = []
        self._is_open = False
        page.route(url, self._on_request)

    def _on_request(self, route: Route) -> None:
        self._routes.append(route)
        if self._is_open:
            route.continue_()

    def asked(self, method: str = "GET") -> list[str]:
        """The addresses that were asked for until now, without what stands behind "?"."""
        requests = [route.request for route in self._routes]
        return [one.url.partition("?")[0] for one in requests if one.method == method]

    def release(self) -> None:
        """Let all go on, and those to come."""
        self._is_open = True
        for route in self._routes:
            route.continue_()


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


def comes(page: Page, is_there: Callable[[], object]) -> bool:
    """Whether what the page's requests bring comes; they are seen to meanwhile."""

    def look() -> object:
        page.wait_for_timeout(10)
        return is_there()

    return wait_until(look)


def drop(page: Page, selector: str, files: Mapping[str, bytes]) -> None:
    """Drop files, by their names, on what a selector finds."""
    items = [
        {"name": name, "type": mimetypes.guess_type(name)[0] or "", "content": base64.b64encode(content).decode()}
        for name, content in files.items()
    ]
    page.evaluate(_DROP, [selector, items])
