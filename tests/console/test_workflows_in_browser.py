"""Workflows: versions, aliases, what they need; a new version by dropping a file."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import Version
from local.aws.template import TABLE
from local.dev import DevStack
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
    expect(page.get_by_role("heading", level=1)).to_be_focused()  # its button is another one by now
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


def test_the_operators_is_shown_as_it_is_beside_an_own_one_of_that_name(
    browsing: Browsing, ann: Person, samples: Samples, stack: DevStack, request: pytest.FixtureRequest
) -> None:
    bucket = stack.stack.environment_of("ApiFunction")["ASSETS_BUCKET"]
    store = WorkflowStore(Table(stack.aws.dynamodb(), TABLE), stack.aws.client(), bucket)
    for note in ("the operator's first", "the operator's second"):
        color = len(note)
        store.push(Version(name="both", number=0, owner="", graph=picture(color), note=note, created_by="ops"))
    store.share("both")
    request.addfinalizer(lambda: store.share("both", is_shared=False))  # pictures of others' lists are compared
    ann.request("PUT", "/api/v2/workflows/both", {"workflow": picture(3), "note": "Ann's"})
    page = console(browsing, ann, "run/both?source=operator")
    page.get_by_role("link", name="Versions").click()
    versions = page.get_by_role("region", name="Versions").locator("tbody tr")
    expect(versions).to_have_count(2)
    expect(versions.last).to_contain_text("the operator's first")
    expect(page.get_by_role("region", name="Versions")).not_to_contain_text("Ann's")
    versions.first.get_by_role("link", name="Run version 2").click()
    expect(page).to_have_url(re.compile("/run/both.*source=operator.*version=2"))


def test_it_looks_as_it_did(browsing: Browsing, bob: Person, samples_of_bob: Samples) -> None:
    page = console(browsing, bob, "workflows/text_to_image")
    expect(page.get_by_text("It has all nodes")).to_be_visible()
    shoot(page, "workflow", varying=["#who"])
