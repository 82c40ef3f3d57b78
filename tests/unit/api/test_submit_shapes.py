"""POST /api/v2/jobs takes what the contract has, reads it as all doors do, and says where other shapes go."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api.bodies import GenerateBody
from comfy_serverless.aws.s3 import S3Address
from tests.unit.api_world import ApiWorld, api_world

GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
UI: dict[str, Any] = {"nodes": [], "links": []}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch, api_world(patch) as world:
        patch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits
        yield world


def refusal(api: ApiWorld, body: object) -> str:
    answer = api.request("POST", "/api/v2/jobs", body=body)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert api.messages() == []
    return str(answer.json["error"]["message"])


@pytest.mark.parametrize("name", sorted({*GenerateBody.field_names()} - {"workflow", "extra_data"}))
@pytest.mark.parametrize("levels", [1, 2])
def test_no_field_of_a_request_comes_within_the_workflow(api: ApiWorld, name: str, levels: int) -> None:
    inner: Any = {"workflow": GRAPH, name: "abc"}
    for _ in range(levels - 1):
        inner = {"prompt": inner}
    message = refusal(api, {"workflow": inner})
    assert f"({name!r})" in message
    assert "POST /generate" in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (GRAPH, "a bare workflow"),
        ({"prompt": GRAPH}, "a body of ComfyUI's /prompt"),
        ({"prompt": GRAPH, "workflow": UI}, "the graph is in 'prompt'"),
        ({"output": GRAPH, "workflow": UI}, "the graph is in 'output'"),
        ({"workflow_api": GRAPH}, "the graph is in 'workflow_api'"),
        ({"input": {"workflow": GRAPH}}, "a request in an envelope"),
        ({"body": json.dumps({"prompt": GRAPH})}, "a request in an envelope"),
        ([{"workflow": GRAPH}], "a request in an envelope"),
        (json.dumps(json.dumps({"workflow": GRAPH})), "a request in an envelope"),
        ({"workflow": json.dumps(GRAPH)}, "`workflow` is a text"),
    ],
)
def test_a_shape_that_only_generate_takes_is_pointed_there(api: ApiWorld, body: object, words: str) -> None:
    message = refusal(api, body)
    assert words in message
    assert "POST /generate takes" in message
    assert api.request("POST", "/generate", body=body).status == 202
    api.messages()


@pytest.mark.parametrize(
    ("fields", "labels", "extra_data", "said"),
    [
        (dict.fromkeys(("metadata", "extra_data", "webhook_url", "webhook_secret", "set")), {}, None, ""),
        (
            {"metadata": {"user": 42, "is": True, "of": 1.5, "no": None}},
            {"user": "42", "is": "true", "of": "1.5"},
            None,
            "",
        ),
        ({"extra_data": json.dumps({"extra_pnginfo": {"a": 1}})}, {}, {"extra_pnginfo": {"a": 1}}, ""),
        ({"extra_data": {"client_id": "x"}}, {}, None, "client_id"),
        ({"extra_data": {"extra_pnginfo": {"a": float("nan")}}}, {}, {"extra_pnginfo": {"a": None}}, "NaN"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v2/jobs", "/generate"])
def test_values_are_taken_as_they_were_meant_at_both_doors(
    api: ApiWorld, path: str, fields: dict[str, Any], labels: dict[str, str], extra_data: object, said: str
) -> None:
    answer = api.request("POST", path, body={"workflow": GRAPH, **fields})
    assert answer.status in (201, 202), answer.text
    (message,) = api.messages()
    address = S3Address.parse(message["request"])
    document = json.loads(api.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read())
    assert (answer.json["metadata"], document.get("extra_data")) == (labels, extra_data)
    warnings = " ".join(document.get("warnings", []))
    assert (said in warnings, bool(warnings)) == (True, bool(said))


def test_an_id_that_is_taken_by_chance_is_no_mistake_of_ours(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.api.submission.uuid.uuid4", lambda: uuid.UUID(int=5))
    first, second = (api.request("POST", "/api/v2/jobs", body={"workflow": GRAPH}) for _ in range(2))
    assert first.status == 201
    assert (second.status, second.code) == (500, "upstream_error")
    assert "send it again" in second.json["error"]["message"]
    api.messages()


@pytest.mark.parametrize("path", ["/api/v2/jobs", "/generate"])
def test_a_packed_body_is_unpacked_no_further_than_a_plain_one_may_be(api: ApiWorld, path: str) -> None:
    content = gzip.compress(json.dumps({"workflow": GRAPH}).encode() + b" " * 7_000_000)
    assert len(content) < 20_000
    answer = api.request("POST", path, body=content)
    assert (answer.status, "6,291,456 bytes when it is unpacked" in answer.text) == (413, True)
    assert api.messages() == []
