"""A connection that is read in large pieces."""

from __future__ import annotations

import socket

from comfy_serverless.connector.read_ahead import ReadAhead


def test_small_reads_are_served_from_one_large_one_and_the_rest_is_the_connections() -> None:
    ours, theirs = socket.socketpair()
    reads: list[int] = []

    class Counted(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            reads.append(size)
            return super().recv(size, flags)

    connection = ReadAhead(Counted(fileno=ours.detach()))
    with theirs:
        theirs.sendall(b"abcdef")
        assert [connection.recv(2), connection.recv(3), connection.recv(9)] == [b"ab", b"cde", b"f"]
        assert len(reads) == 1
        connection.settimeout(5)
        assert connection.gettimeout() == 5
    assert connection.recv(2) == b"", "its end"
    connection.close()
