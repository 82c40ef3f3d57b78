"""What it costs to check the inputs of a run."""

from __future__ import annotations

import json

import pytest

from benchmarks.input_check import BODY, EDITORS, NamedRun, ratio, version
from comfy_serverless.workflows.schema import InputCheck


def test_the_request_that_is_measured_fits() -> None:
    assert InputCheck.of(version(10)).problems(json.loads(BODY)) == []


@pytest.mark.parametrize("choices", [10, 1_000])
def test_a_check_costs_about_what_reading_the_body_does(choices: int) -> None:
    """Some four microseconds each, where a millisecond is allowed."""
    assert ratio(choices) < 15


def test_a_run_by_name_costs_one_read_and_about_what_reading_its_copies_does() -> None:
    """Some 0.3 ms, where a millisecond is allowed: what is made of a version is made once."""
    assert 10_000 < len(json.dumps(EDITORS)) < 20_000
    run = NamedRun()
    assert run.reads == 1
    ours, floor = run.costs_ms()
    assert ours < floor * 5
