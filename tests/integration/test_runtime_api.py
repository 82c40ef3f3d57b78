"""The runtime that streams, against a strict Runtime API: prelude, chunks, trailers, and whatever breaks them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api.event_streams import Streamed
from comfy_serverless.handlers import runtime_api, stream
from comfy_serverless.handlers.runtime_api import ClientGone, RuntimeApi, RuntimeApiError
from local.aws.runtime_api import FunctionFailed, ProtocolBroken, Running
from local.aws.runtime_api import RuntimeApi as StrictApi
from tests.patience import PATIENCE_S, wait_until


@pytest.fixture
def strict() -> Iterator[StrictApi]:
    api = StrictApi()
    yield api
    api.close()


def whole(running: Running) -> tuple[int, dict[str, str], list[bytes]]:
    """The whole response of an invocation."""
    head = running.head(timeout_s=PATIENCE_S)
    parts: list[bytes] = []
    while (part := running.part(timeout_s=PATIENCE_S)) is not None:
        parts.append(part)
    return head.status, dict(head.headers), parts


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Have the function return this, or raise it."""

    def handler(event: Any, remaining_s: float) -> Any:
        assert 0 < remaining_s <= PATIENCE_S
        if isinstance(answer, Exception):
            raise answer
        return answer(event)

    monkeypatch.setattr(stream, "handler", handler)


def serve(strict: StrictApi, event: Any) -> Running:
    """Serve one invocation in a thread, as `main` does again and again."""
    api, running = RuntimeApi(strict.address), strict.invoke(event, timeout_s=PATIENCE_S)
    in_thread(lambda: stream.serve(api, api.next()))
    return running


