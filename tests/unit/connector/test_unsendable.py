"""ComfyUI's last words tell why it has ended, if they do for certain; else the error stays as it is."""

from __future__ import annotations

import pytest

from comfy_serverless.connector.unsendable import explained, reason_in
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    EngineCrashed,
    EngineStalled,
    NodeExecutionError,
)

#: As ComfyUI 0.33.0 has written it, without some frames.
LAST_WORDS = """[INFO] got prompt
Traceback (most recent call last):
  File "/ComfyUI/main.py", line 637, in <module>
    event_loop.run_until_complete(x)
  File "/usr/lib/python3.11/asyncio/base_events.py", line 653, in run_until_complete
    return future.result()
           ^^^^^^^^^^^^^^^
  File "/ComfyUI/server.py", line 1402, in publish_loop
    await self.send(*msg)
  File "/ComfyUI/server.py", line 1390, in send_json
    await send_socket_catch_exception(self.sockets[sid].send_json, message)
[INFO] Prompt executed in 0.01 seconds
  File "/usr/lib/python3.11/json/encoder.py", line 180, in default
    raise TypeError(f'Object of type {o.__class__.__name__} '
TypeError: Object of type bytes is not JSON serializable""".splitlines()
WHY = "Object of type bytes is not JSON serializable"


def told(error: ComfyError, lines: list[str] = LAST_WORDS) -> ComfyError:
    return explained(error, lines, node_id="4", class_type="Odd")


@pytest.mark.parametrize(
    "error", [EngineCrashed("it died"), EngineStalled("nothing moves"), DeadlineExceeded("too late")], ids=repr
)
def test_the_reason_and_the_node_are_named(error: ComfyError) -> None:
    found = told(error)
    assert isinstance(found, NodeExecutionError)
    assert WHY in found.message
    assert "node 4 (Odd)" in found.message
    assert (found.details["node_id"], found.details["ended_as"]) == ("4", error.code)
    assert not found.retryable


@pytest.mark.parametrize(
    "error",
    [Canceled("by its owner"), EngineCrashed("the GPU is lost", details={"node_id": "2"})],
    ids=["it was canceled", "a node is known to have lost the GPU"],
)
def test_what_has_another_reason_keeps_it(error: ComfyError) -> None:
    assert told(error) is error


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [line for line in LAST_WORDS if "publish_loop" not in line],
        [line for line in LAST_WORDS if "run_until_complete(x)" not in line and "run_until" not in line],
        [line for line in LAST_WORDS if "encoder.py" not in line],
        LAST_WORDS[:-1],
        [LAST_WORDS[-1]],
        ["TypeError: " + WHY, *LAST_WORDS[:-1]],
        [*LAST_WORDS[:9], "Traceback (most recent call last):", '  File "x.py", line 1, in send_json', LAST_WORDS[-1]],
        [*LAST_WORDS[:-1], "OSError: [Errno 28] No space left on device"],
    ],
    ids=[
        *("nothing", "not as it published", "not the main thread", "not in JSON", "no reason", "no traceback"),
        *("a reason before", "two tracebacks", "another reason"),
    ],
)
def test_nothing_is_guessed(lines: list[str]) -> None:
    assert reason_in(lines) is None
    error = EngineCrashed("it died")
    assert told(error, lines) is error
