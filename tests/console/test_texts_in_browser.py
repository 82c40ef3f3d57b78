"""Texts as people write them: long ones, without a blank, and those that go from right to left."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from local.dev import DevStack
from tests.console.at_console import console
from tests.console.browsing import PHONE, Browsing
from tests.console.samples import Person, Samples, picture

LONG = "W" * 180
#: Read from the right, its full stop is at the left, and the Latin word between the others.
ARABIC = "ثعلب أحمر photo في الثلج."
NAME = "L" * 64
#: Where the letters of a text are: their left edges, in the order in which they stand in it.
_LEFT_EDGES = """(element) => {
  const text = element.firstChild;
  return [...text.data].map((_, place) => {
    const range = document.createRange();
    range.setStart(text, place);
    range.setEnd(text, place + 1);
    return range.getBoundingClientRect().left;
  });
}"""
#: Whether all of a label's value can be seen: nothing is cut off it, and it lies within its label.
_IS_WHOLE = """(label) => {
  const value = label.querySelector(".pair").lastChild;
  const [own, room] = [value.getBoundingClientRect(), label.getBoundingClientRect()];
  return value.scrollWidth <= value.clientWidth && own.width > 0 && own.right <= room.right && own.left >= room.left;
}"""
#: How far the texts of a graph's nodes can be seen beyond their nodes, in pixels.
_BEYOND = """() => Math.max(...[...document.querySelectorAll(".graph .node")].flatMap((node) => {
  const rect = node.querySelector("rect");
  const { left, right, width } = rect.getBoundingClientRect();
  const scale = width / rect.width.baseVal.value;
  return [...node.querySelectorAll("text")].map((text) => {
    const clip = text.ownerSVGElement;
    const isCut = node.contains(clip) && getComputedStyle(clip).overflowX !== "visible";
    const end = isCut ? left + clip.width.baseVal.value * scale : Infinity;
    return Math.min(text.getBoundingClientRect().right, end) - right;
  });
}))"""


@pytest.fixture(scope="module")
def lea(stack: DevStack) -> Person:
    """Somebody who writes much, in Arabic and without blanks."""
    return Person(stack.url, "lea", stack.keys.create("lea", owner="lea").text)


@pytest.fixture(scope="module")
def long_texts(lea: Person, samples: Samples) -> dict[str, str]:
    """Each page that shows something that she has named, by its address."""
    color = {"target": "1.color", "title": LONG, "description": LONG * 3}
    width = {"target": "1.width", "title": "العرض", "description": ARABIC}
    prefix = {"target": "2.filename_prefix", "default": LONG[:60]}
    graph = picture(255)
    graph["1"]["_meta"] = {"title": LONG}
    graph["2"]["_meta"] = {"title": "采样器" * 30}
    inputs = {"color": color, "w" * 64: width, "prefix": prefix}
    body = {"workflow": graph, "inputs": inputs, "description": LONG * 4, "note": LONG}
    lea.request("PUT", f"/api/v2/workflows/{NAME}", body)
    lea.request("PUT", "/api/v2/workflows/arabic", {**body, "description": ARABIC})
    run = {"inputs": {}, "metadata": {"n" * 40: LONG}}
    job = lea.request("POST", f"/api/v2/workflows/{NAME}/runs?wait_s=20", run)
    line = {"workflow": NAME, "metadata": {"n" * 40: LONG}}
    lea.request("POST", "/api/v2/batches", {"name": NAME[:40], "lines": [line]})
    pages = ("jobs", "gallery", "run", f"run/{NAME}", "workflows", f"workflows/{NAME}", f"batches/{NAME[:40]}", "usage")
    return {**{path.partition("/L")[0] + ("/NAME" if "/L" in path else ""): path for path in pages},
           "job": f"jobs/{lea.end_of(job['id'])['id']}"}  # fmt: skip


@pytest.mark.parametrize(
    "page_of", ["jobs", "job", "gallery", "run", "run/NAME", "workflows", "workflows/NAME", "batches/NAME", "usage"]
)
def test_no_text_is_wider_than_its_page(
    browsing: Browsing, lea: Person, long_texts: dict[str, str], page_of: str
) -> None:
    page = console(browsing, lea, long_texts[page_of], viewport={**PHONE, "width": 360})
    expect(page.locator("main[aria-busy=true]")).to_have_count(0)
    expect(page.locator("main")).to_contain_text(re.compile("W{20}|L{20}|采样器采样器"))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_titles_of_nodes_end_with_their_nodes(browsing: Browsing, lea: Person, long_texts: dict[str, str]) -> None:
    page = console(browsing, lea, long_texts["job"])
    expect(page.locator(".graph .node")).to_have_count(2)
    assert page.evaluate(_BEYOND) <= 0


def test_a_text_is_read_from_the_side_that_it_is_written_from(
    browsing: Browsing, lea: Person, long_texts: dict[str, str]
) -> None:
    page = console(browsing, lea, "run/arabic")
    described = page.locator(".about")
    expect(described).to_have_text(ARABIC)
    assert _first_is_right_of_last(page, ".about")
    assert _first_is_right_of_last(page, "small.hint >> nth=1")
    prompt = page.get_by_label("Prefix")
    assert prompt.evaluate("(field) => getComputedStyle(field).unicodeBidi") == "plaintext"


def _first_is_right_of_last(page: Page, selector: str) -> bool:
    edges = page.locator(selector).evaluate(_LEFT_EDGES)
    return bool(edges[0] > edges[-1])


@pytest.mark.parametrize(("name", "value"), [("n" * 60, "autumn"), ("n" * 60, "7"), ("i", "a value of many letters")])
def test_a_label_with_a_long_name_shows_its_value(browsing: Browsing, lea: Person, name: str, value: str) -> None:
    job = lea.submit(picture(255), metadata={name: value})
    lea.end_of(job)
    page = console(browsing, lea, f"jobs?label={name}={value}")
    shown, picked = page.locator(".job .label"), page.locator(".chip.picked")
    for label in (shown, picked):
        expect(label).to_have_count(1)
        expect(label).to_contain_text(value)
        assert label.evaluate(_IS_WHOLE)
    expect(picked).to_have_text(f"{name}={value}")
    assert picked.locator("svg").evaluate("(cross) => cross.getBoundingClientRect().width") == 12
    page.goto(f"{lea.url}/#/jobs/{job}")
    of_job = page.get_by_role("region", name="Facts").locator(".label")
    expect(of_job).to_have_count(1)
    assert of_job.evaluate(_IS_WHOLE)
