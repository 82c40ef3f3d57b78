"""Agents in this process: the official client before the endpoint of /mcp, over the API's world of tests.

Its requests become events as API Gateway makes them, and a thread does what workers do.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from comfy_serverless.api.tools.calls import ANSWER_RESERVE_S
from comfy_serverless.api.tools.endpoint import GOES_ON, AgentsEndpoint
from comfy_serverless.jobs.document import JobError, Output, Progress
from tests.patience import PATIENCE_S
from tests.unit.api_world import RESULTS, Answer, ApiWorld
from tests.unit.table.test_job_store import ended

NEWEST, OLD = "2026-07-28", "2025-06-18"
URL = "https://api.example/mcp"
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture, as far as its head says"
_META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class McpWorld:
    """The endpoint, and who asks it. `wait_s` is how long a call waits for its job."""

    def __init__(self, api: ApiWorld, *, wait_s: float = 0.05) -> None:
        self.api = api
        self.endpoint = AgentsEndpoint(lambda: api.services)
        self.wait_s = wait_s

    def event(
        self,
        body: object,
        *,
        method: str = "POST",
        headers: Mapping[str, str | None] | None = None,
        owner: str = "team",
        key: Mapping[str, str] | None = None,
        domain: str = "api.example",
        streams: bool = False,
    ) -> dict[str, Any]:
        """An event as API Gateway makes it; `body` is sent as JSON, unless it is text."""
        given = {
            "host": domain,
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        event: dict[str, Any] = {
            "version": "2.0",
            "rawPath": "/mcp",
            "headers": {name: value for name, value in given.items() if value is not None},
            "requestContext": {
                "http": {"method": method, "path": "/mcp", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "domainName": domain,
                "requestId": str(uuid.uuid4()),
                "authorizer": {"lambda": {"owner": owner, "key_id": f"key-of-{owner}", **(key or {})}},
            },
            "isBase64Encoded": False,
        }
        if streams:
            event["requestContext"]["streams"] = True
        if body is not None:
            event["body"] = body if isinstance(body, str) else json.dumps(body)
        return event

    def ask(self, body: object, **options: Any) -> Answer:
        """One request, once."""
        return _answer(self._invoke(self.event(body, **options)))

    def send(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Answer:
        """A request of the newest protocol."""
        whole = {**(params or {}), "_meta": {**_META, **(params or {}).get("_meta", {})}}
        named = {"mcp-name": str(whole["name"])} if "name" in whole else {}
        headers = {"mcp-protocol-version": NEWEST, "mcp-method": method, **named, **options.pop("headers", {})}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": whole}
        return self.ask(body, headers=headers, **options)

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Call a tool; returns its result."""
        answer = self.send("tools/call", {"name": tool, "arguments": dict(arguments or {})}, **options)
        assert answer.status == 200, answer.text
        result: dict[str, Any] = answer.json["result"]
        return result

    def with_client(
        self,
        use: Callable[[Client], Coroutine[Any, Any, None]],
        *,
        mode: str = "auto",
        owner: str = "team",
        streams: bool = False,
    ) -> list[httpx2.Request]:
        """Use the official client; returns the requests that it has sent."""
        transport = _InThisProcess(self, owner=owner, streams=streams)

        async def run() -> None:
            http = httpx2.AsyncClient(transport=transport)
            async with http, Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
                await use(client)

        anyio.run(run)
        return transport.requests

    def _invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        return self.endpoint.answer(event, remaining_s=ANSWER_RESERVE_S + self.wait_s)

    def answer_whole(self, event: dict[str, Any]) -> Answer:
        """What a client gets: a call that goes on is asked after again, as the local gateway does."""
        result = self._invoke(event)
        body = result["body"]
        while GOES_ON in result:
            event["requestContext"][GOES_ON] = result[GOES_ON]
            result = self._invoke(event)
            body += result["body"]
        return _answer({**result, "body": body})

    @contextmanager
    def worker(
        self, *made: tuple[Output, bytes], error: JobError | None = None, first: float | None = None
    ) -> Iterator[None]:
        """From `with` to the end of the block jobs are run: each makes these outputs, or fails.

        Args:
            first: how far a job says that it is, before it ends.
        """
        is_over = threading.Event()

        def work() -> None:
            while not is_over.wait(0.01):
                for message in self.api.messages():
                    finish(self.api, message["job"], *made, error=error, first=first)

        thread = threading.Thread(target=work, name="worker")
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(PATIENCE_S)


def finish(
    api: ApiWorld,
    job_id: str,
    *made: tuple[Output, bytes],
    error: JobError | None = None,
    first: float | None = None,
) -> None:
    """What a worker does with a job."""
    begun = api.services.jobs.begin(job_id, run="run")
    if begun.state is None:
        return  # it was canceled
    if first is not None:
        progress = Progress(value=first, nodes_done=1, nodes_total=2)
        api.services.jobs.report(job_id, run="run", progress=progress)
        threading.Event().wait(0.3)
    for output, content in made:
        api.s3.put_object(Bucket=RESULTS, Key=f"owners/team/x/9/{output.name}", Body=content)
    outputs = tuple(output for output, _ in made)
    api.services.jobs.put_outputs(begun.state, list(enumerate(outputs)), run="run")
    job = ended(job_id, outputs=outputs, error=error)
    assert api.services.jobs.finish(job_id, job, run="run", webhook=False, places=range(len(outputs)))


def file(
    name: str, content: bytes = PNG, *, kind: str = "image", content_type: str = "image/png"
) -> tuple[Output, bytes]:
    """An output of node 2, and its bytes."""
    output = Output(
        node_id="2",
        name=name,
        type=kind,
        content_type=content_type,
        size_bytes=len(content),
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        job_id="x",
        s3_uri=f"s3://{RESULTS}/owners/team/x/9/{name}",
        sha256="0" * 64,
        width=64,
        height=48,
    )
    return output, content


class _InThisProcess(httpx2.AsyncBaseTransport):
    """Turns a client's requests into events, and answers into responses."""

    def __init__(self, world: McpWorld, *, owner: str, streams: bool) -> None:
        self._world, self._owner, self._streams = world, owner, streams
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        self.requests.append(request)
        event = self._world.event(
            content.decode(),
            method=request.method,
            headers=dict(request.headers),
            owner=self._owner,
            streams=self._streams,
        )
        answer = await anyio.to_thread.run_sync(self._world.answer_whole, event)
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.text.encode())


def _answer(result: Mapping[str, Any]) -> Answer:
    headers = {name.lower(): value for name, value in result["headers"].items()}
    return Answer(result["statusCode"], headers, result["body"])
