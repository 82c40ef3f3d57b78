"""The world of a soak: S3 behind a proxy, an engine that fails on demand, a worker; and what may be left of them."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import requests
from botocore.retries.standard import ExponentialBackoff

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws.s3 import s3_client
from comfy_serverless.connector.places import beside
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Worker
from comfy_serverless.workflows.finding import Finder
from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.integration.faulty_s3 import FaultyS3
from tests.patience import PATIENCE_S
from tests.soak.jobs import BROKEN_INPUT
from tests.soak.owners import Canaries

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STALL_S = 5.0
#: The embedded engine with nodes that show what they are told to, and save as packs do.
ENGINE = Path(__file__).parents[1] / "contract" / "lite_engine.py"
#: Pause between attempts at S3. It is short because the client does nothing in it.
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Level:
    """The resources that our process holds while nothing runs."""

    memory_mb: float
    threads: Counter[str]
    files: Counter[str]


@dataclass(slots=True)
class World:
    """Everything that jobs need, and S3 without the faults."""

    worker: Worker
    connector: ComfyConnector
    proxy: FaultyS3
    s3: S3Client
    direct: S3Client
    folder: Path
    canaries: Canaries

    def level(self) -> Level:
        """Measure, once everything in pools, or waiting for the garbage collector, has gone."""
        self.s3.close()
        gc.collect()
        eventually(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
        threads = Counter(re.sub(r"[\d_-]+$", "", thread.name) for thread in threading.enumerate())
        memory = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
        assert memory is not None
        return Level(int(memory[1]) / 1000, threads, _open_files())

    def leftovers(self, *, undelivered: Collection[str]) -> list[str]:
        """What is left: in the engine, and of unfinished uploads in S3."""
        eventually(lambda: not self._ask("/queue")["queue_running"])
        eventually(lambda: not self._kept())
        queue = self._ask("/queue")
        uploads = self.direct.list_multipart_uploads(Bucket=OUTPUT_BUCKET).get("Uploads", [])
        left = {
            "prompts in the engine's queue": [item[1] for item in queue["queue_running"] + queue["queue_pending"]],
            "prompts in the engine's history": list(self._ask("/history")),
            "changes in ComfyUI's folders": self.canaries.more(),
            "kept files of jobs": [name for name in self._kept() if name.partition("/")[0] not in undelivered],
            "uploads that never ended": [upload["Key"] for upload in uploads],
        }
        return [f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in left.items() if names]

    def _kept(self) -> list[str]:
        own = self.connector._engine.own_folders
        assert own is not None
        runs = own.kept("")
        return [str(path.relative_to(runs)) for path in runs.rglob("*") if path.is_file()]

    def _ask(self, path: str) -> Any:
        return requests.get(f"{self.connector.server_address}{path}", timeout=PATIENCE_S).json()


@contextmanager
def soak_world(folder: Path) -> Iterator[World]:
    """Build the world, and take it down again."""
    logging.getLogger("comfy_serverless").setLevel(logging.CRITICAL)
    with ExitStack() as running:
        local = running.enter_context(LocalAws())
        direct = local.client()
        for bucket in (INPUT_BUCKET, OUTPUT_BUCKET):
            local.bucket(bucket)
        proxy = running.enter_context(FaultyS3(local.endpoint_url))
        os.environ.update(local.environment, AWS_ENDPOINT_URL=proxy.endpoint_url)
        running.enter_context(patch.object(ExponentialBackoff, "delay_amount", lambda *_: _PAUSE_S))
        command = f"{sys.executable} {ENGINE} --base-directory {folder} --enable-faults --step-ms 5"
        settings = Settings(api_command_line=command, initial_port=22088, stall_s=STALL_S, output_bucket=OUTPUT_BUCKET)
        connector = ComfyConnector(settings=settings)
        running.callback(connector.kill_api)
        (folder / "input" / BROKEN_INPUT).write_bytes(b"\x89PNG\r\n\x1a\n and nothing of an image")
        s3 = s3_client()
        inputs = InputFetcher(settings=settings, s3=s3, connector=connector)
        worker = Worker(
            settings=settings, engine=connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
        )
        running.callback(worker.close)
        yield World(worker, connector, proxy, s3, direct, folder, Canaries(folder))


def orphans(folder: Path) -> list[str]:
    """The command lines of processes that still use the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"--base-directory {folder} " in command:
                found.append(f"{process.name}: {command}")
    return found


def still_kept(folder: Path) -> list[str]:
    """What is kept of jobs, though their worker has ended. Input files are for the next one, which will not come."""
    kept = beside(folder / "output")
    left = [str(path) for path in kept.glob("kept-*")]
    for name in ("input", "output", "temp"):
        shutil.rmtree(beside(folder / name))
    return left


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until the condition holds. Returns whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def _open_files() -> Counter[str]:
    kinds: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            kinds["socket" if link.is_socket() else "pipe" if link.is_fifo() else "file"] += 1
    return kinds
