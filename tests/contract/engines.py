"""Engines for the contract tests: the embedded one, or a real ComfyUI if COMFYUI_DIR names its folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.contract.packs_of_engine import fill_custom_nodes
from tests.patience import PATIENCE_S

REAL_COMFYUI = os.environ.get("COMFYUI_DIR")
#: The releases whose conversations are recorded, newest first: the embedded engine speaks as each of them.
RELEASES = ("0.33.0", "0.3.64")
lite_only = pytest.mark.skipif(REAL_COMFYUI is not None, reason="a property of the embedded engine alone")
#: How long a real one may take to start on a machine that has much else to do, before a test gives up.
START_PATIENCE_S = 600
_STOP_TIMEOUT_S = 120.0
_HERE = Path(__file__).parent


def releases() -> tuple[str, ...]:
    """Those that the tests can be held against: all, or with COMFYUI_DIR the newest one that is no newer than it."""
    if REAL_COMFYUI is None:
        return RELEASES
    (version,) = re.findall(r'__version__ = "(.+)"', (Path(REAL_COMFYUI) / "comfyui_version.py").read_text())
    return tuple(release for release in RELEASES if _parts(release) <= _parts(version))[:1]


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class EngineProcess:
    """One running engine with its own folders. Ready once constructed; `close` it."""

    def __init__(self, base: Path, *arguments: str) -> None:
        self.base = base
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = base / "engine.log"
        self._session = requests.Session()
        self._session.trust_env = False
        base.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_command(base), "--port", str(self.port), "--base-directory", str(base), *arguments],
                cwd=REAL_COMFYUI or base,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_ready()

    def folder(self, name: str) -> Path:
        return self.base / name

    def reset(self) -> None:
        """Bring it back to its first state, as far as a client can see."""
        self._session.post(f"{self.url}/queue", json={"clear": True}, timeout=PATIENCE_S)
        self.interrupt_until_idle()
        self._session.post(f"{self.url}/free", json={"free_memory": True}, timeout=PATIENCE_S)
        self._session.post(f"{self.url}/history", json={"clear": True}, timeout=PATIENCE_S)
        for name in ("input", "output", "temp"):
            shutil.rmtree(self.folder(name), ignore_errors=True)
            self.folder(name).mkdir()
        time.sleep(0.1)  # the worker acts on /free without saying when

    def interrupt_until_idle(self) -> None:
        while self._session.get(f"{self.url}/prompt", timeout=PATIENCE_S).json()["exec_info"]["queue_remaining"]:
            self._session.post(f"{self.url}/interrupt", timeout=PATIENCE_S)
            time.sleep(0.05)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(_STOP_TIMEOUT_S)
        self._session.close()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self._session.get(f"{self.url}/prompt", timeout=PATIENCE_S).raise_for_status()
            except requests.RequestException:
                time.sleep(0.01)
            else:
                return
        self.process.kill()
        raise RuntimeError(f"the engine did not start:\n{self.log.read_text()}")


#: Starts an engine with its own flags: `start_engine("--max-upload-size", "1")`.
StartEngine = Callable[..., EngineProcess]


def _command(base: Path) -> list[str]:
    if REAL_COMFYUI is None:
        return [sys.executable, str(_HERE / "lite_engine.py")]
    (base / "models").symlink_to(Path(REAL_COMFYUI) / "models")
    fill_custom_nodes(base, Path(REAL_COMFYUI))
    return [os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", "--cpu"]
