"""One child process: starting it, giving it a task with open files, its answer, its end.

It is a plain Python with an empty environment and one descriptor of ours, a socket; a fork would copy locks that other
threads hold, and `multiprocessing` needs /dev/shm, which Lambda has not. A file goes over that socket as an open
descriptor, so that the child needs no path. Where the socket ends the child ends: see `child.py`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_serverless.sandbox.limits import cpu_refusal
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.uncollected import load_json

#: A wait that took longer than this was none: the machine stood still (Lambda freezes it between invocations).
_SLICE_S = 0.1
_LONGEST_ANSWER_BYTES = 16_000_000
_END_S = 5.0
#: Where the interpreter finds its own libraries, if the platform has put them elsewhere.
_KEPT_VARIABLES = ("LD_LIBRARY_PATH",)
#: The interpreter reads neither the environment, nor the user's packages, nor the current folder.
_ISOLATED = ("-I", "-S", "-c")
_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from comfy_serverless.sandbox.child import main
main()
"""
_PACKAGE_ROOT = str(Path(__file__).parents[2])
#: Signals that say nothing about the file: the child was ended from outside, or by the kernel for want of memory.
_FROM_OUTSIDE = frozenset({0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})


class ChildGone(Exception):
    """There is no child, or it ended before its answer and not through the file."""


class SandboxFailed(Exception):
    """A check failed through a fault of our own."""


class Child:
    """A process that runs checks, one at a time. Raises ChildGone if none can be started.

    Args:
        libraries: a folder of libraries that our own Python has not, if there is one.
    """

    def __init__(self, libraries: Path | None = None) -> None:
        path = [_PACKAGE_ROOT, *(os.path.abspath(entry) for entry in sys.path)]  # noqa: PTH100  ("" is this folder)
        path += [] if libraries is None else [str(libraries)]
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, *_ISOLATED, _PROGRAM, json.dumps(path)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            self._socket.close()
            raise ChildGone(f"no process can be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ask(self, task: Mapping[str, Any], descriptors: Sequence[int], *, deadline: float) -> Any:  # noqa: ANN401
        """Let it do a task with open files; return its answer. After an error, `kill` it.

        Raises:
            Refused: the file ended it, or the deadline is over.
            ChildGone: it was ended by something else.
            SandboxFailed: it does not work.
        """
        try:
            message = json.dumps(task).encode() + b"\n"
            socket.send_fds(self._socket, [message], list(descriptors))
            return load_json(self._line(deadline))
        except ConnectionError as error:
            raise self._why_it_ended() from error

    def kill(self) -> None:
        """End it, and wait for its end."""
        self._process.kill()
        self._process.wait(_END_S)
        self._socket.close()

    def _line(self, deadline: float) -> bytes:
        """Its answer, a line."""
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        line = bytearray()
        left_s = deadline - time.monotonic()
        while not line.endswith(b"\n"):
            begun = time.monotonic()
            if readable.poll(1000 * max(0.0, min(_SLICE_S, left_s))):
                part = self._socket.recv(1 << 16)
                if not part:
                    raise ConnectionResetError
                line += part
                if len(line) > _LONGEST_ANSWER_BYTES:
                    raise SandboxFailed("a check answered too much")
            elif left_s <= 0:
                raise Refused("was not decoded before its time was over", timed_out=True)
            left_s -= min(time.monotonic() - begun, 2 * _SLICE_S)
        return bytes(line)

    def _why_it_ended(self) -> Exception:
        code = self._process.wait(_END_S)
        if code == -signal.SIGPROF:
            return Refused(cpu_refusal())
        if code in _FROM_OUTSIDE:
            return ChildGone(f"the process that decodes was ended from outside (exit code {code})")
        if code < 0:
            return Refused(f"makes its decoder crash ({signal.Signals(-code).name})")
        return SandboxFailed(f"the process that decodes does not run (exit code {code})")
