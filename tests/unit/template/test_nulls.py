"""CloudFormation refuses a template with a null anywhere, also deep inside a definition; no linter says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nulls import nulls
from tests.unit.template.processed import defaults, parse, processed

#: A value for each parameter that a condition may ask for.
OTHER = {
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:alarms",
    "MaximumApiConcurrency": 50,
    "InputRetentionDays": 7,
    "OutputRetentionDays": 7,
}
LIVE = {"LiveEvents": "true"}


@pytest.mark.parametrize("parameters", [{}, OTHER, LIVE, {**OTHER, **LIVE, "MaximumWatchers": 0}])
def test_what_sam_makes_of_the_template_has_no_null(parameters: dict[str, Any]) -> None:
    assert parameters.keys() <= defaults().keys()
    assert list(nulls(processed(parameters))) == []


@pytest.mark.parametrize("name", ["template.yaml", "repositories.yaml", "budget.yaml"])
def test_a_template_has_no_null_as_it_is_written(name: str) -> None:
    assert list(nulls(parse(name))) == []


def test_a_null_is_found_wherever_it_is() -> None:
    assert list(nulls({"a": [{"b": None}, 0, ""], "c": {}, "d": None})) == ["/a/0/b", "/d"]
