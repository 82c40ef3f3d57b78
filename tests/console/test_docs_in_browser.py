"""The page at `/docs` in a real browser: a key is typed, requests are sent, and what workflows say runs nothing."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
from playwright.sync_api import Page, expect

from tests.console.accessible import check_accessible
from tests.console.browsing import Browsing
from tests.console.pictures import shoot
from tests.console.samples import HOSTILE, Person, picture

RUN = "/api/v2/workflows/{}/runs"


@pytest.fixture(scope="module")
def hostile(ann: Person) -> str:
    """A workflow of Ann's whose texts would run, if anything took them for HTML."""
    color = {"target": "1.color", "title": HOSTILE, "description": HOSTILE}
    body = {"workflow": picture(255), "inputs": {"color": color}, "description": HOSTILE}
    ann.request("PUT", "/api/v2/workflows/hostile", body)
    return "hostile"


def test_a_typed_key_shows_its_owner_s_workflows_and_nobody_else_s(
    browsing: Browsing, ann: Person, bob: Person, hostile: str
) -> None:
    page = browsing.open("/docs")
    mine = page.locator("summary", has_text=RUN.format(hostile))
    expect(page.locator("summary", has_text=RUN.format("{name}"))).to_have_count(1)
    expect(mine).to_have_count(0)
    type_key(page, ann.key)
    expect(mine).to_have_count(1)
    expect(mine).to_contain_text(HOSTILE)
    type_key(page, bob.key)
    expect(mine).to_have_count(0)
    browsing.watched(page).expect("401")
    type_key(page, "made-up")
    expect(page.locator("#note")).to_contain_text("API key")
    type_key(page, "")
    expect(page.locator("#note")).to_have_text("")
    assert page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_job_is_sent_from_the_page_and_asked_for_by_its_id(browsing: Browsing, ann: Person) -> None:
    page = browsing.open("/docs")
    type_key(page, ann.key)
    sent = answer_of(page, "POST", "/api/v2/jobs")
    assert sent.startswith("201\n"), sent
    job_id = sent.split('"id": "', 1)[1].split('"', 1)[0]
    ann.end_of(job_id)
    told = answer_of(page, "GET", "/api/v2/jobs/{id}")  # the form has taken the id
    assert told.startswith("200\n"), told
    assert job_id in told


def test_anybody_can_read_the_page(browsing: Browsing, ann: Person, hostile: str) -> None:
    page = browsing.open("/docs")
    type_key(page, ann.key)
    route = page.locator("details", has_text=RUN.format(hostile)).first
    route.locator("summary").click()
    check_accessible(page, "docs")


def test_the_page_looks_as_it_did(browsing: Browsing) -> None:
    page = browsing.open("/docs")
    page.locator("summary").first.wait_for()
    shoot(page, "docs", varying=["#routes"])  # which grow with each route of the API


def type_key(page: Page, text: str) -> None:
    """As somebody does: letters, then Tab."""
    field = page.locator("#key")
    field.fill("")
    field.press_sequentially(text)
    with page.expect_response("**/openapi.json") if text else nullcontext():
        field.press("Tab")


def answer_of(page: Page, method: str, path: str) -> str:
    """What the page shows after a click on Send."""
    summary = page.locator("summary").filter(
        has=page.locator("b", has_text=method), has_text=re.compile(re.escape(path) + r"(?![/{\w])")
    )
    summary.click()
    route = page.locator("details[open]").filter(has=summary)
    route.get_by_role("button", name="Send").click()
    shown = route.locator("pre")
    expect(shown).to_have_text(re.compile(r"^\d{3}"))
    return shown.inner_text()
