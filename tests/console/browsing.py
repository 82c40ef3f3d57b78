"""A real browser, and what it must never meet on a page of ours.

Debian's Chromium, driven by Playwright. Every page is watched: an error in its console, a violation of its policy, an
exception that nobody caught, a dialog of the browser's own (`alert`), and a request to another host than the stack's
fail the test that opened it, unless the test said before that it comes (`Watched.expect`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Playwright, Request, ViewportSize

from tests.patience import PATIENCE_S

#: What a laptop and a phone show.
WIDE = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)
_FONTS = Path(__file__).with_name("fonts.conf")
#: These are made by the page itself: no host hears of them.
_LOCAL_SCHEMES = frozenset({"data", "blob", "about"})
_TELL_OF_POLICY = """
addEventListener("securitypolicyviolation", (event) => {
  const where = `${event.sourceFile}:${event.lineNumber}`;
  console.error(`policy: ${event.effectiveDirective} refused ${event.blockedURI} (${where})`);
});
"""

#: The machine's own networks have changed: a container has begun, or ended. The page asks again.
_OF_THE_MACHINE = "net::ERR_NETWORK_CHANGED"


class Watched:
    """What went wrong on a page, in the order in which it did.

    Args:
        page: the page, before it goes anywhere.
        origins: "scheme://host:port" of all that it may ask.
    """

    def __init__(self, page: Page, origins: Collection[str]) -> None:
        self._origins = origins
        self._expected: list[re.Pattern[str]] = []
        self._seen: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._seen.append(f"uncaught: {error}"))
        page.on("request", self._on_request)
        page.on("dialog", self._on_dialog)

    def expect(self, pattern: str) -> None:
        """Let what matches come, once or more: the test makes it happen, and looks at what the page then shows."""
        self._expected.append(re.compile(pattern))

    def seen(self) -> list[str]:
        """All that was not expected."""
        return [one for one in self._seen if not any(pattern.search(one) for pattern in self._expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "assert"} and _OF_THE_MACHINE not in message.text:
            self._seen.append(f"console: {message.text} ({message.location.get('url')})")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in _LOCAL_SCHEMES and f"{address.scheme}://{address.netloc}" not in self._origins:
            self._seen.append(f"another host: {request.method} {request.url}")


class Browsing:
    """People at their browsers: each has a session of its own, which shares nothing with others'.

    Args:
        browser: the browser of all.
        url: where the stack is: addresses of pages are below it.
        origins: other places that pages may ask: where files are.
    """

    def __init__(self, browser: Browser, url: str, origins: Collection[str] = ()) -> None:
        self._browser = browser
        self._url = url
        self._origins = {url, *origins}
        self._contexts: list[BrowserContext] = []
        self._watched: dict[Page, Watched] = {}

    def open(self, path: str | None = None, *, viewport: ViewportSize = WIDE, **options: Any) -> Page:
        """A page in a session of its own, at a path of the stack if one is given.

        Args:
            path: "/docs".
            viewport: WIDE or PHONE.
            options: more of Playwright's `new_context`: `color_scheme="dark"`.
        """
        defaults = {"locale": "en-GB", "timezone_id": "UTC", "color_scheme": "light", "reduced_motion": "reduce"}
        context = self._browser.new_context(base_url=self._url, viewport=viewport, **{**defaults, **options})
        context.add_init_script(_TELL_OF_POLICY)
        context.set_default_timeout(PATIENCE_S * 1000)
        self._contexts.append(context)
        page = context.new_page()
        self._watch(page)
        context.on("page", self._watch)  # those that it opens
        if path is not None:
            page.goto(path)
        return page

    def watched(self, page: Page) -> Watched:
        """What was seen on a page."""
        return self._watched[page]

    def seen(self) -> list[str]:
        """All that nobody expected, on any page."""
        return [one for watched in self._watched.values() for one in watched.seen()]

    def close(self) -> None:
        """End all sessions."""
        for context in self._contexts:
            context.close()

    def _watch(self, page: Page) -> None:
        if page not in self._watched:
            self._watched[page] = Watched(page, self._origins)


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium, or what the variable CHROMIUM names; without one the tests fail."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    assert Path(path).is_file(), (
        f"there is no browser at {path}: install one (apt-get install chromium fonts-dejavu-core), "
        "or name one by the variable CHROMIUM."
    )
    browser = playwright.chromium.launch(
        executable_path=path,
        args=["--disable-gpu", "--font-render-hinting=none", "--disable-lcd-text"],
        env={**os.environ, "FONTCONFIG_FILE": str(_FONTS)},
    )
    try:
        yield browser
    finally:
        browser.close()
