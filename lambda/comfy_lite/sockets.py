"""The websockets: the sockets by client id, and the delivery of messages to them.

The worker thread hands messages over with `send` and `send_image`; one loop delivers them in order. As in ComfyUI,
nothing is kept for absent clients, the newest socket of a client id gets everything, and closing an older
socket of the same id unregisters the newer one: clients have to survive that, so tests must be able to provoke it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import ClientError, WSMsgType, web

logger = logging.getLogger("comfy_lite")

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
_IMAGE_FORMATS = {"JPEG": 1, "PNG": 2}


class SocketHub:
    """Sends every message. `send*` may be called from any thread, the rest from the event loop."""

    def __init__(self, *, features: Mapping[str, Any], queue_status: Callable[[], Mapping[str, Any]]) -> None:
        #: What goes wrong in delivery, when a test asks for it.
        self.muted, self.delay_s, self.copies = False, 0.0, 1
        self._features = features
        self._queue_status = queue_status
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._flags: dict[str, Mapping[str, Any]] = {}
        self._connections: set[asyncio.Transport] = set()
        self._outbox: asyncio.Queue[tuple[str | bytes, str | None]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._owner: str | None = None
        self._running_node: str | None = None

    def running(self, *, owner: str | None, node_id: str | None) -> None:
        """Note the owner of the running prompt and the node, for clients that reconnect meanwhile."""
        self._owner, self._running_node = owner, node_id

    def send(self, event: str, data: Mapping[str, Any], client_id: str | None) -> None:
        """Send a message to one client, or to all if `client_id` is None."""
        self._post(json.dumps({"type": event, "data": data}), client_id)

    def send_image(
        self, image: bytes, *, image_format: str, client_id: str | None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Send a preview; with `metadata`, in the newer form (see `wants_metadata`)."""
        if metadata is None:
            self._post(struct.pack(">II", PREVIEW_IMAGE, _IMAGE_FORMATS[image_format]) + image, client_id)
            return
        header = json.dumps({**metadata, "image_type": f"image/{image_format.lower()}"}).encode()
        self._post(struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(header)) + header + image, client_id)

    def wants_metadata(self, client_id: str | None) -> bool:
        return bool(self._flags.get(client_id or "", {}).get("supports_preview_metadata"))

    def drop_all(self) -> None:
        """Cut every connection without a closing handshake (a fault for tests). Safe from any thread."""
        self._loop.call_soon_threadsafe(self._abort_all)

    async def deliver_forever(self) -> None:
        """Deliver messages one by one. As in ComfyUI, a client that does not read holds up all others."""
        while True:
            message, client_id = await self._outbox.get()
            receivers = list(self._sockets.values())
            if client_id is not None:
                receivers = [self._sockets[client_id]] if client_id in self._sockets else []
            for socket in receivers * self.copies:
                await _send(socket, message)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection, from its handshake to its end."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.rel_url.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets[client_id] = socket
        self._flags[client_id] = {}
        connection = request.transport
        if connection is not None:
            self._connections.add(connection)
        try:
            await _send(socket, _message("status", {"status": self._queue_status(), "sid": client_id}))
            if client_id == self._owner and self._running_node is not None:
                await _send(socket, _message("executing", {"node": self._running_node}))
            await self._read(socket, client_id)
        finally:
            self._sockets.pop(client_id, None)
            self._flags.pop(client_id, None)
            if connection is not None:
                self._connections.discard(connection)
        return socket

    async def _read(self, socket: web.WebSocketResponse, client_id: str) -> None:
        negotiated = False
        async for frame in socket:
            if frame.type is WSMsgType.ERROR:
                logger.warning("websocket of %s broke: %s", client_id, socket.exception())
            flags = _feature_flags(frame.data) if frame.type is WSMsgType.TEXT else None
            if flags is None or negotiated:
                continue
            negotiated = True  # only the first readable message negotiates
            if flags:
                self._flags[client_id] = flags.get("data", {})
                await _send(socket, _message("feature_flags", self._features))

    def _post(self, message: str | bytes, client_id: str | None) -> None:
        if self.muted:
            return
        if self.delay_s:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self.delay_s, self._outbox.put_nowait, (message, client_id)
            )
        else:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, (message, client_id))

    def _abort_all(self) -> None:
        for connection in self._connections:
            connection.abort()


def _message(event: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": event, "data": data})


def _feature_flags(text: str) -> dict[str, Any] | None:
    """The message if it negotiates features, {} if it is another object, None if it cannot be read."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    if not isinstance(message, dict):
        return None
    return message if message.get("type") == "feature_flags" else {}


async def _send(socket: web.WebSocketResponse, message: str | bytes) -> None:
    try:
        if isinstance(message, str):
            await socket.send_str(message)
        else:
            await socket.send_bytes(message)
    except (ClientError, ConnectionError) as error:
        logger.warning("message not delivered: %s", error)
