"""What the API says to requests in other shapes than its own, and what it passes on to ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from tests.unit.api_world import ApiWorld, api_world

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}, "2": {"class_type": "SaveImage", "inputs": {}}}
PNGINFO: dict[str, Any] = {"extra_pnginfo": {"workflow": {"nodes": []}}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits
    with api_world(monkeypatch) as world:
        yield world


def stored(api: ApiWorld) -> tuple[dict[str, Any], bytes]:
    """The message of the job that was submitted last, and its stored request."""
    (message,) = api.messages()
    address = S3Address.parse(message["request"])
    return message, api.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (GRAPH, "this is a bare workflow: here it goes into a field"),
        ({"prompt": GRAPH, "client_id": "a"}, "this is a body of ComfyUI's /prompt"),
        ({"workflow": json.dumps(GRAPH)}, "POST /generate takes JSON in a text"),
        ({"workflow": "name"}, "POST /generate takes"),
        ({"workflow": GRAPH, "metdata": {}}, "did you mean 'metadata'?"),
        ({"workflow": GRAPH, "extra_data": {"api_key_comfyorg": "x"}}, "did you mean 'api_key_comfy_org'?"),
        ({"workflow": GRAPH, "deadline_s": 3}, "is not a field of a request"),
    ],
)
def test_the_contracts_door_says_what_to_do(api: ApiWorld, body: object, words: str) -> None:
    answer = api.request("POST", "/api/v2/jobs", body=body)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert words in answer.json["error"]["message"]
    assert api.messages() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"workflow": GRAPH, "deadlin_s": 3}, "did you mean 'deadline_s'?"),
        ({"workflow": GRAPH, "wait": 3}, "did you mean 'wait_s'?"),
        ({"workflow": GRAPH, "output": {"buckt": "b"}}, "did you mean 'bucket'?"),
        ({"workflow": GRAPH, "wait_s": "soon"}, "wait_s"),
    ],
)
def test_generate_guesses_what_was_meant(api: ApiWorld, body: object, words: str) -> None:
    answer = api.request("POST", "/generate", body=body)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert words in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v2/jobs", {"workflow": GRAPH, "extra_data": {**PNGINFO, "api_key_comfy_org": "hush"}}),
        ("/api/v2/jobs", {"workflow": {"prompt": GRAPH, "extra_data": {**PNGINFO, "api_key_comfy_org": "hush"}}}),
        ("/generate", {"prompt": GRAPH, "extra_data": {**PNGINFO, "api_key_comfy_org": "hush"}}),
        ("/generate", {"input": {"workflow": {"prompt": GRAPH, **PNGINFO}, "comfy_org_api_key": "hush"}}),
    ],
)
def test_data_for_comfyui_is_stored_and_keys_are_in_the_message_alone(api: ApiWorld, path: str, body: object) -> None:
    answer = api.request("POST", path, body=body)
    assert answer.status in (201, 202)
    message, document = stored(api)
    assert message["extra_data"] == {"api_key_comfy_org": "hush"}
    assert json.loads(document)["extra_data"] == PNGINFO
    assert b"hush" not in document
    shown = api.request("GET", f"/api/v2/jobs/{answer.json['id']}/workflow").json
    assert shown["workflow"] == GRAPH


def test_a_large_workflow_of_the_editor_may_come_with_a_graph(api: ApiWorld) -> None:
    ui = {"nodes": [{"id": number, "widgets_values": [1] * 10} for number in range(2000)], "links": []}
    answer = api.request("POST", "/generate", body={"prompt": GRAPH, "workflow": ui})
    assert answer.status == 202
    assert json.loads(stored(api)[1])["extra_data"] == {"extra_pnginfo": {"workflow": ui}}
