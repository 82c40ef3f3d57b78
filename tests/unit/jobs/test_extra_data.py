"""`extra_data`: what may be kept is, keys are not, and there are limits."""

from __future__ import annotations

import json
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.extra_data import MAX_EXTRA_DATA_BYTES, MAX_UNKEPT_BYTES, split
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import StoredRequest, submitted_workflow
from comfy_serverless.redaction import sounds_of_keys

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}}


NAMES = (
    *("api_key_comfy_org", "auth_token_comfy_org", "apiKey", "openai_key", "key", "client_secret", "PASSWORD", "auth"),
    *("x-api-key", "api-key", "accessKey", "privateKey", "bearer", "pwd", "cookie", "services", "EXTRA_PNGINFO", ""),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_known_to_be_harmless_is_not_kept(name: str) -> None:
    assert split({name: "s"}) == ({}, {name: "s"})


@pytest.mark.parametrize("data", [{"extra_pnginfo": {"workflow": {}}}, {"preview_method": "auto"}, {"create_time": 1}])
def test_what_the_editor_sends_is_kept(data: dict[str, Any]) -> None:
    assert split(data) == (data, {})


@pytest.mark.parametrize(
    "data", [{"extra_pnginfo": "Bearer s"}, {"preview_method": {"token": "s"}}, {"create_time": "s" * 101}]
)
def test_but_not_under_a_name_that_it_does_not_have(data: dict[str, Any]) -> None:
    assert split(data) == ({}, data)


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ('{"api_key_comfy_org": "s"', True),
        ("""{"workflow": "{\\"x-api-key\\" : \\"s\\"}"}""", True),
        ('{"Authorization":"s"}', True),
        ('{"hf_token": "s"}', True),
        ('{"openaiKey": "s"', True),
        ('{"max_new_tokens": 5, "text": "a secret garden, the key: a token", "monkey": 1}', False),
    ],
)
def test_names_of_keys_are_found_in_any_text(text: str, sounds: bool) -> None:
    assert sounds_of_keys(text) == sounds


def test_a_stored_request_has_no_keys() -> None:
    request = JobRequest.parse(
        {"job_id": "a", "workflow": GRAPH, "extra_data": {"extra_pnginfo": {"a": 1}, "api_key_comfy_org": "hush"}}
    )
    stored = StoredRequest(request.with_warnings(["left out"]), GRAPH).to_bytes()
    assert b"hush" not in stored
    assert "hush" not in repr(request)
    document = json.loads(stored)
    again = StoredRequest.parse(document).request
    assert again.extra_data == {"extra_pnginfo": {"a": 1}}
    assert again.warnings == ("left out",)
    inside = {**document.pop("request"), "extra_data": document.pop("extra_data")}
    assert StoredRequest.parse({"request": inside, **document}).request.extra_data == again.extra_data


def test_a_workflow_is_shown_as_json_whatever_was_dropped() -> None:
    graph = {"1": {**GRAPH["1"], "is_changed": [float("nan")]}}
    body = StoredRequest(JobRequest.parse(graph), graph).to_bytes()
    s3: Any = SimpleNamespace(get_object=lambda **_: {"Body": BytesIO(body)})
    assert submitted_workflow(s3, S3Address("b", "k")) == {"1": {**GRAPH["1"], "is_changed": [None]}}


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"extra_pnginfo": {"a": "x" * MAX_EXTRA_DATA_BYTES}}, "at most 2,000,000"),
        ({"mine": "x" * MAX_UNKEPT_BYTES}, "bytes in mine; at most 64,000 beside `extra_pnginfo`.*message"),
        ({"a": nested(100)}, "levels deep"),
        ("text", "extra_data"),
        ([], "extra_data"),
    ],
)
def test_data_has_limits(data: object, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        JobRequest.parse({"workflow": GRAPH, "extra_data": data})


def test_an_address_of_a_stored_request_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "comfy_serverless.jobs.stored_request.read_json",
        lambda *_, **__: {"request": {"workflow": GRAPH}, "warnings": "no list"},
    )
    stored = StoredRequest.read(None, S3Address("b", "k"))  # type: ignore[arg-type]
    assert stored.request.warnings == ()
