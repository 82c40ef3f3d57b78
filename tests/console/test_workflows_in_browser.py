"""Workflows: versions, aliases, what they need; a new version by dropping a file."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.console.accessible import check_accessible
from tests.console.at_console import console, drop
from tests.console.browsing import Browsing
from tests.console.pictures import shoot
from tests.console.samples import HOSTILE, Person, Samples, picture


def test_a_dropped_file_becomes_a_version_that_is_promoted_split_and_rolled_back(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    ann.request("PUT", "/api/v2/workflows/moved", {"workflow": picture(1), "note": HOSTILE})
    page = console(browsing, ann, "workflows/moved")
    expect(page.get_by_role("region", name="Versions")).to_contain_text(HOSTILE)
    drop(page, "main", {"second.json": json.dumps(picture(2)).encode()})
    page.get_by_role("button", name="Keep as a new version").click()
    page.get_by_label("What is new").fill("another color")
    page.get_by_role("button", name="Keep", exact=True).click()
    versions = page.get_by_role("region", name="Versions").locator("tbody tr")
    expect(versions).to_have_count(2)
    expect(versions.first).to_contain_text("another color")
    versions.first.get_by_role("button", name="Promote").click()
    expect(versions.first.locator(".chip")).to_have_text("live")
    page.get_by_role("button", name="Move or split").click()
    page.get_by_label("Leads to").fill("1=90 2=10")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.get_by_text("v1 90 %, v2 10 %").first).to_be_visible()
    assert ann.request("GET", "/api/v2/workflows/moved")["aliases"]["live"]["weights"] == {"1": 90, "2": 10}
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator(".toast").last).to_contain_text("live is v2 now")
    check_accessible(page, "workflow")


def test_what_it_needs_is_said(browsing: Browsing, ann: Person, samples: Samples) -> None:
    graph = picture(1)
    graph["2"] = {"class_type": "NobodyHasThis", "inputs": {"images": ["1", 0]}}
    ann.request("PUT", "/api/v2/workflows/needy", {"workflow": graph, "force": True})
    page = console(browsing, ann, "workflows/needy")
    expect(page.locator(".notice.bad")).to_contain_text("NobodyHasThis")
    page.get_by_role("link", name="Workflows").click()
    expect(page.locator("li", has_text="needy").locator(".chip.bad")).to_have_text("v1 would fail")
    check_accessible(page, "workflows")


def test_a_retired_one_is_gone(browsing: Browsing, ann: Person, samples: Samples) -> None:
    ann.request("PUT", "/api/v2/workflows/gone", {"workflow": picture(1)})
    page = console(browsing, ann, "workflows/gone")
    page.get_by_role("button", name="Retire").click()
    page.get_by_role("button", name="Retire it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Workflows")
    expect(page.get_by_role("link", name="gone", exact=True)).to_have_count(0)


def test_it_looks_as_it_did(browsing: Browsing, bob: Person, samples_of_bob: Samples) -> None:
    page = console(browsing, bob, "workflows/text_to_image")
    expect(page.get_by_text("It has all nodes")).to_be_visible()
    shoot(page, "workflow", varying=["#who"])
