"""`make bench-ping`: is `/ping` answered, and do others' jobs go on, while somebody sends files that are made to harm?

    python -m benchmarks.ping_flood [--seconds 30] [--slack 1] [--json FILE]

The container's own program runs (`serve`), with the table, and the embedded engine. One owner sends hostile files
(`hostile_files`) without end, in as many jobs at once as an instance takes, less one; a second owner sends small jobs,
each with a picture of its own, one after the other. Both are pinged by a process of its own, on a new connection each.

The floor is the same, without the hostile owner, beside as many processes as there are hostile jobs, which do nothing
but count: on a machine of few processors that alone holds up whoever wants one. "Quiet" is without those, too.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.hostile_files import GRAPHS, MODELS, PICTURES
from benchmarks.pinger import UNANSWERED, ping
from benchmarks.workflows import small_job
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import MAX_IN_MESSAGE_BYTES, StoredRequest
from comfy_serverless.table.job_state import NewJob
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LOOPBACK, LocalProcess, clean_environment, free_port
from local.aws.server import LocalAws
from local.aws.stack import LocalStack

START = [sys.executable, "-m", "comfy_serverless.handlers.start", "serve"]
#: Invocations at once: as SageMaker is told, and as the container is.
IN_FLIGHT = 3
HOSTILE, OTHER = "hostile", "other"
#: Stands for a job's id, which is as long.
NO_ID = f"bench-{'0' * 32}"
#: How a hostile job ends: the codes of errors.
REFUSALS = frozenset({"missing_asset", "invalid_workflow", "invalid_request"})
#: SageMaker takes an instance out of service whose pings take longer, in seconds.
PING_S = 2.0
#: How much longer than beside processes that only count 99 of 100 pings may take, in ms.
AT_MOST_MS = 250.0
#: What a refusal may take: seconds of processor time (on a quiet machine, about those until its answer); MB of a child.
REFUSAL_S, REFUSAL_MB = 5.0, 512.0
#: How much longer the slowest of ten small jobs may take: a check of somebody else's file may be before its own.
SMALL_JOB_S = 5.0
_READY_S = 120.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
#: What `/proc` says of who is gone before it is opened, and before it is read.
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was answered.

    Attributes:
        code: of its error; "succeeded" if it has none.
        told: its error's message.
        seconds: from its request to its answer.
    """

    code: str
    told: str
    seconds: float


