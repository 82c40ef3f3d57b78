"""What it costs that one engine serves strangers: at a change of owner, and for each job."""

from __future__ import annotations

import base64
import io
import itertools
import random
import statistics
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from benchmarks.floor import Floor
from benchmarks.throughput import start_and_end
from comfy_serverless import ComfyConnector
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call, Worker
from comfy_serverless.workflows.finding import Finder

#: One executes, two wait, and the others are prepared and delivered meanwhile.
IN_FLIGHT = 6
#: Two jobs of one owner, then two of another: every second gap has a change of owner in it.
OWNERS = ("alice", "alice", "bob", "bob")
#: Outputs stay on this machine: what their delivery costs is measured elsewhere.
_SETTINGS = Settings(output_bucket=None)
_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class _Request:
    """A job of an owner. A `RequestSource`."""

    owner_name: str
    default_id: str
    workflow: Mapping[str, Any]
    labels: ClassVar[Mapping[str, str]] = {}
    is_checked: ClassVar[bool] = True
    origin_bucket: ClassVar[None] = None
    extra_data: ClassVar[None] = None
    trace: ClassVar[None] = None

    def read(self, **_: object) -> JobRequest:
        return JobRequest.parse({"workflow": dict(self.workflow)})


def idle_gaps_ms(connector: ComfyConnector, floor: Floor, *, jobs: int) -> tuple[float, float]:
    """The engine's idle gap at a change of owner, and between two jobs of the same owner, by ComfyUI's own clock.

    Medians in ms, of the same row of jobs; the better of two rows. Each job has brought a picture, and the next two
    always wait.
    """
    return min(_row_of_jobs(connector, floor, jobs) for _ in range(2))


def _row_of_jobs(connector: ComfyConnector, floor: Floor, jobs: int) -> tuple[float, float]:
    requests = [
        _Request(owner, uuid.uuid4().hex, _scaling(_picture(), prefix=f"bench/{owner}"))
        for owner in itertools.islice(itertools.cycle(OWNERS), jobs)
    ]
    gaps: dict[bool, list[float]] = {True: [], False: []}
    with _inputs(connector) as inputs:
        s3: Any = None
        worker = Worker(
            settings=_SETTINGS, engine=connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
        )
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            outcomes = list(pool.map(lambda request: worker.run(request, Call()), requests))
        assert not (errors := [outcome.error for outcome in outcomes if outcome.error is not None]), errors
        for before, after in itertools.pairwise(floor.latest(jobs)):
            gaps[_owner(before) != _owner(after)].append(start_and_end(after)[0] - start_and_end(before)[1])
        for outcome in outcomes:
            outcome.release()
        worker.close()
    return statistics.median(gaps[True]), statistics.median(gaps[False])


def small_job_ms(connector: ComfyConnector, *, rounds: int) -> tuple[float, float]:
    """A small warm job with a picture, among strangers, and as the only user's. Medians in ms, taken in turns.

    Among strangers it is run as the worker runs it in its turn: its picture is linked in and taken away again, and
    what it makes is kept aside. The only user's picture is in ComfyUI's input folder.
    """
    apart: list[float] = []
    alone: list[float] = []
    picture, folder = _picture(), connector.input_directory
    assert folder is not None
    (folder / "bench_owner.png").write_bytes(base64.b64decode(picture.partition(",")[2]))
    with _inputs(connector) as inputs:

        def run_apart() -> None:
            job_id, deadline = f"bench-{uuid.uuid4().hex}", time.monotonic() + _LONGEST_S
            prepared = inputs.prepare(_saving(picture), {}, job_id=job_id, owner="", deadline=deadline)
            prompt_id = str(uuid.uuid4())
            started = time.perf_counter()
            with connector.hold_folders(lambda: None):
                prepared.show(deadline)
                execution = connector.run(prepared.graph, prompt_id=prompt_id, apart_as=job_id)
                prepared.release()
            assert sum(len(output.read()) for output in execution.outputs)
            apart.append((time.perf_counter() - started) * 1000)
            connector.discard(prompt_id, apart_as=job_id)

        def run_alone() -> None:
            prompt_id = str(uuid.uuid4())
            started = time.perf_counter()
            execution = connector.run(_saving("bench_owner.png"), prompt_id=prompt_id)
            assert sum(len(output.read()) for output in execution.outputs)
            alone.append((time.perf_counter() - started) * 1000)
            for output in execution.outputs:
                assert output.path is not None
                output.path.unlink()
            connector.discard(prompt_id)

        for _ in range(3):
            run_apart()
            run_alone()
        apart.clear()
        alone.clear()
        for _ in range(rounds):
            for contender in random.sample([run_apart, run_alone], 2):
                contender()
    return statistics.median(apart), statistics.median(alone)


@contextmanager
def _inputs(connector: ComfyConnector) -> Iterator[InputFetcher]:
    sandbox = Sandbox()
    try:
        yield InputFetcher(settings=_SETTINGS, s3=None, connector=connector, sandbox=sandbox)
    finally:
        sandbox.close()


def _picture() -> str:
    """A new picture, as a request brings it."""
    values = np.random.default_rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _saving(image: str) -> dict[str, Any]:
    """Nearly all of its time is overhead. Its new name makes it run again."""
    prefix = f"bench/{uuid.uuid4().hex[:12]}"
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def _scaling(image: str, *, prefix: str) -> dict[str, Any]:
    """It executes for longer than the worker needs to prepare the next one."""
    scaling = {"image": ["1", 0], "upscale_method": "bilinear", "width": 512, "height": 512, "crop": "disabled"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "3": {"class_type": "ImageScale", "inputs": scaling},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


def _owner(entry: Mapping[str, Any]) -> str:
    """Whose job an entry of ComfyUI's history is, by the name that it saves under."""
    return str(entry["prompt"][2]["2"]["inputs"]["filename_prefix"]).rpartition("/")[2]
