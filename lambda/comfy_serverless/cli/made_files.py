"""Reads the JSON in a file or on stdin: itself, or inside of a picture, video, sound or model that ComfyUI has made.

A file of any size is read where its workflow stands, and nowhere else. That happens in the sandbox's child where it
can run, which is Linux; elsewhere in this process, within the same bounds of work (`sandbox.embedded`): the readers
are plain Python, and the file is the user's own.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from typing import IO, Any

from comfy_serverless.cli.paths import local_path
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, NotJson
from comfy_serverless.json_text import parse_json
from comfy_serverless.sandbox.embedded import HEAD_BYTES, read_embedded, says_it_may_hold
from comfy_serverless.sandbox.embedded.window import Window
from comfy_serverless.sandbox.refused import Refused

#: The most that is read of JSON, and of what comes through a pipe.
_MOST_BYTES = 100_000_000
_DEADLINE_S = 60.0
#: How the names of manifests end.
_OF_MANIFESTS = (".jsonl", ".ndjson", ".jsonlines")


def read_value(name: str) -> tuple[object, tuple[str, ...]]:
    """The JSON in a file, or on stdin for `-`, and what was left out of it, for people.

    Of a file that ComfyUI has made it is `{"prompt": …, "workflow": …}`; one of them may be missing.

    Raises:
        InvalidRequest: it cannot be read, or is no JSON.
        InvalidWorkflow: it is a file that carries no workflow.
    """
    if name == "-":
        return _value_in(sys.stdin.buffer.read(_MOST_BYTES), name)
    try:
        with local_path(name).open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe: `<(jq … fox.json)`
                return _value_in(file.read(_MOST_BYTES), name)
            if says_it_may_hold(file.read(HEAD_BYTES)):
                return _value_inside(file, name)
            file.seek(0)
            return _value_in(file.read(_MOST_BYTES), name)
    except NotJson as error:
        if not name.lower().endswith(_OF_MANIFESTS):
            raise
        raise NotJson(
            f"{error.message} A manifest has a job request in each line: `comfy-serverless batch submit "
            f"{shlex.quote(name)}` runs them all."
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"the workflow {name} cannot be read: {reason}") from error


def _value_in(content: bytes, name: str) -> tuple[object, tuple[str, ...]]:
    if not says_it_may_hold(content[:HEAD_BYTES]):
        return parse_json(content, source=f"the workflow {name}"), ()
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return _value_inside(file, name)


def _value_inside(file: IO[bytes], name: str) -> tuple[object, tuple[str, ...]]:
    try:
        found = _read(file.fileno())
    except Refused as refused:
        called = "what came through standard input" if name == "-" else name
        raise InvalidWorkflow(f"{called} {refused}") from refused
    return found["document"], tuple(found["warnings"])


def _read(descriptor: int) -> Mapping[str, Any]:
    size = os.fstat(descriptor).st_size
    if sys.platform != "linux":
        return read_embedded(Window.of_file(descriptor, size=size))
    from comfy_serverless.sandbox.sandbox import Sandbox

    with closing(Sandbox()) as sandbox:
        deadline = time.monotonic() + _DEADLINE_S
        return sandbox.read_embedded(descriptor, size=size, known=[(0, size)], deadline=deadline, turn="", owner="")
