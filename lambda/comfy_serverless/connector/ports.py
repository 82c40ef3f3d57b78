"""Which port an engine gets. Two programs that start one at the same moment must not end up with the same."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

from comfy_serverless.errors import EngineUnavailable


def find_available_port(host: str, first_port: int) -> int:
    """The first port from `first_port` on that nothing listens on.

    Raises:
        EngineUnavailable: none is free, or the host is not this machine.
    """
    for port in range(first_port, 65536):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port in TIME_WAIT is free, one that is listened on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise EngineUnavailable(
                        f"ComfyUI cannot listen on API_URL={host!r} ({error}): it must be a host name or address of "
                        "this machine, without http://. For a ComfyUI elsewhere set COMFYUI_URL"
                    ) from error
                continue
            return port
    raise EngineUnavailable(f"no port from {first_port} on is free on {host}")


def accepts(host: str, port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


class ReservedPort:
    """A free port that no other connector of this machine takes until `release`.

    A port is free until the engine listens on it, which takes seconds. A connector that found it free meanwhile would
    see its own engine die, and the other's answer in its place.
    """

    def __init__(self, host: str, first_port: int) -> None:
        port = find_available_port(host, first_port)
        while (lock := _lock(port)) is None:
            port = find_available_port(host, port + 1)
        self.port = port
        self._lock: IO[bytes] | None = lock

    def release(self) -> None:
        """Let others have it. Idempotent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _lock(port: int) -> IO[bytes] | None:
    """The lock ends with the process that holds it, however that ends; the empty file stays."""
    path = Path(tempfile.gettempdir()) / f"comfy-serverless-{os.getuid()}-{port}.lock"
    try:
        # The folder is everybody's: a link that somebody else has put there is not followed.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP):
            raise EngineUnavailable(f"the lock {path} of port {port} cannot be made: {error}") from error
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
