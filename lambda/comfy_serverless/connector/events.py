"""The one websocket to ComfyUI: read by one thread, fanned out by prompt id.

The reading thread only parses and hands on. A client that stops reading stalls the events of every client of that
ComfyUI, so nothing here may wait for a subscriber.

ComfyUI replays nothing, and a socket reopened under the same client id can be deregistered when the old
one is cleaned up. So every subscriber is notified of a lost socket (and then asks the history), and the next one is
opened under a fresh client id.
"""

from __future__ import annotations

import json
import logging
import math
import struct
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import websocket

from comfy_serverless.connector.client import excerpt, reason_of
from comfy_serverless.connector.facts import EventMissed, EventSeen, Fact, FrameSeen, SocketLost
from comfy_serverless.connector.read_ahead import ReadAhead
from comfy_serverless.connector.server import Server
from comfy_serverless.connector.state_messages import StateMessages
from comfy_serverless.connector.unusable import no_websocket

logger = logging.getLogger(__name__)

_PREVIEW_IMAGE = 1
_PREVIEW_IMAGE_WITH_METADATA = 4
_IMAGE_TYPES = {1: "image/jpeg", 2: "image/png"}
_CONNECT_TIMEOUT_S = 5.0
#: After this much silence the server is pinged; after as much again without an answer the socket counts as lost.
_SILENCE_S = 15.0
#: Stands for an answer to the handshake that is none: a redirect, or a 101 of another protocol.
_NOT_SWITCHED = 302

Sink = Callable[[Fact], None]


class NoWebsocket(ConnectionError):
    """The websocket does not open; the text says what to do.

    Attributes:
        status: of the answer to the handshake; None without one.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class EventStream:
    """Hands the events of one ComfyUI server to the subscribers of its prompts.

    Args:
        app_name: the beginning of the client id.
    """

    def __init__(self, server: Server, *, app_name: str) -> None:
        self._server = server
        self._app_name = app_name
        self._lock = threading.Lock()
        self._sinks: dict[str, Sink] = {}
        self._socket: websocket.WebSocket | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        #: When a fact about any subscribed prompt last arrived, on the monotonic clock.
        self.heard_at = -math.inf
        self.client_id = self._new_client_id()

    @property
    def address(self) -> str:
        """The websocket's address with the current client id."""
        return f"{self._server.websocket_url}?clientId={quote(self.client_id)}"

    @property
    def connected(self) -> bool:
        """Whether a socket is open and being read."""
        return self._socket is not None

    def connect(self) -> str:
        """Open the socket unless it is open. Returns the client id to submit prompts under.

        Raises:
            NoWebsocket: it does not open.
        """
        with self._lock:
            if self._closed:
                raise ConnectionError("the event stream is closed")
            if self._socket is None:
                self.client_id = self._new_client_id()
                socket = self._open()
                self._socket = socket
                self._thread = threading.Thread(target=self._read, args=(socket,), name="comfy-events", daemon=True)
                self._thread.start()
            return self.client_id

    def subscribe(self, prompt_id: str, sink: Sink) -> None:
        """Start handing facts about a prompt to `sink`, which must not block. Subscribe before submitting."""
        with self._lock:
            self._sinks[prompt_id] = sink

    def unsubscribe(self, prompt_id: str) -> None:
        """Stop handing facts about a prompt."""
        with self._lock:
            self._sinks.pop(prompt_id, None)

    def close(self) -> None:
        """Close the socket and wait for the reading thread to end."""
        with self._lock:
            self._closed = True
            socket, thread = self._socket, self._thread
        self._disconnect(socket)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_CONNECT_TIMEOUT_S)

    def drop(self) -> None:
        """Close the socket but not the stream: the server behind the socket is gone."""
        self._disconnect(self._socket)

    def _disconnect(self, socket: websocket.WebSocket | None) -> None:
        if socket is None:
            return
        try:
            # `abort` wakes the reading thread, which closes and forgets the socket; `close` would not wake it.
            socket.abort()  # type: ignore[no-untyped-call]
        except (OSError, websocket.WebSocketException) as error:
            logger.debug("websocket did not close cleanly: %s", error)

    def _new_client_id(self) -> str:
        return f"{self._app_name}-{uuid.uuid4()}"

    def _open(self) -> websocket.WebSocket:
        try:
            # Our own connection: to the library's the environment's proxies would apply, and redirects.
            connection = ReadAhead(self._server.open_socket(timeout_s=_CONNECT_TIMEOUT_S))
            socket = websocket.create_connection(
                self.address,
                socket=connection,
                redirect_limit=0,
                # ComfyUI refuses a foreign Origin with 403, and websocket-client sends one by default.
                suppress_origin=True,
                header=dict(self._server.headers),
                enable_multithread=True,
                # Parsing the JSON validates it too, a hundred times faster.
                skip_utf8_validation=True,
            )
            try:
                if socket.getstatus() != HTTPStatus.SWITCHING_PROTOCOLS:  # older libraries take a redirect for a yes
                    raise websocket.WebSocketException(f"it is answered with {socket.getstatus()}")  # noqa: TRY301
                # Must be the first message; with it previews name their node.
                socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
                socket.settimeout(_SILENCE_S)
            except BaseException:
                connection.close()
                raise
        except (OSError, websocket.WebSocketException) as error:
            status, reason = _handshake(error)
            raise NoWebsocket(
                no_websocket(status, self._server.without_secrets(reason), self._server), status
            ) from None
        return socket

    def _read(self, socket: websocket.WebSocket) -> None:
        connection = cast("ReadAhead", socket.sock)
        reader = _FrameReader()
        pinged = False
        reason = "closed by the server"
        try:
            while True:
                try:
                    # After a silence it may have half a frame: what comes next is its own to read.
                    whole = None if pinged else connection.message()
                    opcode, payload = whole or socket.recv_data(control_frame=True)
                except (TimeoutError, websocket.WebSocketTimeoutException):
                    if pinged:
                        reason = "silent"
                        break
                    socket.ping()
                    pinged = True
                    continue
                pinged = False
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    break
                try:
                    addressed = reader.read(opcode, payload)
                except _Unreadable:
                    logger.warning("a websocket message could not be read: %.200r", payload)
                    self._hand_to_all(EventMissed())
                    continue
                if addressed is not None:
                    self._hand_on(*addressed)
        except (OSError, websocket.WebSocketException) as error:
            reason = str(error)
        finally:
            self._lose(socket, reason)

    def _hand_on(self, prompt_id: str, fact: Fact) -> None:
        with self._lock:
            sink = self._sinks.get(prompt_id)
        if sink is not None:
            self.heard_at = time.monotonic()
            sink(fact)

    def _hand_to_all(self, fact: Fact) -> None:
        with self._lock:
            sinks = list(self._sinks.values())
        for sink in sinks:
            sink(fact)

    def _lose(self, socket: websocket.WebSocket, reason: str) -> None:
        with self._lock:
            if self._socket is socket:
                self._socket = None
            closed = self._closed
        socket.shutdown()  # type: ignore[no-untyped-call]
        if not closed:
            logger.info("websocket lost: %s", reason)
        self._hand_to_all(SocketLost())


