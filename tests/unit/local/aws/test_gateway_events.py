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

from comfy_serverless.api.event_streams import Asked, Streamed
from local.aws.gateway import Gateway

ALLOWED = {"isAuthorized": True, "context": {"owner": "team", "key_id": "k"}}
AUTHORIZATION = {"Authorization": "Bearer key"}


DEVELOPMENT = "key-that-everybody-knows"


class GatewayWorld:
    """A gateway before functions that return what a test gives them, and that remember their events."""

    def __init__(self, answers: Callable[[Any], Any], *, authorizer: Any = ALLOWED) -> None:
        self.events: list[Any] = []
        self.asked: list[Any] = []
        self.of_agents: list[Any] = []
        self.streams: Any = Streams()
        self._answers = answers
        self._authorizer = authorizer

    def ask(self, use: Callable[[TestClient[Any, Any]], Awaitable[None]]) -> None:
        async def run() -> None:
            api = self._remember(self.events, self._answers)
            agents = self._remember(self.of_agents, self._answers)
            authorizer = self._remember(self.asked, lambda _event: self._authorizer)
            gateway = Gateway(api, authorizer, agents, lambda: self.streams, development_key=DEVELOPMENT)
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


def test_a_key_that_is_sent_twice_in_a_request_is_not_kept_as_what_is_known_of_the_key() -> None:
    gateway = GatewayWorld(ok)

    async def first_doubled(client: TestClient[Any, Any]) -> None:
        await client.get("/x", headers=[*AUTHORIZATION.items(), *AUTHORIZATION.items()])
        await client.get("/x", headers=AUTHORIZATION)

    gateway.ask(first_doubled)
    assert [event["identitySource"] for event in gateway.asked] == [["Bearer key,Bearer key"], ["Bearer key"]]


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


class Streams:
    """Live events that a test gives, and what was asked."""

    def __init__(self, *parts: str, status: int = 200, content_type: str = "text/event-stream") -> None:
        self.asked: list[Asked] = []
        self._parts, self._status, self._type = parts, status, content_type

    def clock(self) -> float:
        return 0.0

    def answer(self, asked: Asked, *, until: float) -> Streamed:
        assert 0 < until < 900, "before AWS ends one"
        self.asked.append(asked)
        return Streamed(status=self._status, headers={"content-type": self._type}, body=self._parts)


def test_events_are_streamed_by_what_streams_them_on_aws() -> None:
    gateway = GatewayWorld(lambda _event: pytest.fail("the function is not asked"))
    for path in ("/api/v2/jobs/1/events", "/api/v2/events"):
        gateway.streams = streams = Streams("data: 1\n\n", "data: ü\n\n")
        headers = {**AUTHORIZATION, "Last-Event-ID": "x"}
        response, content = gateway.request("GET", f"{path}?token=a.b", headers=headers)
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert content.decode() == "data: 1\n\ndata: ü\n\n"
        (asked,) = streams.asked
        assert (asked.method, asked.path, asked.query) == ("GET", path, {"token": "a.b"})
        assert (asked.headers["authorization"], asked.headers["last-event-id"]) == ("Bearer key", "x")
    assert gateway.asked == [], "whose events they are is asked by what streams them, as on AWS"


def test_events_that_are_refused_pass_through() -> None:
    gateway = GatewayWorld(ok)
    gateway.streams = Streams('{"error": {}}', status=404, content_type="application/json")
    response, content = gateway.request("GET", "/api/v2/jobs/1/events", headers=AUTHORIZATION)
    assert (response.status, response.headers["content-type"]) == (404, "application/json")
    assert content == b'{"error": {}}'


def test_only_get_is_streamed() -> None:
    gateway = GatewayWorld(ok)
    gateway.request("OPTIONS", "/api/v2/events")
    gateway.request("HEAD", "/api/v2/jobs/1/events", headers=AUTHORIZATION)
    assert [event["requestContext"]["http"]["method"] for event in gateway.events] == ["OPTIONS", "HEAD"]


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


@pytest.mark.parametrize("host", ["127.0.0.1:8188", "localhost", "LOCALHOST:80", "[::1]:8188", "127.1.2.3"])
def test_the_key_that_everybody_knows_works_by_this_machines_own_names(host: str) -> None:
    world = GatewayWorld(ok)
    told, body = world.request("GET", "/console/development-key", headers={"Host": host})
    assert (told.status, json.loads(body)) == (200, {"key": DEVELOPMENT})
    for path in ("/api/v2/jobs", "/api/v2/events"):
        answer, _ = world.request("GET", path, headers={"Host": host, "Authorization": f"Bearer {DEVELOPMENT}"})
        assert answer.status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.1@x", ""]
)
def test_a_page_that_has_its_own_name_lead_to_this_machine_gets_nothing_by_it(host: str) -> None:
    world = GatewayWorld(ok)
    headers = {"Host": host, "Authorization": f"Bearer {DEVELOPMENT}"}
    for method, path in (
        ("GET", "/console/development-key"),
        ("GET", "/api/v2/jobs"),
        ("POST", "/api/v2/jobs"),
        ("GET", "/api/v2/events"),
        ("POST", "/mcp"),
    ):
        answer, body = world.request(method, path, headers=headers)
        assert (answer.status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
        assert DEVELOPMENT.encode() not in body
    assert (world.events, world.of_agents) == ([], [])
    answer, _ = world.request("GET", "/api/v2/jobs", headers={"Host": host, "Authorization": "Bearer csk_mine"})
    assert answer.status == 200, "a key of one's own works behind any name"
