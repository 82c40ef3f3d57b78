"""Programs that run beside ours for a while, and of which nothing may be left afterwards.

Every program is started in a session of its own, and with a mark in its environment. What it starts inherits both: one
that moves to another session still has the mark, and one that is closed to others, so that nobody can read its
environment, is still in the session. So `stop()` finds and ends the orphans too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

LOOPBACK = "127.0.0.1"
MARK = "COMFY_LOCAL_PROCESS"
POLL_S = 0.005
_MAX_PAUSE_S = 0.1
#: What a program may know of its caller's environment: no credentials, no proxies, no settings of ours.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
#: Which ComfyUI runs jobs.
ENGINE_VARIABLES = (
    *("COMFYUI_DIR", "COMFYUI_PYTHON", "COMFYUI_ARGS", "COMFYUI_URL", "COMFYUI_TOKEN", "COMFYUI_HEADERS"),
    "API_COMMAND_LINE",
)
#: What a worker may fetch as a model.
MODEL_VARIABLES = ("HF_TOKEN", "CIVITAI_TOKEN", "ALLOW_UNPINNED_MODELS", "ALLOW_PICKLED_MODELS", "MODELS_MANIFEST")


class ProcessDied(RuntimeError):
    """A program ended although it was still needed. The message has its exit code and its last lines."""


class NotListening(RuntimeError):
    """A program did not open its port in time, though it lives."""


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment() -> dict[str, str]:
    """The few variables of our own environment that a program started here may see."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def chosen_engine() -> dict[str, str]:
    """The variables of our own environment that name a ComfyUI and its models; none for the embedded engine."""
    return {name: os.environ[name] for name in (*ENGINE_VARIABLES, *MODEL_VARIABLES) if os.environ.get(name)}


class OutputLog:
    """The last lines a program printed; all of them go to `path`, if one is given, behind what is there."""

    def __init__(self, path: Path | None = None, *, max_lines: int = 20_000) -> None:
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._changed = threading.Condition()
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", buffering=1)

    def append(self, line: str) -> None:
        """Add one line, given without its line end."""
        with self._changed:
            self._lines.append(line)
            if self._file is not None:
                self._file.write(line + "\n")
            self._changed.notify_all()

    def lines(self) -> list[str]:
        """All lines that are still held, oldest first."""
        with self._changed:
            return list(self._lines)

    def tail(self, count: int = 30) -> str:
        """The last `count` lines as one text."""
        return "\n".join(self.lines()[-count:])

    def wait_for(self, wanted: Callable[[str], bool], *, timeout_s: float = 5.0) -> str:
        """The first line that is `wanted`, now or within `timeout_s` seconds.

        What a program printed just before its response may be read a moment after the response.

        Raises:
            TimeoutError: no such line came; the message has the last ones that did.
        """
        with self._changed:
            if self._changed.wait_for(lambda: any(map(wanted, self._lines)), timeout_s):
                return next(filter(wanted, self._lines))
        raise TimeoutError(f"no such line within {timeout_s} s; the last ones:\n{self.tail()}")

    def close(self) -> None:
        """Close the file. The lines stay readable."""
        with self._changed:
            if self._file is not None:
                self._file.close()
                self._file = None


class LocalProcess:
    """A program in a process group of its own, with its output drained and its descendants accounted for."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        name: str,
        working_directory: Path | None = None,
        log_path: Path | None = None,
    ) -> None:
        self.name = name
        self.log = OutputLog(log_path)
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env={**environment, MARK: self._mark},
            cwd=working_directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._drain, name=f"{name} output", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the program ended (negative: by that signal), or None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise `ProcessDied` if the program has ended."""
        if self.exit_code is not None:
            self._reader.join(timeout=1)
            raise ProcessDied(f"{self.name} ended with exit code {self.exit_code}:\n{self.log.tail()}")

    def wait_until_listening(self, port: int, *, timeout_s: float = 30.0) -> None:
        """Return as soon as the program accepts connections at `port`.

        Raises:
            ProcessDied: it ended instead.
            NotListening: it took more than `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
                return
            time.sleep(POLL_S)
        raise NotListening(f"{self.name} does not listen after {timeout_s:g} s:\n{self.log.tail()}")

    def members(self) -> list[int]:
        """The process ids of the program and of everything it started, directly or not, that still run."""
        return [pid for pid in _processes() if _is_member(pid, mark=self._mark, session=self.pid)]

    def stop(self, grace_s: float = 3.0) -> None:
        """Ask the program and all it started to end; after `grace_s` seconds end them. Safe to call twice."""
        self._signal(signal.SIGTERM)
        self._wait_for_the_end(grace_s)
        if self.exit_code is None or self.members():
            self._signal(signal.SIGKILL)
            self._wait_for_the_end(grace_s)
        self._reader.join(timeout=grace_s)
        self.log.close()

    def _wait_for_the_end(self, timeout_s: float) -> None:
        """Wait for the program, then for what it has started: to find that takes a look at every process there is."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        pause_s = POLL_S
        while (self.exit_code is None or self.members()) and time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:  # not reaped yet, so the group's number cannot belong to other processes
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
        for pid in self.members():
            if pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _drain(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as output:
                for line in output:
                    self.log.append(line.rstrip("\r\n"))


def _processes() -> Iterator[int]:
    """The living processes; none where there is no /proc."""
    yield from (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))


def _is_member(pid: int, *, mark: str, session: int) -> bool:
    """Whether a living process has `mark` in its environment or, if that is closed to us, is of this session."""
    folder = Path(f"/proc/{pid}")
    try:
        try:
            return f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except PermissionError:
            state, _, _, its_session = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            return state != b"Z" and int(its_session) == session
    except OSError:  # it has ended
        return False
