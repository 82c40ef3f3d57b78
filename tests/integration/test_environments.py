"""From an install to what an image is built from, by the real commands, with an outside on this machine.

What ComfyUI says of such packs: tests/contract/test_environment_of_packs.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import broken
from tests.environments.checkout import Checkout, git, registry
from tests.environments.outside import Outside, outside

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture
def checkout(tmp_path: Path, world: Outside) -> Checkout:
    (tmp_path / "checkout").mkdir()
    return Checkout(tmp_path / "checkout", world)


SIX = ("kit_good", "kit_web", "kit_v3", "kit_source", "kit_needs_compiler", "kit_one_file")


def test_what_somebody_reads_of_a_broken_environment_is_recorded_for_each() -> None:
    assert list(broken.recorded()) == list(broken.ENVIRONMENTS)
    assert len(broken.ENVIRONMENTS) >= 10


@pytest.mark.parametrize("title", broken.ENVIRONMENTS)
def test_a_broken_environment_is_not_locked_and_says_why(title: str, world: Outside, tmp_path: Path) -> None:
    assert broken.said(title, world, tmp_path) == broken.recorded()[title], (
        "python -m tests.environments.broken records what is said now"
    )


def test_an_override_that_was_proposed_resolves_the_conflict(checkout: Checkout) -> None:
    conflict = [registry("kit_conflict_a"), registry("kit_conflict_b")]
    checkout.write(*conflict)
    refused = checkout.env("lock", "--json")
    (override,) = json.loads(refused.stdout)["error"]["details"]["override"]
    checkout.write(*conflict, pip=[override])
    checkout.succeeds("lock")
    assert override in json.loads(checkout.lock_file.read_text())["overrides"]


def test_the_same_file_locked_twice_is_the_same_lock_to_the_byte(checkout: Checkout, world: Outside) -> None:
    checkout.write(*(registry(name) for name in SIX[:4]), git("kit_web_git", world.repository("kit_web").url, "v2.0.0"))
    checkout.succeeds("lock")
    first = checkout.lock_file.read_bytes()
    checkout.succeeds("lock")
    assert checkout.lock_file.read_bytes() == first
    checkout.lock_file.unlink()
    checkout.succeeds("lock")
    assert checkout.lock_file.read_bytes() == first, "nothing of the time, the machine or the order"
    assert str(world.folder).encode() not in re.sub(rb'"file://[^"]*"', b"", first)
