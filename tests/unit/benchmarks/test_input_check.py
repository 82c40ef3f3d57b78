"""What it costs to check the inputs of a run."""

from __future__ import annotations

import json

import pytest

from benchmarks.input_check import BODY, ratio, version
from comfy_serverless.workflows.schema import InputCheck


def test_the_request_that_is_measured_fits() -> None:
    assert InputCheck.of(version(10)).problems(json.loads(BODY)) == []


@pytest.mark.parametrize("choices", [10, 1_000])
def test_a_check_costs_about_what_reading_the_body_does(choices: int) -> None:
    """Some four microseconds each, where a millisecond is allowed."""
    assert ratio(choices) < 15