def test_a_response_is_a_prelude_and_parts_that_arrive_one_by_one(
    strict: StrictApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def body() -> Iterator[str]:
        yield "data: ü\n\n"
        assert go_on.wait(PATIENCE_S)
        yield ""
        yield "data: 2\n\n" * 1000

    answer_with(monkeypatch, lambda event: Streamed(status=200, headers={"x-told": event["told"]}, body=body()))
    running = serve(strict, {"told": "é"})
    assert running.head(timeout_s=PATIENCE_S) == (200, {"x-told": "é"})
    assert running.part(timeout_s=PATIENCE_S) == "data: ü\n\n".encode(), "before the next part is made"
    go_on.set()
    assert running.part(timeout_s=PATIENCE_S) == b"data: 2\n\n" * 1000
    assert running.part(timeout_s=PATIENCE_S) is None
    assert strict.problems == []


def test_an_answer_without_a_body_is_a_prelude_alone(strict: StrictApi, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, lambda _: Streamed(status=204, headers={}))
    assert whole(serve(strict, {})) == (204, {}, [])


def test_a_failure_in_the_middle_is_in_the_trailers_and_tells_no_secret(
    strict: StrictApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> Iterator[str]:
        yield "data: 1\n\n"
        raise RuntimeError("token=secret")

    answer_with(monkeypatch, lambda _: Streamed(status=200, headers={}, body=body()))
    with pytest.raises(FunctionFailed, match=r"Function\.RuntimeError") as failure:
        whole(serve(strict, {}))
    assert "secret" not in str(failure.value)
    assert strict.problems == []


def test_a_failure_before_the_response_is_an_error_and_the_next_invocation_is_served(
    strict: StrictApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, ValueError("secret"))
    with pytest.raises(FunctionFailed, match=r"^Function\.ValueError") as failure:
        serve(strict, {}).head(timeout_s=PATIENCE_S)
    assert "secret" not in str(failure.value)
    answer_with(monkeypatch, lambda _: Streamed(status=200, headers={}, body=["x"]))
    assert whole(serve(strict, {})) == (200, {}, [b"x"])


def test_a_failed_start_is_told(strict: StrictApi) -> None:
    running = strict.invoke({}, timeout_s=PATIENCE_S)
    RuntimeApi(strict.address).fail_init(RuntimeError("x"))
    with pytest.raises(FunctionFailed, match="RuntimeError"):
        running.head(timeout_s=PATIENCE_S)


def test_headers_that_are_too_long_are_no_response(strict: StrictApi) -> None:
    api, running = RuntimeApi(strict.address), strict.invoke({}, timeout_s=PATIENCE_S)
    invocation = api.next()
    with pytest.raises(ValueError, match="16384"):
        api.respond(invocation, status=200, headers={"x": "x" * runtime_api.MAX_PRELUDE_BYTES})
    api.fail(invocation, ValueError())
    with pytest.raises(FunctionFailed):
        running.head(timeout_s=PATIENCE_S)


def test_a_client_that_has_left_is_noticed_by_the_next_parts(
    strict: StrictApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def body() -> Iterator[str]:
        nonlocal written
        while True:
            written += 1
            yield "data: 1\n\n"
            threading.Event().wait(0.01)

    answer_with(monkeypatch, lambda _: Streamed(status=200, headers={}, body=body()))
    api, running = RuntimeApi(strict.address), strict.invoke({}, timeout_s=PATIENCE_S)
    thread = in_thread(lambda: stream.serve(api, api.next()))
    running.head(timeout_s=PATIENCE_S)
    running.is_abandoned.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the invocation has ended"
    assert not strict.is_busy
    assert written < 100


@pytest.mark.parametrize("answer", [b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_runtime_api_that_takes_no_more_ends_the_stream_at_once(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = RuntimeApi(f"127.0.0.1:{server.getsockname()[1]}")
        invocation = runtime_api.Invocation(id="1", event={}, deadline_s=0)
        response = api.respond(invocation, status=200, headers={})
        connection, _ = server.accept()
        connection.sendall(answer)
        connection.close()
        wait_until(lambda: is_refused(response))


def is_refused(response: runtime_api.StreamedResponse) -> bool:
    try:
        response.write(b"x")
    except ClientGone:
        return True
    return False


def test_an_early_answer_that_is_no_refusal_ends_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = RuntimeApi(f"127.0.0.1:{server.getsockname()[1]}")
        response = api.respond(runtime_api.Invocation(id="1", event={}, deadline_s=0), status=200, headers={})
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        for _ in range(3):
            response.write(b"x")
        response.end()
        connection.close()


def test_a_runtime_api_that_refuses_ends_the_process() -> None:
    api = RuntimeApi(StrictApi().address)
    with pytest.raises(RuntimeApiError, match="status 400"):
        api.fail(runtime_api.Invocation(id="never-begun", event={}, deadline_s=0), ValueError())


# The Runtime API of these tests is as strict as it says.

GOOD = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Content-Type": "application/vnd.awslambda.http-integration-response",
}
PRELUDE = b'{"statusCode": 200}' + b"\0" * 8


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("headers", "body", "problem"),
    [
        ({**GOOD, "Lambda-Runtime-Function-Response-Mode": "buffered"}, chunk(PRELUDE) + b"0\r\n\r\n", "mode"),
        ({**GOOD, "Content-Type": "text/plain"}, chunk(PRELUDE) + b"0\r\n\r\n", "content type"),
        (GOOD, chunk(b'{"statusCode": 200}') + b"0\r\n\r\n", "no prelude"),
        (GOOD, chunk(b'{"statusCode": 200}' + b"\0" * 7) + b"0\r\n\r\n", "no prelude"),
        (GOOD, chunk(b"x" + b"\0" * 8) + b"0\r\n\r\n", "no JSON"),
        (GOOD, chunk(b'{"statusCode": "200"}' + b"\0" * 8) + b"0\r\n\r\n", "statusCode"),
        (GOOD, chunk(b'{"statusCode": 200, "body": ""}' + b"\0" * 8) + b"0\r\n\r\n", "unknown fields"),
        (GOOD, chunk(b'{"statusCode": 200, "headers": {"a": 1}}' + b"\0" * 8) + b"0\r\n\r\n", "texts"),
        (GOOD, chunk(b" " * 16_384 + PRELUDE) + b"0\r\n\r\n", "16 KB"),
        (GOOD, chunk(PRELUDE) + b"5\r\nabc\r\n0\r\n\r\n", "chunk"),
        (GOOD, chunk(PRELUDE) + b"x\r\n", "chunk"),
        (GOOD, chunk(PRELUDE) + b"0\r\nX: y\r\n\r\n", "not declared"),
        ({**GOOD, "Trailer": "X"}, chunk(PRELUDE) + b"0\r\nX: y\r\n\r\n", "does not know"),
        (
            {**GOOD, "Trailer": "Lambda-Runtime-Function-Error-Body"},
            chunk(PRELUDE) + b"0\r\nLambda-Runtime-Function-Error-Body: {}\r\n\r\n",
            "base64",
        ),
    ],
)
def test_the_runtime_api_refuses_what_lambda_would(
    strict: StrictApi, headers: dict[str, str], body: bytes, problem: str
) -> None:
    running = strict.invoke({}, timeout_s=PATIENCE_S)
    invocation = RuntimeApi(strict.address).next()
    host, _, port = strict.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        lines = [f"POST /2018-06-01/runtime/invocation/{invocation.id}/response HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    with pytest.raises(ProtocolBroken, match=problem):
        whole(running)
    assert len(strict.problems) == 1
