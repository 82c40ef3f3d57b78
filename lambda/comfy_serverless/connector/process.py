"""The ComfyUI process: start, readiness, liveness, log tail, clean stop.

    STOPPED ──start──► STARTING ──first answer──► READY ──stop──► STOPPED
                          └──────── exit ────────► DEAD ◄── exit ──┘

The process leads its own process group: everything it starts ends with it. Its output is read all the time
(`engine_output`), and goes to the log, too.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from comfy_serverless.connector.confinement import (
    EngineUser,
    confining_prefix,
    engine_environment,
    hide_process,
)
from comfy_serverless.connector.engine_output import EngineOutput
from comfy_serverless.connector.import_report import ImportReport, NotImported
from comfy_serverless.connector.ports import ReservedPort, accepts
from comfy_serverless.connector.refusals import advice_at_start, describe_exit
from comfy_serverless.errors import EngineUnavailable

logger = logging.getLogger(__name__)
#: ComfyUI's own output, line by line.
engine_logger = logging.getLogger("comfy_serverless.engine")

_POLL_S = 0.004
_TERMINATE_GRACE_S = 4.0
#: How many lines an error has of its log.
_TAIL_LINES = 40
_PORT_IS_TAKEN = re.compile(r"already in use|Errno (98|48)\b")
_PORT_RETRIES = 3


class ProcessState(Enum):
    """The life of a ComfyUI process."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"


