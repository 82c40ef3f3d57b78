"""How fast the console is, beside an empty page that the same server sends: no absolute times."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from comfy_serverless.api.console import SHELL
from tests.console.at_console import KEY
from tests.console.browsing import Browsing
from tests.console.samples import Person, Samples

ROUNDS = 5
#: The page, its shell, and what the list of jobs is made of, compressed. There are ten, of 30 kB.
MOST_REQUESTS, MOST_BYTES = 12, 40_000
EMPTY = "<!doctype html><html lang=en><meta charset=utf-8><title>empty</title><link rel=icon href='data:,'>{}<p>Empty."
PAINTED = """() => new Promise((done) => {
  const find = () => {
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    if (paint) done(paint.startTime); else setTimeout(find, 5);
  };
  find();
})"""
LOADED = """() => [
  ...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")
].map(({name, encodedBodySize: bytes, startTime: began, responseEnd: ended}) => (
  {path: new URL(name).pathname, bytes, began, ended}
))"""


def test_the_first_paint_is_soon_after_that_of_an_empty_page(browsing: Browsing, ann: Person, samples: Samples) -> None:
    """The empty page has as many bytes, and comes the same way; the least of some rounds each, in turns."""
    page = browsing.open("/docs")
    size = len(page.request.get("/").body())
    page.route("**/nothing", lambda route: route.fulfill(body=EMPTY.format(" " * size), content_type="text/html"))
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    ours, floor = [], []
    for _ in range(ROUNDS):
        floor.append(painted_ms(page, "/nothing"))
        ours.append(painted_ms(page, "/"))
    # Both take 150 ms, on two cores with a load of 20: what is painted first waits for no data and no module.
    assert min(ours) < 3 * min(floor) + 100, f"{min(ours):.0f} ms, and {min(floor):.0f} ms of an empty page"


def test_little_is_loaded_at_first_and_the_shell_all_at_once(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = browsing.open()
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.goto("/#/jobs")
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem").first).to_be_visible()
    loaded = [one for one in page.evaluate(LOADED) if one["path"] == "/" or one["path"].startswith("/console/")]
    names = [one["path"].removeprefix("/console/") for one in loaded]
    print(
        "LOADED",
        len(loaded),
        sum(o["bytes"] for o in loaded),
        [(o["path"], o["bytes"], o["began"], o["ended"]) for o in loaded],
    )
    assert len(names) <= MOST_REQUESTS, names
    assert len(set(names)) == len(names), f"something is loaded twice: {names}"
    assert sum(one["bytes"] for one in loaded) <= MOST_BYTES, [(one["path"], one["bytes"]) for one in loaded]
    shell = [one for one in loaded if one["path"].removeprefix("/console/") in SHELL]
    assert {one["path"].removeprefix("/console/") for one in shell} == set(SHELL)
    assert max(one["began"] for one in shell) < min(one["ended"] for one in shell), "the page asks for all at once"


def painted_ms(page: Page, path: str) -> float:
    """When the first content of a page is painted, in ms since its address was asked for."""
    page.goto(path)
    painted: float = page.evaluate(PAINTED)
    return painted
