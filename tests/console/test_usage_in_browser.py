"""Usage and keys: one's own for everybody, all of it for an admin, whose keys are shown once."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from local.dev import OWNER, DevStack
from tests.console.accessible import check_accessible
from tests.console.at_console import console, go
from tests.console.browsing import Browsing
from tests.console.samples import Person, Samples


@pytest.fixture(scope="session")
def boss(stack: DevStack) -> Person:
    """Somebody with an admin's key."""
    return Person(stack.url, OWNER, stack.keys.create("boss", owner=OWNER, is_admin=True).text)


def test_an_owner_sees_what_his_jobs_took_and_nobody_else_s(
    browsing: Browsing, bob: Person, samples: Samples, samples_of_bob: Samples
) -> None:
    page = console(browsing, bob, "usage")
    table = page.get_by_role("region", name="Usage")
    expect(table).to_contain_text("text_to_image")
    expect(page.get_by_role("img", name=re.compile("Jobs a day"))).to_be_visible()
    expect(page.get_by_role("link", name="Owner")).to_have_count(0)
    expect(page.get_by_role("heading", name="Keys")).to_have_count(0)
    assert OWNER not in page.locator("main").inner_text().split()
    check_accessible(page, "usage")


def test_an_admin_makes_a_key_that_is_shown_once_and_ends_it(
    browsing: Browsing, boss: Person, samples: Samples, samples_of_bob: Samples
) -> None:
    page = console(browsing, boss, "usage")
    expect(page.get_by_role("region", name="Usage")).to_contain_text("bob")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("for-the-app")
    page.get_by_label("Owner", exact=True).fill("carol")
    page.get_by_label("Jobs at once").fill("3")
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator(".secret code")
    text = secret.inner_text()
    check_accessible(page, "key-made")
    carol = Person(boss.url, "carol", text)
    assert carol.request("GET", "/api/v2/me")["owner"] == "carol"
    page.keyboard.press("Escape")
    row = page.get_by_role("region", name="Keys").locator("tr", has_text="for-the-app")
    expect(row).to_contain_text("3 at once")
    assert text not in page.content()
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke it").click()
    expect(row).to_contain_text("revoked")
    go(page, "usage?by=workflow&owner=bob")
    expect(page.get_by_role("heading", level=1)).to_have_text("Usage of bob")
