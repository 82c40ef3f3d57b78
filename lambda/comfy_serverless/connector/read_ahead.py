"""A connection that is read in large pieces: websocket-client asks for two bytes of a message, two more, and the rest.

After each it would wait for its turn among this process's threads; most messages of a short prompt come together.
"""

from __future__ import annotations

import socket
from typing import Any

_PIECE_BYTES = 1 << 16


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

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all the rest is the connection's own
        return getattr(self._connection, name)
