"""An engine that suffers faults, and the proof that nothing is left of them afterwards."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.connector.run import Execution
from comfy_serverless.errors import ComfyError
from tests import patience
from tests.contract.asking import is_queued, queue
from tests.contract.engines import START_PATIENCE_S
from tests.contract.faults.rows import Row
from tests.contract.packs_of_engine import fill_custom_nodes
from tests.patience import PATIENCE_S, QuietClock

REAL = bool(os.environ.get("COMFYUI_DIR"))
lite_only = pytest.mark.skipif(REAL, reason="only the embedded engine fails on demand")
real_only = pytest.mark.skipif(not REAL, reason="needs the nodes of a real ComfyUI")

#: A real ComfyUI on a busy machine is sometimes silent for longer.
STALL_S = 5.0 if REAL else 2.0
#: Our own ports: the locks that keep connectors apart are in the folder for temporary files, and each row has its own.
FIRST_PORT = 21000 + os.getpid() % 10000


class World:
    """A folder, a place for temporary files, and at most one connector.

    Args:
        folder: for everything the engine writes.
        row: the row to prove.
        report: called with the time that the outcome took, in seconds.
    """

    def __init__(self, folder: Path, row: Row, report: Callable[[float], None]) -> None:
        self.folder = folder
        self.row = row
        self._report = report
        self._connector: ComfyConnector | None = None
        #: What rows are held to stands while the machine is starved.
        self.clock = QuietClock()
        self._threads_before = set(threading.enumerate())
        self._descriptors_before = open_descriptors()

    @property
    def connector(self) -> ComfyConnector:
        """The connector that `connect` has made."""
        assert self._connector is not None
        return self._connector

    @property
    def process(self) -> ComfyProcess:
        """The engine's process."""
        process = self.connector._engine.process
        assert process is not None
        return process

    def command(self, *arguments: str) -> str:
        """The command that starts the embedded engine here."""
        options = ["--base-directory", str(self.folder), "--enable-faults", "--step-ms", "20", *arguments]
        return " ".join([sys.executable, "-m", "comfy_lite", *options])

    def settings(self, *arguments: str, **changes: Any) -> Settings:
        """Settings for an engine in this folder: the embedded one, or a real ComfyUI."""
        given: dict[str, Any] = {"initial_port": FIRST_PORT, "stall_s": STALL_S}
        if REAL:
            options = f"--cpu --base-directory {self.folder}"
            comfyui = Path(os.environ["COMFYUI_DIR"])
            if not (self.folder / "models").exists():
                (self.folder / "models").symlink_to(comfyui / "models")
                fill_custom_nodes(self.folder, comfyui)
            return replace(Settings.from_environment(), **{**given, "comfyui_args": options, **changes})
        return Settings(**{**given, "api_command_line": self.command(*arguments), **changes})

    def connect(self, *arguments: str, wait: bool = True, **changes: Any) -> ComfyConnector:
        """Start an engine with its own connector."""
        self._connector = ComfyConnector(settings=self.settings(*arguments, **changes), wait=wait)
        return self._connector

    def arm(self, fault: str, **details: Any) -> None:
        """Arm a fault in the embedded engine."""
        url = f"{self.connector.server_address}/lite/faults"
        requests.post(url, json={"fault": fault, **details}, timeout=PATIENCE_S).raise_for_status()

    def is_silent(self, *, for_s: float = 0.5) -> bool:
        """Whether the engine leaves a question without an answer for so long."""
        with contextlib.suppress(requests.Timeout):
            requests.get(f"{self.connector.server_address}/prompt", timeout=for_s)
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the engine's whole group."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, number)

    def ends(self, graph: dict[str, Any], **options: Any) -> Execution | ComfyError:
        """Run a workflow under the fault. Returns its one outcome, checked against the row."""
        started = self.clock()
        try:
            outcome: Execution | ComfyError = self.connector.run(graph, **options)
        except ComfyError as error:
            outcome = error
        self.check(outcome, self.clock() - started)
        return outcome

    def succeeds(self, graph: dict[str, Any], **options: Any) -> Execution:
        """The same, for a row whose outcome is a success."""
        outcome = self.ends(graph, **options)
        assert isinstance(outcome, Execution)
        return outcome

    def fails(self, graph: dict[str, Any], **options: Any) -> ComfyError:
        """The same, for a row whose outcome is a failure."""
        outcome = self.ends(graph, **options)
        assert isinstance(outcome, ComfyError)
        return outcome

    def check(self, outcome: object, elapsed_s: float) -> None:
        """Check an outcome against the row."""
        self._report(elapsed_s)
        code = getattr(outcome, "code", None)
        assert code == self.row.code, f"{self.row.fault}: {outcome!r}"
        assert elapsed_s < self.row.within_s, f"{self.row.fault}: took {elapsed_s:.2f} s"

    def wait_running(self, prompt_id: str) -> None:
        """Wait until the engine executes a prompt."""
        is_running = partial(is_queued, self.connector, prompt_id, "queue_running")
        assert wait_until(is_running), "the prompt did not begin"

    def prove_nothing_is_left(self) -> None:
        """Prove that the next job works, then that no prompt, process, thread, socket, descriptor or file is left."""
        if self._connector is not None and ComfyConnector._instance is self._connector:
            self._prove_next_job_works(self._connector)
            self._connector.kill_api()
        self._connector = None
        assert wait_until(lambda: not self.processes()), f"processes are left: {self.processes()}"
        assert wait_until(lambda: not self._new_threads()), f"threads are left: {self._new_threads()}"
        gc.collect()
        assert wait_until(lambda: not self._new_descriptors()), f"open: {self._new_descriptors()}"
        # Files that exist once per machine stay: the locks of ports, which are empty, the models' folder, and torch's.
        kept = ("comfy-serverless-models-", "torchinductor_")
        files = Path(tempfile.gettempdir()).iterdir()
        left = [path for path in files if path.suffix != ".lock" and not path.name.startswith(kept)]
        assert left == [], f"temporary files are left: {left}"

    def close(self) -> None:
        """Remove what a failed row has left."""
        if self._connector is not None:
            self._connector.kill_api()
        self.clock.close()

    def processes(self) -> list[int]:
        """The living processes that were started for an engine in this folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (folder / "cmdline").read_bytes() and folder.name != str(os.getpid()):
                    found.append(int(folder.name))
        return found

    def _prove_next_job_works(self, connector: ComfyConnector) -> None:
        if not REAL:
            with contextlib.suppress(requests.RequestException):
                requests.delete(f"{connector.server_address}/lite/faults", timeout=PATIENCE_S)
        following = connector.run(picture(), deadline_s=START_PATIENCE_S)
        assert (following.attempts, len(following.outputs)) == (1, 1), "the next job works"
        assert connector._runs == {}
        assert wait_until(lambda: not any(queue(connector).values())), f"prompts are left: {queue(connector)}"
        pid = self.process.pid
        sessions = {process: os.getsid(process) for process in self.processes()}
        assert set(sessions.values()) <= {pid}, f"an engine of before still lives: {sessions}, now {pid}"

    def _new_threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self._threads_before

    def _new_descriptors(self) -> set[tuple[str, str]]:
        # The lock on this process's own names of models ends with the process, and so do those on our own folders.
        held = re.compile(r".*/(seen/[^/]*|comfy-serverless-(models-)?\d+)( \(deleted\))?")
        return {new for new in open_descriptors() - self._descriptors_before if not held.fullmatch(new[1])}


def wait_until(condition: Callable[[], object]) -> bool:
    """Whether something becomes so, also if an engine has to start first."""
    return patience.wait_until(condition, within_s=START_PATIENCE_S)


def in_background(work: Callable[[], Any]) -> Future[Any]:
    """The future of some work in its own thread, which ends with the work."""
    with_one = ThreadPoolExecutor(1)
    future = with_one.submit(work)
    with_one.shutdown(wait=False)
    return future


def open_descriptors() -> set[tuple[str, str]]:
    """Every open file descriptor of this process, and its target."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add((link.name, str(link.readlink())))
    return {(number, target) for number, target in found if "/proc/" not in target}


