"""Runs job after job with an S3 where each put takes 50 ms: does the engine ever wait for us?"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.floor import Floor
from benchmarks.slow_s3 import SlowS3, slow_s3
from comfy_serverless import ComfyConnector
from comfy_serverless.aws.s3 import s3_client
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call, Worker
from comfy_serverless.workflows.finding import Finder

JOBS = 12
#: Jobs in flight: while one executes, the last one is delivered and the next one waits in ComfyUI's queue.
IN_FLIGHT = 3
_ROUNDS = 3

Job = Callable[[], dict[str, Any]]


class ManyJobs(NamedTuple):
    """What twelve jobs in a row took, in ms, and how long the engine was idle between two of them."""

    total: float
    idle_gap: float


def many_jobs(connector: ComfyConnector, floor: Floor, job: Job) -> tuple[ManyJobs, ManyJobs, ManyJobs]:
    """Ours without thumbnails, ours with one for each picture, and the floor; the best of some rounds each.

    They take turns in random order: else who comes last in each round meets what the machine does every so often.
    """
    bare, full, theirs = list[ManyJobs](), list[ManyJobs](), list[ManyJobs]()

    def ours(rounds: list[ManyJobs], *, thumbnails: bool) -> None:
        total = _our_round(connector, job, in_flight=IN_FLIGHT, thumbnails=thumbnails)
        rounds.append(ManyJobs(total, idle_gap_ms(floor)))

    contenders: list[Callable[[], None]] = [
        lambda: theirs.append(_floor_round(floor, job)),
        lambda: ours(bare, thumbnails=False),
        lambda: ours(full, thumbnails=True),
    ]
    for _ in range(_ROUNDS):
        for contender in random.sample(contenders, len(contenders)):
            contender()
    return min(bare), min(full), min(theirs)


def idle_percent(connector: ComfyConnector, floor: Floor, job: Job) -> tuple[float, float]:
    """The share of time in which the engine is idle: with ours, and with a worker that takes one job at a time."""
    _our_round(connector, job, in_flight=IN_FLIGHT)
    ours = _idle_percent(floor)
    _one_after_the_other(floor, job)
    return ours, _idle_percent(floor)


def _one_after_the_other(floor: Floor, job: Job) -> None:
    """Do what most workers do: run a job, put its outputs and its result, take the next one."""
    with slow_s3() as server:
        for _ in range(JOBS):
            floor.run(job())
            (entry,) = floor.latest(1)
            paths = list(floor.output_paths(entry["outputs"]))
            for path in [*paths, paths[0]]:
                _put(server, path)
        assert server.puts == JOBS * 5


def _idle_percent(floor: Floor) -> float:
    """The idle share from the first job's start to the last one's end, by ComfyUI's own clock."""
    times = sorted(map(start_and_end, floor.latest(JOBS)))
    busy = sum(end - start for start, end in times)
    return 100 * (1 - busy / (times[-1][1] - times[0][0]))


def _our_round(connector: ComfyConnector, job: Job, *, in_flight: int, thumbnails: bool = False) -> float:
    settings = Settings(output_bucket="bench", thumbnails=thumbnails)
    with slow_s3() as server, _environment(server):
        s3 = s3_client()
        inputs = InputFetcher(settings=settings, s3=s3, connector=connector)
        worker = Worker(
            settings=settings, engine=connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
        )
        graphs = [job() for _ in range(JOBS)]
        started = time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            outcomes = list(pool.map(lambda graph: worker.run(_request(graph), Call()), graphs))
        total_ms = (time.perf_counter() - started) * 1000
        worker.close()
        assert not (errors := [outcome.error for outcome in outcomes if outcome.error is not None]), errors
        pictures = 4 * JOBS
        assert server.puts == JOBS * 5 + pictures * thumbnails, server.puts
    return total_ms


def _request(graph: Mapping[str, Any]) -> SentRequest:
    return SentRequest(payload={"workflow": dict(graph), "reply": "links"}, default_id=uuid.uuid4().hex)


def _floor_round(floor: Floor, job: Job) -> ManyJobs:
    graphs = [job() for _ in range(JOBS)]
    puts: list[Future[None]] = []
    with slow_s3() as server, ThreadPoolExecutor(4) as pool:
        started = time.perf_counter()
        unfinished = {floor.submit(graph) for graph in graphs}
        for message in floor.events():
            data = message["data"]
            if message["type"] == "executed":
                puts += [pool.submit(_put, server, path) for path in floor.output_paths({"0": data["output"]})]
            elif message["type"] == "executing" and data["node"] is None:
                unfinished.discard(data["prompt_id"])
                if not unfinished:
                    break
        for put in puts:
            put.result()
        total_ms = (time.perf_counter() - started) * 1000
        assert server.puts == JOBS * 4
    return ManyJobs(total_ms, idle_gap_ms(floor))


def _put(server: SlowS3, path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("PUT", f"/bench/{path.name}", path.read_bytes())
    connection.getresponse().read()
    connection.close()


def idle_gap_ms(floor: Floor) -> float:
    """Median time between one prompt's success and the next one's start, by ComfyUI's own clock."""
    entries = floor.latest(JOBS)
    times = [start_and_end(entry) for entry in entries]
    return statistics.median(after[0] - before[1] for before, after in itertools.pairwise(times))


def start_and_end(entry: Mapping[str, Any]) -> tuple[float, float]:
    stamps = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
    return float(stamps["execution_start"]), float(stamps["execution_success"])


@contextmanager
def _environment(server: SlowS3) -> Iterator[None]:
    wanted = {
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
