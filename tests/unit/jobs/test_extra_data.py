"""`extra_data`: what may be kept is, keys are not, and there are limits."""

from __future__ import annotations

import json

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.extra_data import MAX_EXTRA_DATA_BYTES, MAX_SECRET_BYTES, split
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import StoredRequest

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}}


@pytest.mark.parametrize(
    "name",
    ["api_key_comfy_org", "auth_token_comfy_org", "apiKey", "openai_key", "key", "client_secret", "PASSWORD", "auth"],
)
def test_keys_are_secrets(name: str) -> None:
    assert split({name: "s"}) == ({}, {name: "s"})


@pytest.mark.parametrize("name", ["extra_pnginfo", "preview_method", "keyframes", "author", "monkey"])
def test_other_data_may_be_kept(name: str) -> None:
    assert split({name: "s"}) == ({name: "s"}, {})


def test_a_stored_request_has_no_keys() -> None:
    request = JobRequest.parse(
        {"job_id": "a", "workflow": GRAPH, "extra_data": {"extra_pnginfo": {"a": 1}, "api_key_comfy_org": "hush"}}
    )
    stored = StoredRequest(request.with_warnings(["left out"]), GRAPH).to_bytes()
    assert b"hush" not in stored
    assert "hush" not in repr(request)
    again = StoredRequest.parse(json.loads(stored)).request
    assert again.extra_data == {"extra_pnginfo": {"a": 1}}
    assert again.warnings == ("left out",)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"a": "x" * MAX_EXTRA_DATA_BYTES}, "at most 2,000,000"),
        ({"api_key": "x" * MAX_SECRET_BYTES}, "keys and tokens"),
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
