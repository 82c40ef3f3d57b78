"""The local API GatewayWorld: what functions get, what clients get back, and its limits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from local.aws.gateway import Gateway, UnseenFrames

ALLOWED = {"isAuthorized": True, "context": {"owner": "team", "key_id": "k"}}
AUTHORIZATION = {"Authorization": "Bearer key"}


class GatewayWorld:
    """A gateway before functions that return what a test gives them, and that remember their events."""

    def __init__(self, answers: Callable[[Any], Any], *, authorizer: Any = ALLOWED) -> None:
        self.events: list[Any] = []
        self.asked: list[Any] = []
        self.of_agents: list[Any] = []
        self._answers = answers
        self._authorizer = authorizer

    def ask(self, use: Callable[[TestClient[Any, Any]], Awaitable[None]]) -> None:
        async def run() -> None:
            api = self._remember(self.events, self._answers)
            agents = self._remember(self.of_agents, self._answers)
            gateway = Gateway(api, self._remember(self.asked, lambda _event: self._authorizer), agents)
            async with TestClient(TestServer(gateway.application())) as client:
                await use(client)

        asyncio.run(run())

    def request(self, method: str, path: str, **options: Any) -> tuple[ClientResponse, bytes]:
        found: list[Any] = []

        async def use(client: TestClient[Any, Any]) -> None:
            response = await client.request(method, path, allow_redirects=False, **options)
            found.extend([response, await response.read()])

        self.ask(use)
        return found[0], found[1]

    @staticmethod
    def _remember(into: list[Any], answer: Callable[[Any], Any]) -> Any:
        def begin(event: Any) -> Future[Any]:
            into.append(json.loads(json.dumps(event)))
            future: Future[Any] = Future()
            try:
                result = answer(event)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            return future

        return begin


def ok(_event: Any) -> Any:
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}"}


def test_a_request_becomes_the_event_of_payload_format_2() -> None:
    gateway = GatewayWorld(ok)
    gateway.request(
        "POST",
        "/api/v2/jobs?limit=2&metadata[a]=1&limit=3",
        data=json.dumps({"a": "ü"}),
        headers={**AUTHORIZATION, "Content-Type": "application/json", "Cookie": "a=1; b=2", "X-Two": "1"},
    )
    (event,) = gateway.events
    assert (event["version"], event["rawPath"]) == ("2.0", "/api/v2/jobs")
    assert event["queryStringParameters"] == {"limit": "2,3", "metadata[a]": "1"}
    assert event["headers"]["authorization"] == "Bearer key"
    assert event["headers"]["x-two"] == "1"
    assert "cookie" not in event["headers"]
    assert event["cookies"] == ["a=1", "b=2"]
    assert (event["isBase64Encoded"], json.loads(event["body"])) == (False, {"a": "ü"})
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["authorizer"] == {"lambda": ALLOWED["context"]}


def test_a_body_that_is_no_text_comes_as_base64() -> None:
    gateway = GatewayWorld(ok)
    content = bytes(range(256))
    gateway.request("POST", "/x", data=content, headers={**AUTHORIZATION, "Content-Type": "multipart/form-data"})
    assert gateway.events[0]["isBase64Encoded"] is True
    assert base64.b64decode(gateway.events[0]["body"]) == content


def test_what_a_function_returns_becomes_the_answer() -> None:
    returned = {
        "statusCode": 302,
        "headers": {"location": "https://elsewhere.example/x"},
        "cookies": ["a=1", "b=2"],
        "isBase64Encoded": True,
        "body": base64.b64encode(b"\x00\xff").decode(),
    }
    response, content = GatewayWorld(lambda _event: returned).request("GET", "/x", headers=AUTHORIZATION)
    assert (response.status, response.headers["location"], content) == (302, "https://elsewhere.example/x", b"\x00\xff")
    assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
    _, content = GatewayWorld(lambda _event: {**returned, "statusCode": 200}).request(
        "HEAD", "/x", headers=AUTHORIZATION
    )
    assert content == b""


def test_without_a_key_the_gateway_itself_refuses_and_with_one_the_authorizer_is_asked_once() -> None:
    gateway = GatewayWorld(ok)
    response, content = gateway.request("GET", "/x")
    told = json.loads(content)
    assert (response.status, told["message"], told["error"]["code"]) == (401, "Unauthorized", "unauthorized")
    assert "Authorization: Bearer" in told["error"]["message"]
    assert gateway.events == gateway.asked == []

    async def twice(client: TestClient[Any, Any]) -> None:
        for _ in range(2):
            assert (await client.get("/x", headers=AUTHORIZATION)).status == 200
        assert (await client.get("/x", headers={"Authorization": "Bearer other"})).status == 200

    gateway.ask(twice)
    assert [event["identitySource"] for event in gateway.asked] == [["Bearer key"], ["Bearer other"]]
    assert gateway.asked[0]["type"] == "REQUEST"
    assert "body" not in gateway.asked[0]


@pytest.mark.parametrize("path", ["/api/v2/health", "/openapi.json", "/docs", "/", "/console/main.js"])
def test_public_routes_need_no_key(path: str) -> None:
    gateway = GatewayWorld(ok, authorizer={"isAuthorized": False})
    assert gateway.request("GET", path)[0].status == 200
    assert gateway.request("GET", "/x", headers=AUTHORIZATION)[0].status == 403


def test_a_function_that_fails_is_500_and_one_that_returns_nonsense_too() -> None:
    def fail(_event: Any) -> Any:
        raise RuntimeError("secret details")

    for function in (fail, lambda _event: None, lambda _event: {"statusCode": "x"}):
        response, content = GatewayWorld(function).request("GET", "/x", headers=AUTHORIZATION)
        assert (response.status, json.loads(content)) == (500, {"message": "Internal Server Error"})


def test_what_is_too_large_for_the_gateway_or_for_lambda_is_413() -> None:
    for size in (7_000_000, 11_000_000):
        gateway = GatewayWorld(ok)
        response, content = gateway.request("POST", "/x", data=b"x" * size, headers=AUTHORIZATION)
        assert (response.status, json.loads(content)) == (413, {"message": "Request Entity Too Large"})
        assert gateway.events == []


def frame(kind: str, **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def test_only_what_is_new_is_passed_on() -> None:
    unseen = UnseenFrames()
    first = frame("status", status="running") + frame("progress", value=0.1) + frame("output", id="a")
    assert len(unseen.of(first)) == 3
    assert unseen.of(first) == []
    assert unseen.of(frame("status", status="running") + frame("progress", value=0.2)) == [frame("progress", value=0.2)]
    assert not unseen.is_over
    last = frame("output", id="a") + frame("output", id="b") + frame("status", status="succeeded")
    assert unseen.of(last) == [frame("output", id="b"), frame("status", status="succeeded")]
    assert unseen.is_over


def test_events_are_one_stream_until_the_job_is_over() -> None:
    snapshots = [
        frame("status", status="queued"),
        frame("status", status="running") + frame("progress", value=0.5),
        frame("output", id="a") + frame("status", status="succeeded"),
    ]

    def answer(_event: Any) -> Any:
        body = snapshots[0] if len(snapshots) == 1 else snapshots.pop(0)
        return {"statusCode": 200, "headers": {"content-type": "text/event-stream"}, "body": body}

    everything = "".join(snapshots)
    response, content = GatewayWorld(answer).request("GET", "/api/v2/jobs/1/events", headers=AUTHORIZATION)
    assert response.headers["content-type"] == "text/event-stream"
    assert content.decode() == everything


def test_events_that_are_refused_pass_through() -> None:
    refused = {"statusCode": 404, "headers": {"content-type": "application/json"}, "body": '{"error": {}}'}
    response, content = GatewayWorld(lambda _event: refused).request(
        "GET", "/api/v2/jobs/1/events", headers=AUTHORIZATION
    )
    assert (response.status, content) == (404, b'{"error": {}}')


def test_what_agents_send_goes_to_their_own_function_which_is_told_that_it_may_stream() -> None:
    gateway = GatewayWorld(ok)
    for method in ("POST", "GET", "DELETE"):
        assert gateway.request(method, "/mcp", headers=AUTHORIZATION)[0].status == 200
    assert [event["requestContext"]["streams"] for event in gateway.of_agents] == [True] * 3
    assert {event["requestContext"]["authorizer"]["lambda"]["owner"] for event in gateway.of_agents} == {"team"}
    gateway.request("OPTIONS", "/mcp")
    gateway.request("POST", "/mcp/other", headers=AUTHORIZATION)
    assert [event["rawPath"] for event in gateway.events] == ["/mcp", "/mcp/other"]


def test_a_call_of_an_agent_that_goes_on_is_asked_after_until_it_is_over() -> None:
    stream = {"statusCode": 200, "headers": {"content-type": "text/event-stream"}}
    answers = [
        {**stream, "body": "data: 1\n\n", "goesOn": {"job_id": "a"}},
        {**stream, "body": "", "goesOn": {"job_id": "a"}},
        {**stream, "body": "data: 2\n\n"},
    ]
    gateway = GatewayWorld(lambda _event: answers.pop(0))
    response, body = gateway.request("POST", "/mcp", json={"id": 1}, headers=AUTHORIZATION)
    assert (response.headers["content-type"], body) == ("text/event-stream", b"data: 1\n\ndata: 2\n\n")
    told = [event["requestContext"].get("goesOn") for event in gateway.of_agents]
    assert told == [None, {"job_id": "a"}, {"job_id": "a"}]
    assert len({event["body"] for event in gateway.of_agents}) == 1


def test_nobody_else_can_say_that_a_call_goes_on() -> None:
    gateway = GatewayWorld(ok)
    headers = {**AUTHORIZATION, "goesOn": "a", "streams": "true"}
    gateway.request("POST", "/mcp?goesOn=a", json={"goesOn": {"job_id": "a"}}, headers=headers)
    assert "goesOn" not in gateway.of_agents[0]["requestContext"]
