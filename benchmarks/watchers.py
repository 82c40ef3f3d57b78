"""What somebody who watches the list of jobs costs the local stack, as a share of one core: for `benchmarks.console`.

Two hundred live jobs of an owner stand in the table: none of them runs, thirty do, or all. Two that run report how far
they are each second, as two workers do. The processor time of all the stack's processes is counted over some seconds
without a watcher, and with one that follows `GET /api/v2/events` as the console does, in turns. The difference over the
time that passed is what the watcher costs; the watcher itself is a process of its own, and not counted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.jobs.document import Progress
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from local.aws.template import TABLE
from local.dev import DevStack

#: Live jobs, and how many of them run.
JOBS, RUNNING = 200, (0, 30, 200)
#: As many as workers of this machine report.
REPORTING = 2
AT_MOST_PERCENT = 2.0
#: So long after its start the stack still loads what it may need.
SETTLES_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_WATCHER = """
    import sys, urllib.request
    request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as stream:
        for line in stream:
            if line.startswith(b"event: job"):
                print("job", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a watcher of a list costs.

    Attributes:
        without, with_watcher: processor time of the stack, in percent of one core.
        entries: entries of jobs that the watcher was sent, in all rounds.
    """

    running: int
    without: float
    with_watcher: float
    entries: int

    @property
    def percent(self) -> float:
        """The difference."""
        return self.with_watcher - self.without


def cost(stack: DevStack, running: int, seconds: float, rounds: int) -> Cost:
    """What a watcher of these jobs costs: the medians of all turns."""
    watched = owner_with_jobs(stack, f"watched-{running}", jobs=JOBS, running=running)
    without, with_watcher, entries = list[float](), list[float](), 0
    with watched.reporting():
        for _ in range(rounds):
            without.append(percent(lambda: time.sleep(seconds), set()))
            with _watcher(f"{stack.url}/api/v2/events", watched.key) as (process, seen):
                time.sleep(min(3.0, seconds))  # the first look sends all: that is not what watching costs
                before = len(seen)
                with_watcher.append(percent(lambda: time.sleep(seconds), {process.pid}))
                assert process.poll() is None, "the watcher's stream has ended"
                assert before >= 100, f"the watcher has seen {before} jobs"
                entries += len(seen) - before
    return Cost(running, statistics.median(without), statistics.median(with_watcher), entries)


@dataclass(frozen=True, slots=True)
class Watched:
    """An owner with live jobs.

    Attributes:
        key: opens them.
        ids: of those that run.
    """

    key: str
    jobs: JobStore
    ids: tuple[str, ...]

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report on two of them each second, with a watcher and without."""
        is_over = threading.Event()

        def report() -> None:
            step = 0
            while self.ids and not is_over.wait(1.0):
                step += 1
                for job_id in self.ids[:REPORTING]:
                    self.jobs.report(job_id, run="bench", progress=_progress(step))

        reporter = threading.Thread(target=report, name="reporter")
        reporter.start()
        try:
            yield
        finally:
            is_over.set()
            reporter.join()


def owner_with_jobs(stack: DevStack, owner: str, *, jobs: int, running: int) -> Watched:
    """Somebody with so many live jobs, the newest of which run."""
    key = stack.keys.create(owner, owner=owner).text
    store = JobStore(Table(stack.aws.dynamodb(), TABLE), lease_s=3600, max_runs=1)
    begin = datetime.now(UTC)
    ids = [f"{owner}-{number}" for number in range(jobs)]
    for number, job_id in enumerate(ids):
        state = store.submit(
            NewJob(
                job_id=job_id,
                owner=owner,
                request_uri=f"s3://none/requests/{job_id}.json",
                result_uri=f"s3://none/{job_id}/result.json",
                created_at=begin - timedelta(milliseconds=number),
                labels={"campaign": "bench"},
            )
        )
        store.renew(state, for_s=3600)  # else the caretaker sends them to the queue, and workers find no request
    for job_id in ids[:running]:
        store.begin(job_id, run="bench")
        store.report(job_id, run="bench", progress=_progress(0))
    return Watched(key, store, tuple(ids[:running]))


def _progress(step: int) -> Progress:
    return Progress(value=step % 100 / 100, nodes_done=2, nodes_total=5, message=f"KSampler: step {step % 100} of 100")


@contextmanager
def _watcher(url: str, key: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Somebody who follows the list, and the entries that came so far."""
    command = [sys.executable, "-c", textwrap.dedent(_WATCHER), url, key]
    seen: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = process.stdout
        assert lines is not None
        reader = threading.Thread(target=lambda: seen.extend(lines), name="entries")
        reader.start()
        deadline = time.monotonic() + 30
        while len(seen) < 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            yield process, seen
        finally:
            process.kill()
            reader.join()


def percent(act: Callable[[], None], others: set[int]) -> float:
    """The processor time of the stack meanwhile, in percent of one core; `others`, and what they start, are no part."""
    begun, before = time.monotonic(), _processor_s(others)
    act()
    return 100 * (_processor_s(others) - before) / (time.monotonic() - begun)


def processes(others: Collection[int] = ()) -> set[int]:
    """This process and all below it, less some and what is below those."""
    return set(_ticks_of(others))


def _processor_s(others: Collection[int]) -> float:
    """The processor time of this process and of all below it, in seconds."""
    return sum(_ticks_of(others).values()) / _TICKS


def _ticks_of(others: Collection[int]) -> dict[int, int]:
    parents, ticks = dict[int, int](), dict[int, int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in {*ours, *others}}:
        ours |= more
    return {pid: ticks[pid] for pid in ours}