@dataclass(slots=True)
class Phase:
    """What was seen for a while: the times of pings in ms, and the jobs of both owners."""

    pings_ms: list[float] = field(default_factory=list)
    small: list[Job] = field(default_factory=list)
    hostile: list[Job] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What it took to answer a hostile job that came alone.

    Attributes:
        seconds: until its answer.
        processor_s: of the worker and its children, ComfyUI among them.
        code: of its error; its status, if it has none.
    """

    name: str
    size_bytes: int
    seconds: float
    processor_s: float
    peak_mb: float
    code: str
    told: str

    @property
    def is_refused(self) -> bool:
        """Whether it was refused before it got to ComfyUI."""
        return self.code in REFUSALS


@dataclass(frozen=True, slots=True)
class Promise:
    """One figure, and the most that it may be."""

    name: str
    value: float
    limit: float
    unit: str

    def is_kept(self, slack: float) -> bool:
        """Whether it holds, if it may be missed by this factor."""
        return self.value <= self.limit * slack


class Endpoint:
    """The container's program, beside a table that has its jobs."""

    def __init__(self, process: LocalProcess, port: int, stack: LocalStack) -> None:
        from comfy_serverless.handlers.wiring_api import services

        self.port = port
        self._process = process
        self._jobs, self._s3 = services().jobs, stack.aws.client()
        self._output, self._assets = (stack.outputs[f"{name}BucketName"] for name in ("Output", "Assets"))

    def wait_healthy(self) -> None:
        """Return once its pings say so."""
        end = time.monotonic() + _READY_S
        while ping(self.port) == UNANSWERED:
            if time.monotonic() > end:
                raise RuntimeError(f"the container is not healthy:\n{self._process.log.tail()}")
            time.sleep(0.05)

    def stored(self, request: dict[str, Any], *, owner: str) -> bytes:
        """A request of an owner as the API stores it, with `NO_ID` for the job's id."""
        output = {"bucket": self._output, "prefix": f"owners/{owner}"}
        wanted = JobRequest.parse({**request, "job_id": NO_ID, "output": output})
        return StoredRequest(wanted, {}).to_bytes()

    def run(self, stored: bytes, *, owner: str) -> Job:
        """Run a job of an owner, as SageMaker does: the API has written it into the table, and a large one into S3."""
        job_id = f"bench-{uuid.uuid4().hex}"
        address = S3Address(self._assets, f"requests/{owner}/{job_id}.json")
        result = S3Address(self._output, f"owners/{owner}/{job_id}/result.json")
        self._jobs.submit(NewJob(job_id=job_id, owner=owner, request_uri=str(address), result_uri=str(result)))
        document = stored.replace(NO_ID.encode(), job_id.encode())
        content = json.loads(document) if len(document) < MAX_IN_MESSAGE_BYTES else None
        if content is None:
            self._s3.put_object(Bucket=address.bucket, Key=address.key, Body=document)
        message = JobMessage(job_id=job_id, address=address, owner=owner, content=content, result=result).to_text()
        begun = time.perf_counter()
        answer = self._post(message.encode())
        error = answer.get("error") or {}
        status = answer.get("job", answer).get("status")
        return Job(error.get("code") or status, str(error.get("message", "")), time.perf_counter() - begun)

    def _post(self, body: bytes) -> dict[str, Any]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=600)
        try:
            connection.request("POST", "/invocations", body)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def used_s(self) -> float:
        """The processor time of the worker and its children until now."""
        (worker,) = _children(self._process.pid)
        return sum(map(_used_s, (worker, *_children(worker))))

    def decoders(self) -> list[int]:
        """The processes of the worker that decode files."""
        (worker,) = _children(self._process.pid)
        return [pid for pid in _children(worker) if b"sandbox.child" in _command(pid)]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(*_GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):  # a thread that has ended meanwhile: the others have theirs
                found += map(int, (task / "children").read_text().split())
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except _GONE:
        return b""


def _used_s(pid: int) -> float:
    """The processor time of a process, and of its children that have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except _GONE:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICKS_A_SECOND


def _peak_mb(pid: int) -> float:
    """The most memory that a process has ever had; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except _GONE:
        return 0.0
    _, _, peak = status.partition("VmHWM:")
    return int(peak.split()[0]) / 1024 if peak else 0.0