def _handshake(error: Exception) -> tuple[int | None, str]:
    """The status of a refused handshake, if it has one, and the reason."""
    if isinstance(error, websocket.WebSocketBadStatusException):
        body = error.resp_body if isinstance(error.resp_body, bytes) else b""
        return error.status_code, f"{error.status_code} {excerpt(body.decode('utf-8', errors='replace'))}".strip()
    if type(error) is websocket.WebSocketException:  # its subclasses are about the connection
        return _NOT_SWITCHED, "it is redirected" if "Redirect" in str(error) else str(error)
    return None, reason_of(error)


class _Unreadable(Exception):
    """A message is not in ComfyUI's form."""


class _FrameReader:
    """Turns websocket frames into facts about prompts. Remembers the executing node: some previews do not name it."""

    def __init__(self) -> None:
        self._executing: tuple[str, str] | None = None
        self._states = StateMessages()

    def read(self, opcode: int, payload: bytes) -> tuple[str, Fact] | None:
        """The prompt that a frame is about and the fact it carries; None for frames about no prompt."""
        if opcode == websocket.ABNF.OPCODE_TEXT:
            return self._read_text(payload)
        if opcode == websocket.ABNF.OPCODE_BINARY:
            return self._read_binary(payload)
        return None

    def _read_text(self, payload: bytes) -> tuple[str, Fact] | None:
        try:
            message = self._states.read(payload) or json.loads(payload)
            kind, data = message["type"], message["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise _Unreadable from error
        prompt_id = data.get("prompt_id") if isinstance(data, dict) else None
        if not isinstance(prompt_id, str):
            return None
        if kind == "executing":
            node = data.get("node")
            self._executing = (prompt_id, node) if isinstance(node, str) else None
        return prompt_id, EventSeen(kind=str(kind), data=data)

    def _read_binary(self, payload: bytes) -> tuple[str, Fact] | None:
        if len(payload) < 8:
            return None
        event, number = struct.unpack_from(">II", payload)
        if event == _PREVIEW_IMAGE and self._executing is not None:
            prompt_id, node_id = self._executing
            content_type = _IMAGE_TYPES.get(number, "image/jpeg")
            return prompt_id, FrameSeen(node_id=node_id, content_type=content_type, content=payload[8:])
        if event == _PREVIEW_IMAGE_WITH_METADATA:
            return self._read_described_image(payload, number)
        return None

    def _read_described_image(self, payload: bytes, length: int) -> tuple[str, Fact] | None:
        try:
            described: dict[str, Any] = json.loads(payload[8 : 8 + length])
            prompt_id = str(described["prompt_id"])
            frame = FrameSeen(
                node_id=str(described["node_id"]),
                content_type=str(described.get("image_type", "image/jpeg")),
                content=payload[8 + length :],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _Unreadable from error
        return prompt_id, frame
