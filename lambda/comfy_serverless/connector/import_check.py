"""Starts ComfyUI once, as a worker would, and keeps what it wrote and what it declares. Judges nothing.

Two ways, because a pack may import in one of them alone:

    read-only, as on Lambda        Lambda's user, who may write to /tmp and nowhere else; no way to the network
    writable, as on SageMaker      the user that the engine has there: see `confinement`

Both run the image's own command, with `--cpu`. Where we are not root, or not in the image, the user stays who we are:
then a container that is started with `--read-only` is what makes the first one true.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from comfy_serverless.connector.confinement import EngineUser, confining_prefix, engine_environment, engine_user
from comfy_serverless.connector.folders import names_below
from comfy_serverless.connector.launch import folders_of
from comfy_serverless.connector.ports import ReservedPort

READ_ONLY: Final = "read-only, as on Lambda"
WRITABLE: Final = "writable, as on SageMaker"

#: Whom Lambda runs an image as.
_LAMBDA_USER: Final = EngineUser("lambda", 993, 990, Path("/tmp"))  # noqa: S108  (it is the image's)
#: What everybody may write to on a usual Linux, and nobody on Lambda.
_NOT_ON_LAMBDA: Final = ("/var/tmp", "/dev/shm", "/run/lock")  # noqa: S108
#: A proxy that refuses: what asks for the network gets an error at once.
_NO_NETWORK: Final = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1"),
}
_HOST: Final = "127.0.0.1"
_TIMEOUT_S: Final = 900.0
_ANSWER_S: Final = 120.0
_STEP_S: Final = 0.2
_END_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Start:
    """What came of one start.

    Attributes:
        mode: READ_ONLY or WRITABLE.
        output: all that it wrote.
        code: how it ended before it answered; None if it answered, or did neither in time.
        object_info: what it declares of its nodes; None if it did not answer.
        version: ComfyUI's own.
        files: the names of the files in its folders, which stand in lists of the declarations.
    """

    mode: str
    output: str
    code: int | None = None
    object_info: Mapping[str, Any] | None = None
    version: str = ""
    files: frozenset[str] = frozenset()


def start(
    command: Sequence[str], mode: str, *, cwd: Path | None = None, timeout_s: float = _TIMEOUT_S, is_image: bool = True
) -> Start:
    """Start ComfyUI, wait until it answers, ask it, end it.

    Args:
        command: without `--port`.
        is_image: whether this is the image, where only the users that workers have must run it.

    Raises:
        EngineUnavailable: there is no port for it.
    """
    user = _user(mode) if is_image else None
    environment = {**engine_environment(os.environ), **(user.environment if user else {}), "PYTHONFAULTHANDLER": "1"}
    if mode == READ_ONLY:
        environment |= _NO_NETWORK
    if user is not None:
        user.make_home()
    port = ReservedPort(_HOST, _any_port())
    with tempfile.TemporaryFile() as output, _only_tmp(is_wanted=mode == READ_ONLY and user is not None):
        process = subprocess.Popen(
            [*confining_prefix(user), *command, "--port", str(port.port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
        )
        try:
            answered = _answer(process, f"http://{_HOST}:{port.port}", cwd or Path.cwd(), timeout_s)
        finally:
            port.release()
            _end(process)
        return replace(answered, mode=mode, output=_text(output))


def _any_port() -> int:
    """Where another build, in another container of the same network, hardly looks at the same moment."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _user(mode: str) -> EngineUser | None:
    user = engine_user()
    return _LAMBDA_USER if user is not None and mode == READ_ONLY else user


def _answer(process: subprocess.Popen[bytes], address: str, cwd: Path, timeout_s: float) -> Start:
    """Wait for its answers. Where there are none in time, it is told to say where it hangs."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if (code := process.poll()) is not None:
            return Start("", "", code=code)
        if (stats := _asked(f"{address}/system_stats")) is not None:
            object_info = _asked(f"{address}/object_info")
            folders = folders_of(stats, cwd)
            files = frozenset(name for folder in folders.values() if folder.is_dir() for name in names_below(folder))
            version = str((stats.get("system") or {}).get("comfyui_version", ""))
            return Start("", "", object_info=object_info, version=version, files=files)
        time.sleep(_STEP_S)
    process.send_signal(signal.SIGABRT)  # faulthandler writes what each thread does
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    return Start("", "")


def _asked(url: str) -> dict[str, Any] | None:
    """What it answers; None while it does not listen."""
    # Ours is another way than its: it may have a proxy that refuses, we have none.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return dict(json.loads(answer.read()))
    except (OSError, ValueError):
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _text(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode("utf-8", errors="replace")


@contextmanager
def _only_tmp(*, is_wanted: bool) -> Iterator[None]:
    """Take from everybody, but from root, the right to write to what cannot be written on Lambda."""
    modes = {path: path.stat().st_mode for path in map(Path, _NOT_ON_LAMBDA) if is_wanted and path.is_dir()}
    changed = []
    try:
        for path, mode in modes.items():
            try:
                path.chmod(mode & 0o755)
            except OSError:  # a file system that knows no rights, or cannot be written itself
                continue
            changed.append(path)
        yield
    finally:
        for path in changed:
            path.chmod(modes[path])