class Watch:
    """Looks at what decodes, from a thread, between `with` and the end of the block.

    Attributes:
        peak_mb: the most memory that one of its processes has had.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.peak_mb = 0.0
        self._endpoint = endpoint
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_over.wait(0.02)
            self.peak_mb = max([self.peak_mb, *map(_peak_mb, self._endpoint.decoders())])


def main() -> int:
    """Measure, and print the tables. Returns 1 if a promise is broken."""
    options = _options()
    console = Console()
    with _endpoint() as (endpoint, aws):
        requests = _hostile_requests(endpoint, aws)
        for _ in range(3):
            _small(endpoint)
        refusals = [_alone(endpoint, name, *request) for name, request in requests.items()]
        phases = {
            "quiet": _phase(endpoint, options.seconds),
            "floor": _phase(endpoint, options.seconds, counting=IN_FLIGHT - 1),
        }
        with Watch(endpoint) as watch:
            phases["flood"] = _phase(endpoint, options.seconds, hostile=[each for each, _ in requests.values()])
    _show_refusals(console, refusals)
    _show_phases(console, phases)
    promises = list(_promises(refusals, phases, watch.peak_mb))
    _show_promises(console, promises, options.slack)
    if options.json:
        document = {
            "refusals": [asdict(each) for each in refusals],
            "phases": {name: asdict(phase) for name, phase in phases.items()},
            "promises": [asdict(each) for each in promises],
        }
        options.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return 0 if all(promise.is_kept(options.slack) for promise in promises) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ping_flood", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each phase lasts (default: 30)")
    parser.add_argument("--slack", type=float, default=1.0, help="how far a figure may miss its limit (default: 1)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


@contextmanager
def _endpoint() -> Iterator[tuple[Endpoint, LocalAws]]:
    with LocalAws() as aws:
        stack = LocalStack.create(aws)
        port = free_port()
        settings = {
            **stack.environment,
            "POWERTOOLS_LOG_LEVEL": "ERROR",
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "INITIAL_PORT": str(free_port()),
            "IN_FLIGHT": str(IN_FLIGHT),
        }
        with patch.dict(os.environ, settings):
            program = {**clean_environment(), **settings, "PYTHONPATH": str(SOURCE_ROOT)}
            with LocalProcess(START, program, name="serve") as process:
                endpoint = Endpoint(process, port, stack)
                endpoint.wait_healthy()
                yield endpoint, aws


def _hostile_requests(endpoint: Endpoint, aws: LocalAws) -> dict[str, tuple[bytes, int]]:
    """Put the files into S3. Returns for each of them a stored request that needs it, and its size."""
    s3, bucket = aws.client(), os.environ["ASSETS_BUCKET"]
    requests: dict[str, tuple[bytes, int]] = {}
    for name, graph in GRAPHS.items():
        stored = endpoint.stored({"workflow": graph()}, owner=HOSTILE)
        requests[name] = stored, len(stored)
    for number, (name, make) in enumerate((PICTURES | MODELS).items()):
        content = make()
        address = f"s3://{bucket}/blobs/{number}"
        s3.put_object(Bucket=bucket, Key=f"blobs/{number}", Body=content)
        request: dict[str, Any] = {"workflow": small_job()}
        if name in PICTURES:
            request["workflow"]["3"] = {"class_type": "LoadImage", "inputs": {"image": address}}
            request["workflow"]["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
        else:
            digest = hashlib.sha256(content).hexdigest()
            model = {"url": address, "folder": "loras", "name": f"{number}.safetensors", "sha256": digest}
            request["models"] = [model]
        requests[name] = endpoint.stored(request, owner=HOSTILE), len(content)
    return requests


#: A whole PNG of one pixel: the small jobs' own input, which has to be checked, too.
_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def _small(endpoint: Endpoint) -> Job:
    graph = small_job()
    graph["3"] = {"class_type": "LoadImage", "inputs": {"image": f"data:image/png;base64,{_PICTURE}"}}
    graph["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    return endpoint.run(endpoint.stored({"workflow": graph}, owner=OTHER), owner=OTHER)


def _alone(endpoint: Endpoint, name: str, request: bytes, size_bytes: int) -> Refusal:
    """Send a hostile file while nothing else runs, to a child that has decoded none before."""
    for pid in endpoint.decoders():
        os.kill(pid, 9)
    before = endpoint.used_s()
    with Watch(endpoint) as watch:
        job = endpoint.run(request, owner=HOSTILE)
    used_s = endpoint.used_s() - before
    return Refusal(name, size_bytes, job.seconds, used_s, watch.peak_mb, job.code, job.told)


def _phase(endpoint: Endpoint, seconds: float, *, hostile: Sequence[bytes] = (), counting: int = 0) -> Phase:
    """Ping, and run small jobs, for so long; beside hostile jobs, or processes that count."""
    phase = Phase()
    end = time.monotonic() + seconds
    endless = itertools.cycle(hostile)
    lock = threading.Lock()

    def next_hostile() -> bytes:
        with lock:
            return next(endless)

    def repeat(run: Callable[[], Job], jobs: list[Job]) -> None:
        while time.monotonic() < end:
            jobs.append(run())

    threads = [threading.Thread(target=repeat, args=(lambda: _small(endpoint), phase.small))]
    if hostile:
        one = lambda: endpoint.run(next_hostile(), owner=HOSTILE)  # noqa: E731
        threads += [threading.Thread(target=repeat, args=(one, phase.hostile)) for _ in range(IN_FLIGHT - 1)]
    busy = [_beside("busy", seconds) for _ in range(counting)]
    pinger = _beside(str(endpoint.port), seconds)
    for thread in threads:
        thread.start()
    phase.pings_ms = json.loads(pinger.communicate()[0])
    for process in busy:
        process.communicate()
    for thread in threads:
        thread.join()
    return phase


def _beside(what: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.pinger", what, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _promises(refusals: Sequence[Refusal], phases: dict[str, Phase], peak_mb: float) -> Iterator[Promise]:
    flood, floor = phases["flood"], phases["floor"]
    accepted = [each.name for each in refusals if not each.is_refused]
    yield Promise(
        f"hostile jobs that were not refused{': ' * bool(accepted)}{', '.join(accepted)}", len(accepted), 0, ""
    )
    slowest = max(each.processor_s for each in refusals)
    yield Promise("the most processor time of a refusal", slowest, REFUSAL_S, "s")
    yield Promise("the most memory of a refusal", max(peak_mb, *(each.peak_mb for each in refusals)), REFUSAL_MB, "MB")
    unanswered = flood.pings_ms.count(UNANSWERED)
    yield Promise("pings in the flood that were not answered with 200", unanswered, 0, "")
    beyond = percentile(flood.pings_ms, 0.99) - percentile(floor.pings_ms, 0.99)
    yield Promise("p99 of /ping, beyond the floor", beyond, AT_MOST_MS, "ms")
    yield Promise("the slowest /ping in the flood", max(flood.pings_ms) / 1000, PING_S, "s")
    failed = [job for job in (*flood.small, *floor.small) if job.code != "succeeded"]
    yield Promise("jobs of the other owner that failed", len(failed), 0, "")
    late = percentile([job.seconds for job in flood.small], 0.9) - percentile([job.seconds for job in floor.small], 0.9)
    yield Promise("nine of ten small jobs, beyond the floor", late, SMALL_JOB_S, "s")


def _show_refusals(console: Console, refusals: Sequence[Refusal]) -> None:
    table = Table("hostile, alone", "sent", "answered in", "processor", "memory", "because", box=None)
    for each in refusals:
        sent = f"{each.size_bytes / 1e6:.2f} MB"
        took = f"{each.seconds:.2f} s", f"{each.processor_s:.2f} s", f"{each.peak_mb:.0f} MB"
        table.add_row(each.name, sent, *took, each.told.split(": ")[-1])
    console.print(table)


def _show_phases(console: Console, phases: dict[str, Phase]) -> None:
    table = Table("", "pings", "p50", "p99", "max", "small jobs", "p50", "p90", "max", "hostile jobs", "p50", box=None)
    for name, phase in phases.items():
        small, hostile = ([job.seconds * 1000 for job in jobs] for jobs in (phase.small, phase.hostile))
        figures = [str(len(phase.pings_ms))]
        figures += [f"{percentile(phase.pings_ms, share):.1f} ms" for share in (0.5, 0.99, 1)]
        figures += [str(len(small)), *(f"{percentile(small, share):.0f} ms" for share in (0.5, 0.9, 1))]
        figures += [str(len(hostile)), f"{statistics.median(hostile):.0f} ms"] if hostile else []
        table.add_row(name, *figures)
    console.print(table)


def _show_promises(console: Console, promises: Sequence[Promise], slack: float) -> None:
    table = Table("promise", "", "at most", "", box=None)
    for each in promises:
        mark = "[green]kept[/]" if each.is_kept(slack) else "[red]missed[/]"
        table.add_row(each.name, f"{each.value:.4g} {each.unit}", f"{each.limit:g} {each.unit}", mark)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
