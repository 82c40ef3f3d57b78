"""The API refuses requests whose files are in buckets that are not listed, and queues nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api_world import RESULTS, ApiWorld, api_world

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "s3://theirs/is but a text"}},
}
MODEL = {"folder": "loras", "name": "a.safetensors", "sha256": "0" * 64}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, allowed_input_buckets=("photos",)) as world:
        yield world


def with_image(address: str) -> dict[str, Any]:
    return {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": address}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": {"1.image": "s3://theirs/fox.png"}},
        {"set": {"1.image": "s3://theirs/fox.png"}},
        {"models": [{**MODEL, "url": "s3://theirs/a.safetensors"}]},
        {"workflow": with_image("s3://theirs/fox.png")},
        {"workflow": "s3://theirs/w.json"},
    ],
)
def test_a_request_with_a_file_of_another_bucket_is_422(api: ApiWorld, fields: dict[str, Any]) -> None:
    answer = api.request("POST", "/generate", body={"workflow": GRAPH, "wait_s": 0, **fields})
    assert (answer.status, answer.code) == (422, "missing_asset")
    assert api.messages() == []


def test_a_job_of_the_sdk_likewise(api: ApiWorld) -> None:
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": with_image("s3://theirs/fox.png")})
    assert (answer.status, answer.code) == (422, "missing_asset")
    assert "InputBuckets" in answer.json["error"]["message"]


@pytest.mark.parametrize("address", ["s3://photos/fox.png", f"s3://{RESULTS}/owners/team/a/9/fox.png"])
def test_listed_buckets_and_the_callers_own_results_are_taken(api: ApiWorld, address: str) -> None:
    answer = api.request("POST", "/generate", body={"workflow": GRAPH, "wait_s": 0, "inputs": {"1.image": address}})
    assert answer.status == 202
    assert len(api.messages()) == 1
