"""A connection that is read in large pieces: websocket-client asks for two bytes of a message, two more, and the rest.

After each it would wait for its turn among this process's threads; most messages of a short prompt come together. A
message that has come whole, in one frame as nearly all of ComfyUI's, is taken without that library: it takes longer
for each than we do to act on it, and the thread that follows the prompt waits meanwhile.
"""

from __future__ import annotations

import socket
from typing import Any

_PIECE_BYTES = 1 << 16
#: The first byte of a frame (RFC 6455, 5.2) that is a whole message, text or binary.
_WHOLE = frozenset({0x81, 0x82})
#: A second byte above it is a mask's, which servers do not use, or a length beyond 64 KB.
_LENGTH_FOLLOWS, _MOST_HEAD_BYTES = 126, 4


class ReadAhead:
    """A connection, of which nobody else reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = b""

    def recv(self, most_bytes: int) -> bytes:
        """Up to so many of the next bytes; b"" at the end."""
        ahead = self._ahead or self._connection.recv(max(most_bytes, _PIECE_BYTES))
        self._ahead = ahead[most_bytes:]
        return ahead[:most_bytes]

    def message(self) -> tuple[int, bytes] | None:
        """The next message, its kind first, as websocket-client has it. For use between two of its messages.

        None if it is not in one frame, or not here whole: websocket-client can read it. Raises as the connection.
        """
        ahead = self._ahead = self._ahead or self._connection.recv(_PIECE_BYTES)
        if len(ahead) < _MOST_HEAD_BYTES or ahead[0] not in _WHOLE or ahead[1] > _LENGTH_FOLLOWS:
            return None
        begin, length = (2, ahead[1]) if ahead[1] < _LENGTH_FOLLOWS else (4, int.from_bytes(ahead[2:4], "big"))
        end = begin + length
        if end > len(ahead):
            return None
        self._ahead = ahead[end:]
        return ahead[0] & 0xF, ahead[begin:end]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all the rest is the connection's own
        return getattr(self._connection, name)