def picture(*, batch: int = 1, size: int = 8) -> dict[str, Any]:
    """A workflow of two nodes that makes small pictures, never from the cache."""
    inputs = {"width": size, "height": size, "batch_size": batch, "color": uuid.uuid4().int % 0xFFFFFF}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "fault"}},
    }


def long_run(*, seconds: float = 200.0) -> dict[str, Any]:
    """A workflow that takes this long, in steps between which it can be interrupted."""
    if REAL:
        inputs = {"seconds": seconds, "steps": max(1, round(seconds * 50)), "mode": "progress"}
        preview = {"class_type": "PreviewImage", "inputs": {"images": ["13", 0]}}
        return {"13": {"class_type": "ContractSleep", "inputs": inputs}, "15": preview}
    sampler = {
        "model": ["10", 0],
        "positive": ["11", 0],
        "negative": ["11", 0],
        "latent_image": ["12", 0],
        "seed": uuid.uuid4().int % 2**32,
        "steps": round(seconds * 50),
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    return {
        "10": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "11": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["10", 1]}},
        "12": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "13": {"class_type": "KSampler", "inputs": sampler},
        "14": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 2]}},
        "15": {"class_type": "PreviewImage", "inputs": {"images": ["14", 0]}},
    }


def new_id() -> str:
    return str(uuid.uuid4())
