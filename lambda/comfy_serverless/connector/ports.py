"""Finds a port for an engine. Two programs that start one at the same moment must not get the same port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

from comfy_serverless.errors import EngineUnavailable

#: How many ports are looked at for them.
_MOST_SIBLINGS = 16


def find_available_port(host: str, first_port: int) -> int:
    """The first port at or above `first_port` that nothing listens on.

    Raises:
        EngineUnavailable: none is free, or the host is not this machine.
    """
    for port in range(first_port, 65536):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port in TIME_WAIT is free, a port with a listener is not.
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
    raise EngineUnavailable(f"no free port on {host} from {first_port} up")


def accepts(host: str, port: int) -> bool:
    """Whether a program listens on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


class ReservedPort:
    """A free port that no other connector of this machine takes until `release`.

    A port is free until the engine listens on it, which takes seconds. Another connector that found it free meanwhile
    would see its own engine die, and this one's answer in its place.
    """

    def __init__(self, host: str, first_port: int) -> None:
        port = find_available_port(host, first_port)
        while (lock := _lock(port)) is None:
            port = find_available_port(host, port + 1)
        self.port = port
        self._lock: IO[bytes] | None = lock
        #: The ports below that other processes of this program hold: each has an engine of its own there.
        self.of_siblings = tuple(filter(_is_of_sibling, range(first_port, min(port, first_port + _MOST_SIBLINGS))))

    def release(self) -> None:
        """Free the port for others. Idempotent."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None


def _lock_file(port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"comfy-serverless-{os.getuid()}-{port}.lock"


def _lock(port: int) -> IO[bytes] | None:
    """Lock a port, or return None. The lock ends with its process, however that ends; the file stays, with its id."""
    path = _lock_file(port)
    try:
        # Every user can write to this folder: a link that another user has put there is not followed.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP):
            raise EngineUnavailable(f"the lock {path} of port {port} cannot be made: {error}") from error
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate()
    file.write(str(os.getpid()).encode())
    return file


def _is_of_sibling(port: int) -> bool:
    """Whether another process of this program holds a port: one of the same group, as workers of a pool are."""
    try:
        holder = int(_lock_file(port).read_text(encoding="ascii"))
        return holder != os.getpid() and os.getpgid(holder) == os.getpgrp()
    except (OSError, ValueError):  # nobody has ever held it, or whoever did is gone
        return False
