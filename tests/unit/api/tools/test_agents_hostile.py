"""Whoever sends what to /mcp: it is answered in the protocol's own words."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api.tools.endpoint import MAX_BODY_BYTES
from tests.unit.api_world import api_world
from tests.unit.mcp_world import NEWEST, OLD, McpWorld
from tests.unit.named_world import push

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
UNSUPPORTED_VERSION, HEADER_MISMATCH = -32022, -32020
SETTINGS: dict[str, Any] = {"cors_origins": ("https://app.example",), "allowed_input_buckets": ("inputs",)}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture(scope="module")
def door() -> Iterator[McpWorld]:
    """For requests that change nothing."""
    with pytest.MonkeyPatch.context() as patch, api_world(patch, **SETTINGS) as world:
        push(world)
        yield McpWorld(world)


# Messages


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, PARSE_ERROR),
        ("{", 400, PARSE_ERROR),
        ("nonsense", 400, PARSE_ERROR),
        ('{"jsonrpc": "2.0", "id": ' + "9" * 5000 + ', "method": "ping"}', 400, PARSE_ERROR),
        ("[" * 50_000, 400, PARSE_ERROR),
        ('{"a":' * 150 + "1" + "}" * 150, 400, INVALID_REQUEST),
        ("[]", 400, INVALID_REQUEST),
        ([PING, PING], 400, INVALID_REQUEST),
        ("null", 400, INVALID_REQUEST),
        ('"ping"', 400, INVALID_REQUEST),
        ({}, 400, INVALID_REQUEST),
        ({"id": 1, "method": "ping"}, 400, INVALID_REQUEST),
        ({**PING, "jsonrpc": "1.0"}, 400, INVALID_REQUEST),
        ({**PING, "id": None}, 400, INVALID_REQUEST),
        ({**PING, "id": True}, 400, INVALID_REQUEST),
        ({**PING, "id": 1.5}, 400, INVALID_REQUEST),
        ({**PING, "id": {"a": 1}}, 400, INVALID_REQUEST),
        ({**PING, "id": "x" * 1000}, 400, INVALID_REQUEST),
        ({**PING, "id": 10**300}, 400, INVALID_REQUEST),
        ({**PING, "method": 5}, 400, INVALID_REQUEST),
        ({**PING, "method": ""}, 400, INVALID_REQUEST),
        ({**PING, "method": "m" * 1000}, 400, INVALID_REQUEST),
        ({**PING, "params": [1, 2]}, 400, INVALID_PARAMS),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, 400, INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}, 400, INVALID_REQUEST),
        ({**PING, "params": {"entries": ["x"] * 20_000}}, 400, INVALID_REQUEST),
        ({**PING, "method": "resources/list"}, 200, METHOD_NOT_FOUND),
        ({**PING, "method": "__class__"}, 200, METHOD_NOT_FOUND),
        ({**PING, "method": "tools/call"}, 200, INVALID_PARAMS),
        ({**PING, "method": "tools/call", "params": {"name": ["get_job"]}}, 200, INVALID_PARAMS),
        ({**PING, "method": "tools/call", "params": {"name": "get_job", "arguments": "job"}}, 200, INVALID_PARAMS),
        ({**PING, "method": "tools/list", "params": {"cursor": "nonsense"}}, 200, INVALID_PARAMS),
        ({**PING, "method": "tools/list", "params": {"cursor": 5}}, 200, INVALID_PARAMS),
        ({**PING, "method": "initialize", "params": {}}, 200, INVALID_PARAMS),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_message_is_an_error_of_json_rpc(door: McpWorld, body: object, status: int, code: int) -> None:
    answer = door.ask(body, headers={"mcp-protocol-version": OLD})
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.text
    assert "pydantic" not in answer.text


@pytest.mark.parametrize("request_id", [0, -1, 2**53, 10**255, "", "a", "ü\u202e", "x" * 256])
def test_an_id_comes_back_as_it_was(door: McpWorld, request_id: object) -> None:
    answer = door.ask({**PING, "id": request_id}).json
    assert (answer["id"], answer["result"]) == (request_id, {})


@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "notifications/of/mine"])
def test_a_notification_is_taken_without_an_answer(door: McpWorld, method: str) -> None:
    answer = door.ask({"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}})
    assert (answer.status, answer.text) == (202, "")


def test_a_body_that_is_too_large_is_not_read(door: McpWorld) -> None:
    answer = door.ask('{"a": "' + "x" * MAX_BODY_BYTES + '"}')
    assert (answer.status, answer.json["error"]["code"]) == (413, INVALID_REQUEST)


def test_a_body_may_come_as_base64(door: McpWorld) -> None:
    event = door.event(base64.b64encode(json.dumps(PING).encode()).decode())
    event["isBase64Encoded"] = True
    assert json.loads(door.endpoint.answer(event, remaining_s=5.0)["body"])["result"] == {}


# HTTP


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_sessions_and_no_streams_beside(door: McpWorld, method: str) -> None:
    answer = door.ask(None, method=method, headers={"accept": "text/event-stream", "mcp-session-id": "mine"})
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/jsonp", "multipart/form-data", "application/xml"])
def test_another_content_type_is_refused(door: McpWorld, kind: str | None) -> None:
    assert door.ask(PING, headers={"content-type": kind}).status == 415


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200),
        ("*/*", 200),
        ("application/*", 200),
        ("application/json", 200),
        ("text/event-stream, application/json;q=0.5", 200),
        ("text/event-stream", 406),
        ("text/html", 406),
        ("", 406),
    ],
)
def test_the_answer_is_json_and_who_takes_none_is_told(door: McpWorld, accept: str | None, status: int) -> None:
    assert door.ask(PING, headers={"accept": accept}).status == status


def test_a_version_that_nobody_speaks_is_refused_with_those_that_are(door: McpWorld) -> None:
    answer = door.ask(PING, headers={"mcp-protocol-version": "1999-01-01"})
    assert (answer.status, answer.json["error"]["code"]) == (400, UNSUPPORTED_VERSION)
    assert NEWEST in answer.json["error"]["data"]["supported"]


def test_an_initialize_gets_the_version_that_it_asks_for_or_the_newest_of_its_kind(door: McpWorld) -> None:
    for asked, got in (("2024-11-05", "2024-11-05"), (OLD, OLD), ("2030-01-01", "2025-11-25")):
        params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "me", "version": "1"}}
        result = door.ask({**PING, "method": "initialize", "params": params}).json["result"]
        assert result["protocolVersion"] == got
        assert result["capabilities"] == {"tools": {"listChanged": False}}


def test_headers_that_say_something_else_than_the_body_are_refused(door: McpWorld) -> None:
    other = door.send("tools/call", {"name": "get_job", "arguments": {}}, headers={"mcp-name": "cancel_job"})
    assert (other.status, other.json["error"]["code"]) == (400, HEADER_MISMATCH)
    other = door.send("tools/list", headers={"mcp-method": "tools/call"})
    assert (other.status, other.json["error"]["code"]) == (400, HEADER_MISMATCH)


@pytest.mark.parametrize(
    ("domain", "origin", "status"),
    [
        ("api.example", None, 200),
        ("api.example", "https://api.example", 200),
        ("api.example", "https://app.example", 200),
        ("api.example", "https://evil.example", 403),
        ("api.example", "http://api.example", 403),
        ("api.example", "null", 403),
        ("api.example", "http://localhost:3000", 403),
        ("127.0.0.1:8189", "http://localhost:6274", 200),
        ("localhost:8189", "http://127.0.0.1", 200),
        ("127.0.0.1:8189", "https://evil.example", 403),
        ("evil.example:8189", "http://evil.example:8189", 403),
        ("127.0.0.1:8189", "http://localhost.evil.example", 403),
        ("127.0.0.1:8189", "http://127.0.0.1@evil.example", 403),
        ("127.0.0.1:8189", "http://[", 403),
    ],
)
def test_only_listed_web_pages_may_call(door: McpWorld, domain: str, origin: str | None, status: int) -> None:
    answer = door.ask(PING, domain=domain, headers={"origin": origin})
    assert answer.status == status, answer.text
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed == (origin if origin == "https://app.example" else None)


# Tools


@pytest.mark.parametrize(
    "name",
    ["", "poster", "run_", "run_nobody", "run_../x", "run-x-00000000", "get_Job", "run_" + "x" * 500, "upload\0"],
)
def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(door: McpWorld, name: str) -> None:
    body = {**PING, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    error = door.ask(body).json["error"]
    assert error["code"] == INVALID_PARAMS
    assert error["message"].startswith("Unknown tool: ")


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        ("get_job", {}, "job_id"),
        ("get_job", {"job_id": "../../x"}, "job_id"),
        ("get_job", {"job_id": "a", "wait_s": 21}, "wait_s"),
        ("get_job", {"job_id": "a", "wait_s": "5"}, "wait_s"),
        ("get_job", {"job_id": "a", "owner": "other"}, "owner"),
        ("get_outputs", {"job_id": "a", "limit": 0}, "limit"),
        ("get_outputs", {"job_id": "a", "cursor": "s3://x"}, "cursor"),
        ("get_outputs", {"job_id": "a", "inline_bytes": 10**9}, "inline_bytes"),
        ("list_jobs", {"status": "any"}, "status"),
        ("upload", {"name": "a.png", "data": "AA==", "content_type": "text/html\r\nX: y"}, "content_type"),
        ("upload", {"name": "../a.png", "data": "AA=="}, "name"),
        ("upload", {"name": "a\n.png", "data": "AA=="}, "name"),
    ],
)
def test_the_tools_that_everybody_has_take_what_they_say(
    door: McpWorld, tool: str, arguments: dict[str, Any], field: str
) -> None:
    result = door.call(tool, arguments)
    assert result["isError"]
    assert f"- {field}: " in result["content"][0]["text"]
    assert [one["field"] for one in result["structuredContent"]["error"]["errors"]] == [field]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"name": "a.png"},
        {"name": "a.png", "data": "not base64!"},
        {"name": "a.png", "data": "AA==", "size_bytes": 1},
        {"name": "a.png", "size_bytes": 10**15},
        {"upload_id": "00000000-0000-4000-8000-000000000000"},
        {"upload_id": "x", "name": "a.png"},
    ],
)
def test_an_upload_that_makes_no_sense_says_why(door: McpWorld, arguments: dict[str, Any]) -> None:
    result = door.call("upload", arguments)
    assert result["isError"]
    assert result["content"][0]["text"].endswith(")"), "the code"
