"""Agents with the official client: tools are found, run and looked after, whichever protocol they speak."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp_types import AudioContent, ImageContent, ResourceLink, TextContent

from comfy_serverless.api.tools import calls
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.document import JobError
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.mcp_world import NEWEST, OLD, PNG, McpWorld, file
from tests.unit.named_world import push

GENERIC = ["get_job", "cancel_job", "get_outputs", "list_jobs", "upload"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def agents(api: ApiWorld) -> McpWorld:
    push(api, description="A poster.\nOne color, as large as you like.", outputs={"picture": "2"})
    return McpWorld(api)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_finds_the_workflows_as_tools(agents: McpWorld, mode: str) -> None:
    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert [*GENERIC, "run_poster"] == list(tools)
        assert tools["run_poster"].title == "A poster."
        assert "One color, as large as you like." in str(tools["run_poster"].description)
        schema = tools["run_poster"].input_schema
        assert (schema["type"], schema["additionalProperties"]) == ("object", False)
        assert schema["properties"]["width"]["type"] == "integer"
        assert client.server_info is not None
        assert client.server_info.name == "comfy-serverless"
        assert client.protocol_version == (NEWEST if mode == "auto" else "2025-11-25")

    requests = agents.with_client(use, mode=mode)
    assert {request.method for request in requests} == {"POST"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_tool_runs_its_workflow_and_brings_the_picture(agents: McpWorld, mode: str) -> None:
    async def use(client: Client) -> None:
        result = await client.call_tool("run_poster", {"color": 255, "width": 128})
        assert not result.is_error, result.content
        words, picture, link = result.content
        assert isinstance(words, TextContent)
        assert "has succeeded, and made 1 output" in words.text
        assert "picture: fox.png (image/png, 64x48" in words.text
        assert isinstance(picture, ImageContent)
        assert (base64.b64decode(picture.data), picture.mime_type) == (PNG, "image/png")
        assert isinstance(link, ResourceLink)
        assert (link.name, link.size, link.title) == ("fox.png", len(PNG), "picture")
        assert link.uri.startswith("https://")
        data: Any = result.structured_content
        assert (data["status"], data["workflow"], data["version"]) == ("succeeded", "poster", "1")
        assert data["outputs"][0]["url"] == link.uri

    agents.wait_s = 20.0
    with agents.worker(file("fox.png")):
        agents.with_client(use, mode=mode)


def test_what_a_tool_runs_is_a_job_like_any_other(agents: McpWorld) -> None:
    job_id = agents.call("run_poster", {"width": 128})["structuredContent"]["job_id"]
    job = agents.api.request("GET", f"/api/v2/jobs/{job_id}").json
    assert job["metadata"] == {"workflow": "poster", "version": "1"}
    (message,) = agents.api.messages()
    assert (message["job"], message["owner"]) == (job_id, "team")
    assert message["content"]["request"]["workflow"]["1"]["inputs"]["width"] == 128


def test_a_job_that_takes_longer_is_asked_after(agents: McpWorld) -> None:
    begun = agents.call("run_poster", {"width": 128})
    job_id = begun["structuredContent"]["job_id"]
    assert not begun["isError"]
    assert f'call get_job with {{"job_id": "{job_id}"}}' in begun["content"][0]["text"]
    agents.wait_s = 20.0
    with agents.worker(file("fox.png")):
        done = agents.call("get_job", {"job_id": job_id})
    assert [part["type"] for part in done["content"]] == ["text", "image", "resource_link"]
    assert done["structuredContent"]["outputs"][0]["output"] == "picture"


def test_a_job_that_fails_is_an_error_of_the_tool_that_runs_it(agents: McpWorld) -> None:
    agents.wait_s = 20.0
    error = JobError.of(NodeExecutionError("node 1 (EmptyImage) raised: no memory", details={"node_id": "1"}))
    with agents.worker(error=error):
        result = agents.call("run_poster", {"width": 128})
    assert result["isError"]
    assert result["content"][0]["text"].startswith(f"Job {result['structuredContent']['job_id']} has failed: ")
    assert "raised: no memory (node_execution_error)" in result["content"][0]["text"]
    asked = agents.call("get_job", {"job_id": result["structuredContent"]["job_id"]})
    assert not asked["isError"], "the question was answered"
    assert asked["structuredContent"]["error"]["node_id"] == "1"


def test_a_job_is_canceled_and_listed(agents: McpWorld) -> None:
    job_id = agents.call("run_poster")["structuredContent"]["job_id"]
    listed = agents.call("list_jobs", {"workflow": "poster"})["structuredContent"]["jobs"]
    assert [job["job_id"] for job in listed] == [job_id]
    assert agents.call("list_jobs", {"workflow": "another"})["structuredContent"]["jobs"] == []
    canceled = agents.call("cancel_job", {"job_id": job_id})
    assert (canceled["isError"], canceled["structuredContent"]["status"]) == (False, "canceled")
    assert canceled["content"][0]["text"].startswith(f"Job {job_id} was canceled")


def test_what_is_large_comes_by_its_link_and_more_can_be_asked_for(agents: McpWorld) -> None:
    agents.wait_s = 20.0
    large = PNG + b"\0" * 1_000_000
    with agents.worker(file("small.png"), file("large.png", large)):
        result = agents.call("run_poster")
    assert [part["type"] for part in result["content"]] == ["text", "image", "resource_link", "resource_link"]
    assert [one["is_in_answer"] for one in result["structuredContent"]["outputs"]] == [True, False]
    asked = {"job_id": result["structuredContent"]["job_id"], "inline_bytes": 2_000_000}
    both = agents.call("get_outputs", asked)
    assert [part["type"] for part in both["content"]] == ["text", "image", "image", "resource_link", "resource_link"]
    none = agents.call("get_outputs", {**asked, "inline_bytes": 0})
    assert [part["type"] for part in none["content"]] == ["text", "resource_link", "resource_link"]


def test_outputs_come_page_by_page(agents: McpWorld) -> None:
    agents.wait_s = 20.0
    with agents.worker(*(file(f"{number}.png") for number in range(5))):
        job_id = agents.call("run_poster")["structuredContent"]["job_id"]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = agents.call("get_outputs", {"job_id": job_id, "limit": 2, **cursor})["structuredContent"]
        seen += [one["name"] for one in page["outputs"]]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"{number}.png" for number in range(5)]


def test_sounds_and_texts_come_along_too_and_what_lies_about_its_type_does_not(agents: McpWorld) -> None:
    agents.wait_s = 20.0
    made = (
        file("song.flac", b"fLaC and more", kind="audio", content_type="audio/flac"),
        file("words.txt", b"a \x00fox\xe2\x80\xae", kind="text", content_type="text/plain"),
        file("page.png", b"<script>alert(1)</script>"),
        file("film.mp4", b"\0\0\0\x18ftypmp42", kind="video", content_type="video/mp4"),
    )

    async def use(client: Client) -> None:
        result = await client.call_tool("run_poster", {})
        kinds = [type(part) for part in result.content]
        assert kinds == [TextContent, TextContent, AudioContent, *[ResourceLink] * 4]
        assert isinstance(result.content[1], TextContent)
        assert result.content[1].text == "The text of words.txt, made by the job:\na fox"

    with agents.worker(*made):
        agents.with_client(use)


def test_a_client_of_the_oldest_protocol_gets_no_sound_but_its_address(agents: McpWorld) -> None:
    agents.wait_s = 20.0
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "run_poster", "arguments": {}}}
    with agents.worker(file("song.flac", b"fLaC and more", kind="audio", content_type="audio/flac")):
        result = agents.ask(body, headers={"mcp-protocol-version": "2024-11-05"}).json["result"]
    assert [part["type"] for part in result["content"]] == ["text", "text"]
    assert result["content"][1]["text"].startswith("song.flac: https://")


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26"])
def test_a_client_of_a_protocol_without_links_reads_the_addresses(agents: McpWorld, version: str) -> None:
    agents.wait_s = 20.0
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "run_poster", "arguments": {}}}
    with agents.worker(file("fox.png")):
        result = agents.ask(body, headers={"mcp-protocol-version": version}).json["result"]
    assert [part["type"] for part in result["content"]] == ["text", "image", "text"]
    assert result["content"][2]["text"].startswith("fox.png: https://")
    assert "structuredContent" not in result


def test_progress_is_told_where_the_transport_streams(agents: McpWorld) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async def use(client: Client) -> None:
        result = await client.call_tool("run_poster", {}, progress_callback=hear)
        assert not result.is_error
        assert isinstance(result.content[1], ImageContent)

    with agents.worker(file("fox.png"), first=0.5):
        agents.with_client(use, streams=True)
    assert [value for value, _, _ in told] == sorted({value for value, _, _ in told})
    assert (0.5, 1.0, "running") in told


def test_without_a_stream_no_progress_is_told_and_the_answer_is_whole(agents: McpWorld) -> None:
    async def hear(progress: float, total: float | None, message: str | None) -> None:
        raise AssertionError((progress, total, message))

    async def use(client: Client) -> None:
        assert not (await client.call_tool("run_poster", {}, progress_callback=hear)).is_error

    agents.wait_s = 20.0
    with agents.worker(file("fox.png"), first=0.5):
        agents.with_client(use)


def test_a_call_does_not_go_on_for_ever(agents: McpWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LONGEST_STREAM_S", 0.0)
    params = {"name": "run_poster", "arguments": {}, "_meta": {"progressToken": "mine"}}
    event = agents.event({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, streams=True)
    assert "call get_job with" in agents.answer_whole(event).text


def test_a_question_after_a_job_waits_as_long_as_it_says_also_where_the_transport_streams(agents: McpWorld) -> None:
    job_id = agents.call("run_poster")["structuredContent"]["job_id"]
    agents.wait_s = 20.0
    with agents.worker(file("fox.png"), first=0.5):
        asked = agents.send(
            "tools/call",
            {"name": "get_job", "arguments": {"job_id": job_id}, "_meta": {"progressToken": 1}},
            streams=True,
        )
    assert asked.json["result"]["structuredContent"]["status"] == "succeeded"


def test_a_call_that_goes_on_makes_one_job_and_counts_once(agents: McpWorld) -> None:
    params = {"name": "run_poster", "arguments": {}, "_meta": {"progressToken": "mine"}}
    body = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params}
    key = {"requests_per_minute": "1"}
    event = agents.event(body, headers={"mcp-protocol-version": OLD}, streams=True, key=key)
    with agents.worker(file("fox.png"), first=0.5):
        answer = agents.answer_whole(event)
    frames = [json.loads(part.partition("data: ")[2]) for part in answer.text.strip().split("\n\n")]
    assert answer.headers["content-type"] == "text/event-stream"
    assert {frame.get("method") for frame in frames[:-1]} == {"notifications/progress"}
    assert {frame["params"]["progressToken"] for frame in frames[:-1]} == {"mine"}
    assert frames[-1]["id"] == "a"
    assert len(agents.call("list_jobs")["structuredContent"]["jobs"]) == 1
