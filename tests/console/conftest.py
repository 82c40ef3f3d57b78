"""One stack, one browser, two owners with something to show, and somebody with an admin's key: for all tests here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.dev import OWNER, DevStack
from tests.console.browsing import Browsing, chromium
from tests.console.samples import Person, Samples, make_samples, painting
from tests.patience import PATIENCE_S, wait_until

#: The embedded engine, with a node that makes films, sounds, models and hostile files.
ENGINE = f"{sys.executable} {Path(__file__).with_name('media_engine.py')}"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """What `make dev` starts, with two workers: a job that takes long leaves one to others."""
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), workers=2, engine=ENGINE) as started:
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser. What is expected of a page may take as long as anything in these tests."""
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright, chromium(playwright) as started:
        yield started


@pytest.fixture
def browsing(stack: DevStack, browser: Browser) -> Iterator[Browsing]:
    """Sessions of the browser at the stack; whatever went wrong on one of their pages fails the test at its end."""
    sessions = Browsing(browser, stack.url, origins={stack.aws.endpoint_url})
    yield sessions
    sessions.close()
    assert sessions.seen() == []


@pytest.fixture
def page(browsing: Browsing) -> Page:
    """A page that has gone nowhere yet, as wide as a laptop's."""
    return browsing.open()


@pytest.fixture(scope="session")
def ann(stack: DevStack) -> Person:
    """The stack's own owner: what is dropped into its bucket is hers, too."""
    return Person(stack.url, OWNER, stack.api_key)


@pytest.fixture(scope="session")
def bob(stack: DevStack) -> Person:
    """Another owner."""
    return Person(stack.url, "bob", stack.keys.create("bob", owner="bob").text)


@pytest.fixture(scope="session")
def admin(stack: DevStack) -> Person:
    """Somebody with an admin's key, and nothing of her own."""
    return Person(stack.url, "ops", stack.keys.create("ops", owner="ops", is_admin=True).text)


@pytest.fixture(scope="session")
def samples(ann: Person) -> Samples:
    """What Ann has made."""
    return make_samples(ann)


@pytest.fixture(scope="session")
def samples_of_bob(bob: Person) -> Samples:
    """What Bob has made."""
    return make_samples(bob)


@pytest.fixture
def start_long(ann: Person) -> Iterator[Callable[[], str]]:
    """`start_long()` starts a job of Ann's that runs until the test is over, and returns its id once it runs."""
    started: list[str] = []

    def start() -> str:
        started.append(job_id := ann.submit(painting(steps=10_000, seed=len(started))))
        assert wait_until(lambda: ann.job(job_id)["status"] == "running"), ann.job(job_id)
        return job_id

    yield start
    for job_id in started:
        ann.request("POST", f"/api/v2/jobs/{job_id}/cancel")
        ann.end_of(job_id)
