"""The floor: the least that a client of ComfyUI can do, with the standard library alone.

It has one kept-alive HTTP connection, reads one websocket frame by frame, and reads outputs from the engine's output
folder. It handles no errors and checks nothing: what a connector costs beyond this is the price of its promises.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class FloorRun:
    """One prompt, from just before its submit until its outputs are read."""

    wall_ms: float
    executing_ms: float
    size_bytes: int

    @property
    def overhead_ms(self) -> float:
        """The time beyond ComfyUI's own execution."""
        return self.wall_ms - self.executing_ms


class Floor:
    """The bare client. Use it from one thread."""

    def __init__(self, host: str, port: int, output_directory: Path) -> None:
        self._output_directory = output_directory
        self._client_id = uuid.uuid4().hex
        self._http = http.client.HTTPConnection(host, port)
        self._socket = _open_websocket(host, port, f"/ws?clientId={self._client_id}")
        self._buffer = b""

    def close(self) -> None:
        """Close both connections."""
        self._socket.close()
        self._http.close()

    def run(self, graph: Mapping[str, Any]) -> FloorRun:
        """Submit, wait for the last event, read the outputs."""
        started = time.perf_counter()
        prompt_id = self.submit(graph)
        self.wait(prompt_id)
        entry = self.history(prompt_id)
        size_bytes = sum(len(content) for content in self.outputs(entry))
        wall_ms = (time.perf_counter() - started) * 1000
        return FloorRun(wall_ms, executing_ms(entry), size_bytes)

    def submit(self, graph: Mapping[str, Any]) -> str:
        """`POST /prompt`."""
        body = json.dumps({"prompt": graph, "client_id": self._client_id})
        answer = self._request("POST", "/prompt", body)
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str) -> None:
        """Read events until the prompt's last one."""
        for message in self.events():
            data = message["data"]
            if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                return

    def events(self) -> Iterator[dict[str, Any]]:
        """Every text message from now on."""
        while True:
            opcode, payload = self._read_frame()
            if opcode == 1:
                yield json.loads(payload)

    def history(self, prompt_id: str) -> dict[str, Any]:
        """`GET /history/{id}`: the entry."""
        return self._request("GET", f"/history/{prompt_id}")[prompt_id]  # type: ignore[no-any-return]

    def latest(self, count: int) -> list[dict[str, Any]]:
        """`GET /history`: the newest entries, oldest first."""
        return list(self._request("GET", f"/history?max_items={count}").values())

    def outputs(self, entry: Mapping[str, Any]) -> Iterator[bytes]:
        """The bytes of every file the prompt made."""
        for path in self.output_paths(entry["outputs"]):
            yield path.read_bytes()

    def output_paths(self, outputs: Mapping[str, Any]) -> Iterator[Path]:
        """The paths of those files."""
        for shown in outputs.values():
            for image in shown.get("images", ()):
                yield self._output_directory / image["subfolder"] / image["filename"]

    def _request(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        self._http.request(method, path, body)
        return json.loads(self._http.getresponse().read())  # type: ignore[no-any-return]

    def _read_frame(self) -> tuple[int, bytes]:
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        return first & 0x0F, self._take(length)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            received = self._socket.recv(1 << 16)
            if not received:
                raise ConnectionError("the websocket was closed")
            self._buffer += received
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


def executing_ms(entry: Mapping[str, Any]) -> float:
    """The time of ComfyUI's own execution, by its own clock (whole milliseconds)."""
    times = [data["timestamp"] for _, data in entry["status"]["messages"] if "timestamp" in data]
    return float(times[-1] - times[0])


def _open_websocket(host: str, port: int, path: str) -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    return connection