class ComfyProcess:
    """One ComfyUI process at a time.

    Args:
        command: returns the arguments that start ComfyUI on a port.
        host: the address it will listen on.
        first_port: the port to try first.
        cwd: the folder to start it in; None for the current folder.
        environment: variables for it beside those of ours that it gets: see `engine_environment`.
        passed: further names of our variables that it gets.
        user: who it runs as; None for our own user.
        answers: called with the port once that is open; returns whether ComfyUI answers there.

    Raises:
        InvalidSetting: a name in `passed` cannot be used.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        host: str,
        first_port: int,
        answers: Callable[[int], bool],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        passed: Sequence[str] = (),
        user: EngineUser | None = None,
    ) -> None:
        self._command = command
        self._host = host
        self._first_port = first_port
        self._answers = answers
        self._cwd = cwd
        self._user = user
        self._environment = {
            **engine_environment(os.environ, passed),
            **(user.environment if user else {}),
            # Lines come when they are written: they are of the run that there is then.
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.output = EngineOutput()
        self._imports = ImportReport()
        self._ports_tried = 0
        self._is_stopped = False
        self._reserved: ReservedPort | None = None
        self.owner = os.getpid()
        self.state = ProcessState.STOPPED
        self.port = first_port
        self.starts = 0
        self.started_at = time.monotonic()
        atexit.register(_stop_at_exit, weakref.ref(self))

    @property
    def pid(self) -> int | None:
        """The process id; None without a process."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before the first start."""
        return self._process.poll() if self._process else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs (ready or not)."""
        alive = self._process is not None and self._process.poll() is None
        if not alive and self.state in (ProcessState.STARTING, ProcessState.READY):
            self.state = ProcessState.DEAD
        return alive

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote."""
        return self.output.tail(_TAIL_LINES)

    @property
    def not_imported(self) -> tuple[NotImported, ...]:
        """The packs that it could not import, as far as it has said so."""
        return self._imports.not_imported

    @property
    def cwd(self) -> Path:
        """The folder it is started in."""
        return self._cwd or Path.cwd()

    def start(self) -> None:
        """Start it on a free port, without waiting. Does nothing if it runs.

        Raises:
            EngineUnavailable: the command cannot be run.
        """
        if self.is_alive:
            return
        self._is_stopped = False
        self._ports_tried = 0
        self._launch()

    def _launch(self) -> None:
        self._end_group()
        self._reserved = ReservedPort(self._host, self._first_port + self._ports_tried)
        self.port = self._reserved.port
        if self._reserved.of_siblings:
            logger.warning(
                "another process of this program runs a ComfyUI too (port %s): each process starts its own. To share "
                "one, start it before the processes, and set COMFYUI_URL for them (docs/python.md)",
                ", ".join(map(str, self._reserved.of_siblings)),
            )
        self.output.restarted()
        self._imports = ImportReport()
        self.state = ProcessState.STARTING
        command = list(self._command(self.port))
        started: threading.Event = threading.Event()
        failure: list[Exception] = []
        reader = threading.Thread(
            target=self._spawn_and_read, args=(command, started, failure), name="comfy-log", daemon=True
        )
        reader.start()
        self._reader = reader
        started.wait()
        if failure:
            self.state = ProcessState.DEAD
            raise EngineUnavailable(
                f"ComfyUI cannot be started with {command}: {failure[0]}", details={"command": command}
            ) from failure[0]
        self.starts += 1
        self.started_at = time.monotonic()
        logger.info("ComfyUI process %s started on port %s", self.pid, self.port)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it answers, watching for its death. Tries the next port if this one was taken meanwhile.

        Returns:
            False if it lives but did not answer in time.

        Raises:
            EngineUnavailable: it exited; the error has its exit code and the end of its log.
        """
        give_up_at = time.monotonic() + timeout_s
        while self.state is not ProcessState.READY or not self.is_alive:
            if not self.is_alive:
                self._retry_on_next_port()
            elif accepts(self._host, self.port) and self._answers(self.port):
                self.state = ProcessState.READY
                break
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_POLL_S)
        return True

    def cpu_seconds(self) -> float:
        """Processor time that work has used so far, in seconds; 0 on systems without /proc.

        It covers the whole session: the command can be a wrapper (`uv run`, a shell) that waits while its child
        computes. It excludes the main thread if there are others: that answers HTTP, and our questions are not work.
        """
        session = str(self.pid).encode()
        ticks = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                total = _stat_fields(process)
                if total[3] != session:
                    continue
                ticks += sum(map(int, total[11:15]))
                if int(total[17]) > 1:
                    ticks -= sum(map(int, _stat_fields(process / "task" / process.name)[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_output(self) -> None:
        """Wait, after an exit, until everything it wrote has been read; a second at most."""
        if self._reader is not None:
            self._reader.join(1.0)

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL, to the whole group. Returns when none of it is left."""
        self._is_stopped = True
        process = self._process
        if process is None:
            self.state = ProcessState.STOPPED
            return
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERMINATE_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the whole group of a broken engine. Returns when none of it is left."""
        self._end_group()
        self.state = ProcessState.STOPPED

    def _end_group(self) -> None:
        """Kill the group: what the leader left behind must not outlive it."""
        if self._reserved is not None:
            self._reserved.release()
        process = self._process
        if process is None:
            return
        _signal_group(process.pid, signal.SIGKILL)
        try:
            process.wait(_TERMINATE_GRACE_S)
        except subprocess.TimeoutExpired:  # in the kernel, where no signal reaches it: a driver that hangs
            logger.error("ComfyUI process %s does not die; it is left behind", process.pid)  # noqa: TRY400
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(_TERMINATE_GRACE_S)
        self._process = None

    def _spawn_and_read(self, command: list[str], started: threading.Event, failure: list[Exception]) -> None:
        """Start the process in the thread that then reads its output to the end.

        The kernel ends the child with the *thread* that made it: that thread must live as long as the child, and
        a connector killed by SIGKILL leaves no ComfyUI behind.
        """
        try:
            hide_process()
            if self._user is not None:
                self._user.make_home()
            process = subprocess.Popen(
                [*confining_prefix(self._user), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self._environment,
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failure.append(error)
            started.set()
            return
        self._process = process
        started.set()
        stream = process.stdout
        assert stream is not None  # noqa: S101
        with stream:
            self.output.read(stream.fileno(), self._see_line)
        process.wait()

    def _see_line(self, text: str) -> None:
        self._imports.see(text)
        engine_logger.debug(text)

    def _retry_on_next_port(self) -> None:
        exit_code = self.exit_code
        self.wait_output()
        if _PORT_IS_TAKEN.search(self.log_tail) and self._ports_tried < _PORT_RETRIES and not self._is_stopped:
            logger.warning("port %s was taken while ComfyUI started; trying the next", self.port)
            self._ports_tried += 1
            self._launch()
            return
        last_lines = "\n".join(self.log_tail.splitlines()[-8:])
        raise EngineUnavailable(
            f"ComfyUI exited while it started ({describe_exit(exit_code)}). {advice_at_start(self.log_tail)}"
            + (f"The end of its log:\n{last_lines}" if last_lines else "It wrote nothing"),
            details={"exit_code": exit_code, "log_tail": self.log_tail},
        )


def _stat_fields(folder: Path) -> list[bytes]:
    """The fields of `/proc/…/stat` from the third on. The second is a name, which can hold anything."""
    return (folder / "stat").read_bytes().rpartition(b")")[2].split()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _stop_at_exit(reference: weakref.ref[ComfyProcess]) -> None:
    process = reference()
    # A fork of this process that ends must not take the engine with it.
    if process is not None and process.owner == os.getpid():
        process.stop()
