"""A request that comes through SNS is read in every envelope in which it is read elsewhere; other letters are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.handlers.envelopes import Letter, UnknownEvent, contents_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.shapes import ENVELOPES
from tests.unit.envelope_samples import from_sns

GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {}}}


@pytest.mark.parametrize("name", ENVELOPES)
@pytest.mark.parametrize("inner", [{"workflow": GRAPH}, [{"prompt": GRAPH}], json.dumps({"workflow": "name"})])
def test_a_request_in_an_envelope_comes_through_sns(name: str, inner: object) -> None:
    message = {name: inner}
    (content,) = contents_of(from_sns(json.dumps(message)))
    assert isinstance(content, Letter)
    assert JobRequest.parse(content.body) == JobRequest.parse(message)


@pytest.mark.parametrize(
    "message", [{"data": {"a": 1}}, {"body": "[ERROR] it burns"}, {"json": "{it: burns}"}, [{"a": 1}]]
)
def test_a_letter_about_something_else_is_none(message: object) -> None:
    (content,) = contents_of(from_sns(json.dumps(message)))
    assert isinstance(content, UnknownEvent)
