"""Which version a caller gets of an alias that leads to several."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from comfy_serverless.workflows.pick import MOST_VERSIONS, checked, key_for, pick

SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
KEYS = some.text(max_size=20)
WEIGHTS = some.dictionaries(some.integers(1, 999), some.integers(1, 1_000_000), min_size=1, max_size=MOST_VERSIONS)


@SLOW
@given(weights=WEIGHTS, key=KEYS)
def test_the_same_key_has_the_same_version_and_one_that_is_meant(weights: dict[int, int], key: str) -> None:
    assert pick(weights, key) in weights
    assert pick(dict(reversed(weights.items())), key) == pick(weights, key)


@SLOW
@given(weights=WEIGHTS, key=KEYS, factor=some.integers(1, 1_000))
def test_shares_count_not_sums(weights: dict[int, int], key: str, factor: int) -> None:
    assert pick({version: weight * factor for version, weight in weights.items()}, key) == pick(weights, key)


def test_each_version_gets_its_share() -> None:
    got = Counter(pick({3: 90, 4: 10}, f"key {number}") for number in range(10_000))
    assert abs(got[4] - 1_000) < 150
    assert got.keys() == {3, 4}


def test_a_version_without_weight_is_never_picked() -> None:
    assert {pick({3: 0, 4: 1}, str(number)) for number in range(100)} == {4}


def test_who_has_the_new_version_keeps_it_when_its_share_grows() -> None:
    keys = [f"key {number}" for number in range(1_000)]
    with_new = {key for key in keys if pick({3: 90, 4: 10}, key) == 4}
    assert with_new <= {key for key in keys if pick({3: 50, 4: 50}, key) == 4}


def test_two_workflows_do_not_share_their_guinea_pigs() -> None:
    def new(name: str, alias: str) -> set[int]:
        return {number for number in range(1_000) if pick({1: 1, 2: 1}, key_for(name, alias, str(number))) == 2}

    assert len(new("poster", "live") & new("banner", "live")) < 350
    assert len(new("poster", "live") & new("poster", "staging")) < 350
    assert key_for("a", "bc", "d") != key_for("ab", "c", "d")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({4: 1, 3: 9}, {3: 9, 4: 1}),
        ({1: 0.25, 2: 0.75}, {1: 250_000, 2: 750_000}),
        ({1: 1e-9, 2: 1}, {1: 1, 2: 1_000_000}),
        ({1: 2.0, 2: 0}, {1: 2}),
    ],
)
def test_weights_are_kept_whole(given: dict[int, float], kept: dict[int, int]) -> None:
    assert checked(given) == kept
