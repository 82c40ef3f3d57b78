"""HTTP requests in the form of each sender, answered in the same: the same job, the same refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from comfy_serverless.errors import STATUSES
from comfy_serverless.handlers.http_forms import LOAD_BALANCER_LIMIT_BYTES, HttpRequest
from tests.unit.event_samples import answer, http_event
from tests.unit.fakes import WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]


def rest(body: object, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A REST API, or an HTTP API with payload format 1.0."""
    return {
        "resource": "/generate",
        "path": "/generate",
        "httpMethod": method,
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "queryStringParameters": None,
        "requestContext": {"httpMethod": method, "stage": "prod", "path": "/prod/generate"},
        "body": body if body is None or isinstance(body, str) else json.dumps(body),
        "isBase64Encoded": False,
        **fields,
    }


def balanced(body: object, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A load balancer."""
    arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/generate/6d0ecf831eec9f09"
    event = rest(body, method=method, requestContext={"elb": {"targetGroupArn": arn}})
    del event["multiValueHeaders"], event["resource"]
    return {**event, **fields}


def balanced_with_lists(body: object, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A load balancer whose target group has multi-value headers."""
    event = balanced(body, method=method, multiValueHeaders={"content-type": ["application/json"]}, **fields)
    del event["headers"]
    return event


def function_url(body: object, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A function URL: format 2.0, from another host."""
    return {**http_event(body, method=method), "rawPath": "/", "headers": {"host": "x.lambda-url.aws"}, **fields}


def http_api(body: object, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
    return {**http_event(body, method=method), **fields}


FORMS: Mapping[str, Callable[..., dict[str, Any]]] = {
    form.__name__: form for form in (http_api, function_url, rest, balanced, balanced_with_lists)
}


def check_form(form: str, reply: Mapping[str, Any]) -> None:
    """Everything that the sender needs, in its words, and nothing that it would take amiss."""
    assert isinstance(reply["statusCode"], int)
    assert isinstance(reply["body"], str)
    assert reply["isBase64Encoded"] is False
    if form == "balanced_with_lists":
        assert reply["multiValueHeaders"]["content-type"] == ["application/json"]
        assert "headers" not in reply
    else:
        assert reply["headers"]["content-type"] == "application/json"
        assert "multiValueHeaders" not in reply
    if form.startswith("balanced"):
        assert reply["statusDescription"].startswith(f"{reply['statusCode']} ")
    else:
        assert "statusDescription" not in reply


@pytest.mark.parametrize("form", FORMS)
def test_a_job_is_answered_in_the_form_of_its_sender(world: Worlds, form: str) -> None:
    reply = answer(world(), FORMS[form]({"job_id": "a", "workflow": WORKFLOW}))
    check_form(form, reply)
    job = json.loads(reply["body"])
    assert (reply["statusCode"], job["id"], job["status"]) == (200, "a", "succeeded")


@pytest.mark.parametrize("form", FORMS)
def test_a_body_in_base64_is_decoded(world: Worlds, form: str) -> None:
    body = base64.b64encode(json.dumps({"workflow": WORKFLOW}).encode()).decode()
    assert answer(world(), FORMS[form](body, isBase64Encoded=True))["statusCode"] == 200


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("body", "method", "status"),
    [("{not json", "POST", 400), ("", "POST", 400), ({"workflo": 1}, "POST", 422), ("", "GET", 405)],
)
def test_a_refusal_is_answered_in_the_form_of_its_sender(
    world: Worlds, form: str, body: object, method: str, status: int
) -> None:
    reply = answer(world(), FORMS[form](body, method=method))
    check_form(form, reply)
    assert reply["statusCode"] == status
    assert json.loads(reply["body"])["error"]["code"] == "invalid_request"
    if status == 405:
        headers = reply.get("headers") or reply["multiValueHeaders"]
        assert headers["allow"] in ("POST", ["POST"])


@pytest.mark.parametrize("form", FORMS)
def test_every_status_has_its_words(form: str) -> None:
    request = HttpRequest.of(FORMS[form]({}))
    assert request is not None
    for status in {200, 405, *STATUSES.values()}:
        check_form(form, request.answer(status, {}, {}))


@pytest.mark.parametrize("form", FORMS)
def test_no_answer_is_larger_than_its_sender_takes(world: Worlds, form: str) -> None:
    outputs = tuple(made(f"{number}.png", bytes([number]) * 300_000, index=number) for number in range(30))
    reply = answer(world(engine=FakeEngine(outputs=outputs)), FORMS[form]({"workflow": WORKFLOW}))
    request = HttpRequest.of(FORMS[form]({}))
    assert request is not None
    assert len(json.dumps(reply)) <= request.limit_bytes
    carried = [output for output in json.loads(reply["body"])["outputs"] if output.get("data_base64")]
    assert 0 < len(carried) < 30
    if form.startswith("balanced"):
        assert request.limit_bytes == LOAD_BALANCER_LIMIT_BYTES


@pytest.mark.parametrize(
    "event", [None, [], "text", {}, {"httpMethod": "POST"}, {"requestContext": {"http": "no"}}, {"requestContext": {}}]
)
def test_anything_else_is_no_request(event: object) -> None:
    assert HttpRequest.of(event) is None
