"""Replays a recording of a real ComfyUI against an engine, and reports where the two differ.

Requests are sent as recorded, each once every socket has received what it had received by then. The answers are
compared with the recording after both have been normalised: ids, times, folders, and what sets leave to chance.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.contract.engines import REAL_COMFYUI
from tests.contract.normalise import TEMP_NAME, Normaliser, image_facts

_RECORDINGS = Path(__file__).parent / "recordings"
#: The worker acts on /free without saying when. ComfyUI's misses a request that comes while it acts on another.
_FREE_S = 6.0 if REAL_COMFYUI else 0.05
_QUIET_S = 0.25
_PATIENCE_S = 60.0
_RECORDED_HOST = "127.0.0.1:8401"
_SLEEP = re.compile(r'"seconds": ([0-9.]+)')
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def load(name: str, release: str) -> dict[str, Any]:
    """Load a recording of a release, whose sleeping nodes sleep half as long."""
    text = (_RECORDINGS / release / f"{name}.json").read_text()
    recording: dict[str, Any] = json.loads(_SLEEP.sub(lambda match: f'"seconds": {float(match[1]) / 2}', text))
    return recording


@dataclass
class Differences:
    """The mismatches, as readable lines."""

    lines: list[str] = field(default_factory=list)

    def compare(self, what: str, recorded: object, seen: object) -> None:
        if recorded != seen:
            self.lines.append(f"{what}\n    recorded: {_short(recorded)}\n    seen:     {_short(seen)}")

    def __str__(self) -> str:
        return "\n".join(["", *self.lines])


class Replay:
    """One recording on one engine. `unordered`: a set decided the order of messages in the recording."""

    def __init__(self, recording: dict[str, Any], url: str, folder: Path, *, unordered: bool = False) -> None:
        self._events = recording["events"]
        self._url = url
        self._folder = folder
        self._unordered = unordered
        self._recorded = Normaliser(Path("/opt/ComfyUI"))
        self._seen = Normaliser(folder)
        self._sockets: dict[str, _Socket] = {}
        self._etag = ""
        self.differences = Differences()

    async def run(self) -> Differences:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as self._session:
            for position, event in enumerate(self._events):
                await self._step(position, event)
            await self._wait_for_frames(self._events)
            await asyncio.sleep(_QUIET_S)
            for name, socket in self._sockets.items():
                self._compare_frames(name, socket)
            for socket in self._sockets.values():
                await socket.close()
        return self.differences

    async def _step(self, position: int, event: dict[str, Any]) -> None:
        kind = event["ev"]
        if kind == "ws":
            return
        # An answer is recorded when it is complete, perhaps after messages that its request has caused.
        before = self._events[:position]
        if event.get("method") == "POST":
            before = [earlier for earlier in before if earlier["t"] <= event["t"]]
        await self._wait_for_frames(before)
        if kind == "http":
            await self._request(event)
        elif kind == "ws_open":
            await self._open(event)
        elif kind == "ws_send":
            await self._sockets[event["conn"]].connection.send_str(event["text"])
        elif kind == "ws_client_close":
            await self._sockets[event["conn"]].close()
        elif kind == "delete":
            (self._folder / event["path"]).unlink()
        elif kind == "ws_abort":
            self._sockets[event["conn"]].abort()

    async def _open(self, event: dict[str, Any]) -> None:
        recorded = [frame for frame in self._events if frame["ev"] == "ws" and frame["conn"] == event["conn"]]
        if recorded:  # prompts that no socket heard of may have to end first
            await self._wait_for_queue(recorded[0]["json"]["data"]["status"])
        try:
            connection = await self._session.ws_connect(event["url"], headers=self._here(event.get("req_headers")))
        except aiohttp.WSServerHandshakeError as error:
            self.differences.compare(f"ws {event['conn']} handshake", event["status"], error.status)
            return
        self.differences.compare(f"ws {event['conn']} handshake", event["status"], 101)
        self._sockets[event["conn"]] = _Socket(connection, recorded)

    async def _wait_for_frames(self, events: list[dict[str, Any]]) -> None:
        """Wait until each socket has the milestones (all but progress) that it had by then, and progress has begun."""
        for name, socket in self._sockets.items():
            due = [event for event in events if event["ev"] == "ws" and event["conn"] == name]
            try:
                await asyncio.wait_for(socket.has_heard(due), _PATIENCE_S)
            except TimeoutError:
                continue  # the comparison will say what is missing

    async def _wait_for_queue(self, status: object) -> None:
        for _ in range(int(_PATIENCE_S / 0.05)):
            async with self._session.get("/prompt") as response:
                if await response.json() == status:
                    return
            await asyncio.sleep(0.05)

    async def _request(self, event: dict[str, Any]) -> None:
        label = f"{event['method']} {event['path']} ({event.get('label', '')})"
        recorded = event["res"]
        address = URL(self._url + self._here(event["path"]), encoded=True)
        while True:
            async with self._session.request(
                event["method"], address, **self._body(event.get("req") or {})
            ) as response:
                body = await response.read()
            if "/history/" not in event["path"] or body != b"{}" or not recorded.get("json"):
                break
            await asyncio.sleep(0.05)  # not ended yet, and no socket is open to say when
        if event["path"].endswith("/free"):
            await asyncio.sleep(_FREE_S)
        self.differences.compare(f"{label} status", recorded["status"], response.status)
        self._pair_ids(recorded.get("json"), body)
        for header in ("Content-Type", "Content-Disposition", "Content-Range", "Allow"):
            there = self._recorded.http(recorded["headers"].get(header))
            here = self._seen.http(response.headers.get(header))
            self.differences.compare(f"{label} header {header}", there, here)
        self._etag = response.headers.get("ETag", self._etag)
        self._compare_body(label, recorded, body)

    def _compare_body(self, label: str, recorded: dict[str, Any], body: bytes) -> None:
        if recorded.get("json") is not None:
            try:
                seen = json.loads(body)
            except ValueError:
                seen = body.decode(errors="replace")
            there, here = self._recorded.http(recorded["json"]), self._seen.http(seen)
            self.differences.compare(label, there, here)
        elif "text" in recorded:
            self.differences.compare(label, recorded["text"], body.decode())
        elif "image" in recorded.get("binary", {}) and "error" not in recorded["binary"]["image"]:
            there = {key: recorded["binary"]["image"][key] for key in ("format", "mode", "size")}
            self.differences.compare(label, there, image_facts(body))
        elif "binary" in recorded:
            self.differences.compare(f"{label} length", recorded["binary"]["len"], len(body))

    def _body(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = dict(request.get("headers", {}))
        if "If-None-Match" in headers:
            headers["If-None-Match"] = self._etag
        sent: dict[str, Any] = {"headers": {"User-Agent": "replay", **self._here(headers)}}
        if "json" in request:
            sent["json"] = self._here(request["json"])
        elif "text" in request:
            sent["data"] = request["text"].encode()
        elif "body" in request:
            sent["data"] = base64.b64decode(request["body"]["b64"])
        elif "form" in request:
            sent["data"] = _form(request["form"])
        return sent

    def _here(self, value: Any) -> Any:
        """Part of a recorded request with the names of this run: address, prompt ids, temporary files."""
        text = json.dumps(value).replace(_RECORDED_HOST, self._url.removeprefix("http://"))
        heard = json.dumps([socket.heard for socket in self._sockets.values()])
        for socket in self._sockets.values():
            if socket.recorded and socket.heard:
                frame_there, frame_here = _recorded_frame(socket.recorded[0]), socket.heard[0]
                text = text.replace(frame_there["data"]["sid"], frame_here["data"]["sid"])
        for name in set(TEMP_NAME.findall(heard)):
            text = TEMP_NAME.sub(name, text)
        for there, here in zip(self._recorded.prompts, self._seen.prompts, strict=True):
            text = text.replace(json.dumps(there)[1:-1], json.dumps(here)[1:-1]) if _UUID.fullmatch(there) else text
        return json.loads(text)

    def _pair_ids(self, recorded: object, body: bytes) -> None:
        """Learn that a prompt id of the recording and one of this run correspond."""
        if not isinstance(recorded, dict) or "number" not in recorded or "prompt_id" not in recorded:
            return
        try:
            seen = json.loads(body)
        except ValueError:
            return
        if "prompt_id" in seen:
            self._recorded.learn_prompt(recorded["prompt_id"], recorded["number"])
            self._seen.learn_prompt(seen["prompt_id"], seen["number"])

    def _compare_frames(self, name: str, socket: _Socket) -> None:
        if not socket.recorded:
            return
        recorded = self._recorded.frames([_recorded_frame(frame) for frame in socket.recorded])
        seen = self._seen.frames(socket.heard)
        # Every socket hears of every change of the queue: the place of such messages among others is chance.
        there, here = ([frame for frame in frames if frame[0] == "status"] for frames in (recorded, seen))
        self.differences.compare(f"ws {name} number of status messages", len(there), len(here))
        self.differences.compare(f"ws {name} first and last status", [there[0], there[-1]], [here[0], here[-1]])
        there, here = ([frame for frame in frames if frame[0] != "status"] for frames in (recorded, seen))
        if self._unordered:
            missing, extra = (
                Counter(_short(frame) for frame in frames if frame[0] != "progress_state") for frames in (there, here)
            )
            self.differences.compare(f"ws {name} messages", missing - extra, extra - missing)
            return
        self.differences.compare(f"ws {name} messages", [frame[0] for frame in there], [frame[0] for frame in here])
        for position, (one, other) in enumerate(zip(there, here, strict=False)):
            if one != other:
                self.differences.compare(f"ws {name} message {position}", one, other)
                return


class _Socket:
    """A websocket that is read all the time, and what the recorded one received."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse, recorded: list[dict[str, Any]]) -> None:
        self.connection = connection
        self.recorded = recorded
        self.heard: list[Any] = []
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def has_heard(self, recorded: list[dict[str, Any]]) -> None:
        frames = [_recorded_frame(frame) for frame in recorded]
        due = sum(_is_milestone(frame) for frame in frames)
        last = frames[-1]["type"] if frames and not _is_milestone(frames[-1]) else None
        while not self._reader.done():
            heard = [position for position, frame in enumerate(self.heard) if _is_milestone(frame)]
            since = self.heard[heard[-1] :] if heard else []
            if len(heard) > due or (len(heard) == due and last in (None, *(frame["type"] for frame in since))):
                return
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        await self.connection.close()
        await self._reader

    def abort(self) -> None:
        transport = self.connection.get_extra_info("transport") or self.connection._writer.transport
        transport.abort()

    async def _read(self) -> None:
        async for message in self.connection:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.append(json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.BINARY:
                self.heard.append(_binary_frame(message.data))
            self._changed.set()
        self._changed.set()


def _is_milestone(frame: dict[str, Any]) -> bool:
    return frame["type"] not in ("progress", "progress_state", "binary")


def _recorded_frame(event: dict[str, Any]) -> dict[str, Any]:
    if "json" in event:
        frame: dict[str, Any] = event["json"]
        return frame
    binary = event["binary"]
    data = {"event": binary["event"], "metadata": binary.get("metadata"), "image": binary.get("image_size")}
    return {"type": "binary", "data": data}


def _binary_frame(data: bytes) -> dict[str, Any]:
    event, second = struct.unpack_from(">II", data)
    metadata, start = None, 8
    if event == 4:
        metadata, start = json.loads(data[8 : 8 + second]), 8 + second
    facts = image_facts(data[start:])
    return {
        "type": "binary",
        "data": {"event": event, "metadata": metadata, "image": [facts["format"], *facts["size"]]},
    }


def _form(fields: list[dict[str, Any]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for item in fields:
        if isinstance(item["value"], str):
            form.add_field(item["name"], item["value"])
        else:
            content = base64.b64decode(item["value"]["b64"])
            form.add_field(item["name"], content, filename=item["filename"], content_type=item.get("content_type"))
    return form


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return text if len(text) < 1500 else f"{text[:1500]}…"
