"""Runs one program in a container, and leaves none behind, whatever ends us (but SIGKILL, which nobody hears)."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.observability import log
from comfy_serverless.retry import attempts

#: How often whoever waits is told that it goes on, in seconds.
TOLD_EVERY_S: Final = 0.5
#: How long the client of the engine may take to go, and the engine to remove a container.
_GONE_WITHIN_S, _REMOVED_WITHIN_S = 5.0, 60.0
#: One that is being made when its client goes may be there a moment later.
_BETWEEN_S: Final = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Done:
    """What the program has written, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def run(arguments: Sequence[str], *, goes_on: Callable[[], object]) -> Done:
    """Run `docker run` with these options, the image and its arguments.

    Args:
        goes_on: called twice a second while it runs.

    Raises:
        EngineUnavailable: there is no container engine.
    """
    name = f"comfy-check-{uuid.uuid4().hex[:12]}"
    with _client(("docker", "run", "--rm", "--name", name, *arguments), name) as client:
        stdout, stderr = _Reader(client.stdout), _Reader(client.stderr)
        while True:
            try:
                returncode = client.wait(timeout=TOLD_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                goes_on()
        return Done(returncode, stdout.text(), stderr.text())


class _Reader:
    """Reads all that comes through a pipe, in a thread: a full one would stop its writer."""

    def __init__(self, pipe: IO[str] | None) -> None:
        self._parts: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(pipe,), name="container output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """All of it, after the program's end."""
        self._thread.join()
        return "".join(self._parts)

    def _read(self, pipe: IO[str] | None) -> None:
        if pipe is not None:
            with pipe:
                self._parts.extend(pipe)


@contextmanager
def _client(command: Sequence[str], name: str) -> Iterator[subprocess.Popen[str]]:
    """The client of the container engine; if it has not ended by itself, it and its container are gone behind this."""
    client = None
    is_begun = False
    try:
        try:
            is_begun = True
            client = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C of the terminal is for us: we end it
            )
        except OSError as error:
            is_begun = False
            raise EngineUnavailable(f"an image can only be checked with docker: {error}") from error
        yield client
    finally:
        # A signal may come while the client is being made: then it runs, and nobody knows it but by the name.
        if client is None and is_begun:
            _remove(name)
        elif client is not None and client.poll() is None:
            _end(client)
            _remove(name)


def _end(client: subprocess.Popen[str]) -> None:
    client.terminate()
    try:
        client.wait(timeout=_GONE_WITHIN_S)
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()


def _remove(name: str) -> None:
    said = ""
    for _ in attempts(_BETWEEN_S):
        try:
            done = subprocess.run(
                ("docker", "rm", "--force", name),
                capture_output=True,
                text=True,
                check=False,
                timeout=_REMOVED_WITHIN_S,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            continue
        said = done.stderr.strip()
        if name in done.stdout:
            return
    log.warning("the container was gone already, or could not be removed", container=name, reason=said)
