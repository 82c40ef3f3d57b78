"""What makes the console fast, without a clock: what it asks for, and what waits for what.

An answer that is held back waits for the test, so that an order is one on every machine. How long it takes is a figure
of `make bench-console`.
"""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, expect

from comfy_serverless.api.console import SHELL
from tests.console.at_console import KEY, Held, comes
from tests.console.browsing import Browsing
from tests.console.samples import Person, Samples

#: The page, its shell, and what the list of jobs is made of, compressed. There are ten, of 30 kB.
MOST_REQUESTS, MOST_BYTES = 12, 40_000
IS_PAINTED = '() => performance.getEntriesByName("first-contentful-paint").length > 0'
LOADED = """() => [
  ...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")
].map(({name, encodedBodySize: bytes}) => ({path: new URL(name).pathname, bytes}))"""


def with_key(browsing: Browsing, person: Person) -> Page:
    """A page that has gone nowhere yet, in a session that has somebody's key."""
    page = browsing.open()
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(person.key)})")
    return page


def test_what_is_painted_first_needs_no_module_and_no_data(browsing: Browsing, ann: Person) -> None:
    page = with_key(browsing, ann)
    further = Held(page, re.compile(r"/(console|api)/"))  # and never released
    page.goto("/#/jobs", wait_until="commit")
    expect(page.locator(".brand")).to_be_visible()
    page.wait_for_function(IS_PAINTED)
    assert comes(page, further.asked), "the page has asked for its modules"


def test_the_first_paint_needs_no_data_where_the_modules_are_there(browsing: Browsing, ann: Person) -> None:
    page = with_key(browsing, ann)
    data = Held(page, "**/api/**")
    page.goto("/#/jobs", wait_until="commit")
    expect(page.get_by_role("link", name="Gallery")).to_be_visible()  # of main.js
    page.wait_for_function(IS_PAINTED)
    assert comes(page, data.asked), "the page has asked for its jobs"


def test_the_shell_is_asked_for_all_at_once(browsing: Browsing, ann: Person, samples: Samples) -> None:
    """No answer comes before all are asked for: whatever waited for another would never be."""
    page = with_key(browsing, ann)
    modules = Held(page, "**/console/**")
    page.goto("/#/jobs", wait_until="commit")
    assert comes(page, lambda: len(modules.asked()) >= len(SHELL)), f"before any has come: {modules.asked()}"
    assert {address.rpartition("/")[2] for address in modules.asked()} == {*SHELL}
    modules.release()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem").first).to_be_visible()


def test_little_is_loaded_at_first_and_nothing_twice(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = with_key(browsing, ann)
    page.goto("/#/jobs")
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem").first).to_be_visible()
    loaded = [one for one in page.evaluate(LOADED) if one["path"] == "/" or one["path"].startswith("/console/")]
    names = [one["path"].removeprefix("/console/") for one in loaded]
    assert len(names) <= MOST_REQUESTS, names
    assert len(set(names)) == len(names), f"something is loaded twice: {names}"
    assert {*SHELL} <= {*names}
    assert sum(one["bytes"] for one in loaded) <= MOST_BYTES, [(one["path"], one["bytes"]) for one in loaded]
