"""`make bench-console`: what somebody who watches the list of jobs costs the local stack, as a share of one core.

    python -m benchmarks.watchers [--seconds 20] [--rounds 2] [--slack 1] [--json FILE]

Two hundred live jobs of an owner stand in the table: none of them runs, thirty do, or all. Two that run report how far
they are each second, as two workers do. The processor time of all the stack's processes is counted over some seconds
without a watcher, and with one that follows `GET /api/v2/events` as the console does, in turns. The difference over the
time that passed is what the watcher costs; the watcher itself is a process of its own, and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

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


def main() -> int:
    """Measure, and print the table. Returns 1 if the promise is broken."""
    options = _options()
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="comfy-bench-console-") as folder,
        DevStack(log_folder=Path(folder)) as stack,
    ):
        time.sleep(SETTLES_S)
        costs = [_cost(stack, running, options.seconds, options.rounds) for running in RUNNING]
    table = Shown("of 200 live jobs run", "without", "with a watcher", "costs", "at most", "", "entries sent", box=None)
    for cost in costs:
        mark = "[green]kept[/]" if cost.percent <= AT_MOST_PERCENT else "[red]missed[/]"
        told = (
            f"{cost.without:.2f} %",
            f"{cost.with_watcher:.2f} %",
            f"{cost.percent:.2f} %",
            f"{AT_MOST_PERCENT:g} %",
        )
        table.add_row(str(cost.running), *told, mark, str(cost.entries))
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([{**asdict(cost), "percent": cost.percent} for cost in costs], indent=2))
    return 0 if all(cost.percent <= AT_MOST_PERCENT * options.slack for cost in costs) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.watchers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="how long each turn takes (default 20)")
    parser.add_argument("--rounds", type=int, default=2, help="turns without a watcher and with one (default 2)")
    parser.add_argument(
        "--slack", type=float, default=1.0, help="how far the limit may be missed (default 1: not at all)"
    )
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


def _cost(stack: DevStack, running: int, seconds: float, rounds: int) -> Cost:
    """What a watcher of these jobs costs: the medians of all turns."""
    owner = f"watched-{running}"
    key = stack.keys.create(owner, owner=owner).text
    jobs = JobStore(Table(stack.aws.dynamodb(), TABLE), lease_s=3600, max_runs=1)
    ids = _make_jobs(jobs, owner, running)
    without, watched, entries = list[float](), list[float](), 0
    with _reporting(jobs, ids[:running][:REPORTING]):
        for _ in range(rounds):
            without.append(_percent(lambda: time.sleep(seconds), set()))
            with _watcher(f"{stack.url}/api/v2/events", key) as (process, seen):
                time.sleep(min(3.0, seconds))  # the first look sends all: that is not what watching costs
                before = len(seen)
                watched.append(_percent(lambda: time.sleep(seconds), {process.pid}))
                assert process.poll() is None, "the watcher's stream has ended"
                assert before >= 100, f"the watcher has seen {before} jobs"
                entries += len(seen) - before
    return Cost(running, statistics.median(without), statistics.median(watched), entries)


def _make_jobs(jobs: JobStore, owner: str, running: int) -> list[str]:
    """Two hundred jobs, the newest of which run."""
    begin = datetime.now(UTC)
    ids = [f"{owner}-{number}" for number in range(JOBS)]
    for number, job_id in enumerate(ids):
        state = jobs.submit(
            NewJob(
                job_id=job_id,
                owner=owner,
                request_uri=f"s3://none/requests/{job_id}.json",
                result_uri=f"s3://none/{job_id}/result.json",
                created_at=begin - timedelta(milliseconds=number),
                labels={"campaign": "bench"},
            )
        )
        jobs.renew(state, for_s=3600)  # else the caretaker sends them to the queue, and workers find no request
    for job_id in ids[:running]:
        jobs.begin(job_id, run="bench")
        jobs.report(job_id, run="bench", progress=_progress(0))
    return ids


def _progress(step: int) -> Progress:
    return Progress(value=step % 100 / 100, nodes_done=2, nodes_total=5, message=f"KSampler: step {step % 100} of 100")


@contextmanager
def _reporting(jobs: JobStore, ids: list[str]) -> Iterator[None]:
    """Report on these jobs each second, with a watcher and without."""
    is_over = threading.Event()

    def report() -> None:
        step = 0
        while ids and not is_over.wait(1.0):
            step += 1
            for job_id in ids:
                jobs.report(job_id, run="bench", progress=_progress(step))

    reporter = threading.Thread(target=report, name="reporter")
    reporter.start()
    try:
        yield
    finally:
        is_over.set()
        reporter.join()


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


def _percent(act: Callable[[], None], others: set[int]) -> float:
    """The processor time of the stack meanwhile, in percent of one core; `others` are no part of it."""
    begun, before = time.monotonic(), _processor_s(others)
    act()
    return 100 * (_processor_s(others) - before) / (time.monotonic() - begun)


def _processor_s(others: set[int]) -> float:
    """The processor time of this process and of all below it, in seconds."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in ours | others}:
        ours |= more
    return sum(ticks[pid] for pid in ours) / _TICKS


if __name__ == "__main__":
    sys.exit(main())
