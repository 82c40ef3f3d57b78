"""Costs are estimated from the operator's prices, exactly; and what a job's document says of its nodes has an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.jobs.document import MAX_NODES_TIMED, longest_nodes, worked_s
from comfy_serverless.jobs.prices import Prices, checked_budget, nanousd, usd
from comfy_serverless.settings import Settings


@pytest.mark.parametrize(
    ("settings", "seconds", "cost_usd"),
    [
        ({}, 10.0, None),
        ({"usd_per_second": 0.01}, 2.5, 0.025),
        ({"usd_per_request": 0.0000002}, 99.0, 0.0000002),
        ({"usd_per_second": 0.01, "usd_per_request": 0.5}, 0.0, 0.5),
        ({"usd_per_second": 0.0}, 5.0, 0.0),
        ({"usd_per_gb_second": 0.0000166667, "worker_memory_mb": 10_240}, 3600.0, 0.6000012),
        ({"usd_per_gb_second": 0.0000166667}, 3600.0, None),
        ({"usd_per_second": 1.0, "usd_per_gb_second": 5.0, "worker_memory_mb": 1024}, 2.0, 2.0),
    ],
)
def test_a_job_costs_its_seconds_and_its_request(
    settings: dict[str, Any], seconds: float, cost_usd: float | None
) -> None:
    cost = Prices.of(Settings(**settings)).cost_nanousd(seconds)
    assert (None if cost is None else usd(cost)) == cost_usd


@given(st.integers(0, 10**15))
def test_dollars_and_back_lose_nothing(amount_nanousd: int) -> None:
    assert nanousd(usd(amount_nanousd)) == amount_nanousd


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf"), 1e7])
def test_a_budget_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        checked_budget(wrong)


def test_the_smallest_budget_is_not_none() -> None:
    assert checked_budget(1e-12) == 1


def test_only_the_longest_nodes_are_told_and_none_by_what_cannot_be_written() -> None:
    told = longest_nodes({**{str(node): node for node in range(500)}, "\ud800": 9999, "x" * 1000: 9999})
    assert len(told) == MAX_NODES_TIMED
    assert list(told)[:2] == ["499", "498"]


def test_the_wait_for_other_jobs_is_no_work() -> None:
    assert worked_s({"total": 3000, "queued": 1000}) == 2.0
    assert worked_s({"total": 5}) == 0.005
    assert worked_s({}) == 0.0
    assert worked_s({"total": 1, "queued": 5}) == 0.0
