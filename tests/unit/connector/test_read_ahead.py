"""A connection that is read in large pieces."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import cast

import websocket
from hypothesis import given, settings
from hypothesis import strategies as st

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


FRAMES = st.builds(
    lambda opcode, payload: websocket.ABNF(1, 0, 0, 0, opcode, 0, payload),
    st.sampled_from([websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_PING]),
    st.one_of(st.binary(max_size=125), st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536, 70000]).map(bytes)),
)


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(FRAMES, max_size=8), cuts=st.lists(st.integers(1, 400), max_size=12))
def test_messages_are_those_of_websocket_client_however_they_are_cut(
    frames: list[websocket.ABNF], cuts: list[int]
) -> None:
    """Its own reading is the truth; the stream is cut into pieces of these sizes, over and over."""
    stream = b"".join(frame.format() for frame in frames)
    assert _messages(stream, cuts, ahead=True) == _messages(stream, cuts, ahead=False)


def test_a_message_in_two_frames_with_another_between_them_is_not_torn() -> None:
    text, ping, rest = websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_CONT
    frames = [(0, text, b"ab"), (1, ping, b"p"), (1, rest, b"cd"), (1, text, b"efgh")]
    stream = b"".join(websocket.ABNF(fin, 0, 0, 0, opcode, 0, payload).format() for fin, opcode, payload in frames)
    assert _messages(stream, [], ahead=True) == [(ping, b"p"), (text, b"abcd"), (text, b"efgh")]


def _messages(stream: bytes, cuts: list[int], *, ahead: bool) -> list[tuple[int, bytes]]:
    ours, theirs = socket.socketpair()

    def send() -> None:
        left = stream
        with suppress(OSError):  # a message that websocket-client refuses is the last that is read
            for size in cuts:
                theirs.sendall(left[:size])
                left = left[size:]
            theirs.sendall(left)
            theirs.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    connection = ReadAhead(ours)
    reader = websocket.WebSocket(skip_utf8_validation=True)
    reader.sock, reader.connected = cast("socket.socket", connection), True
    found: list[tuple[int, bytes]] = []
    try:
        while True:
            found.append((ahead and connection.message()) or reader.recv_data(control_frame=True))
    except websocket.WebSocketConnectionClosedException:
        return found
    except websocket.WebSocketException as error:
        return [*found, (-1, repr(error).encode())]
    finally:
        connection.close()
        sender.join()
        theirs.close()
