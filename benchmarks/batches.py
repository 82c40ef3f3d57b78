"""`make bench-batch`: the cost of making jobs of manifests, and of reporting on them, as they grow.

    python -m benchmarks.batches [--sizes 100,1000,10000,100000] [--slack 1]

The real ingest reads each manifest, in a separate process, against the local AWS. That is slower than AWS, and gets
slower the more it holds: a line is judged by what it costs us in processor time, memory and calls. Two figures are
promised: per line, the largest manifest takes at most 1.1 times the processor time of the second, both to be read and
to be reported, and it takes no more memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.batch_costs import counted_calls, dollars_by_kind
from benchmarks.endless_queue import endless_queue
from local.aws.server import LocalAws
from local.aws.stack import LocalStack

if TYPE_CHECKING:
    from comfy_serverless.batches.batch import Batch
    from comfy_serverless.batches.keeper import Keeper

SIZES = (100, 1000, 10_000, 100_000)
#: The most that a line of the largest may cost, in terms of the second's; a hundred lines are too few to compare with.
MOST = 1.1
#: Memory that may come and go with the garbage collector, in MB.
MEMORY_SLACK_MB = 8.0
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Figures:
    """The costs of one manifest.

    Attributes:
        processor_s: of our process, user and system, for making jobs of the lines.
        report_s: the same, for the report.
        peak_mb: above the memory before the first line.
        calls: to AWS, by operation.
        dollars: of submitting, by what they are paid for, at the prices of `batch_costs`.
    """

    lines: int
    size_bytes: int
    wall_s: float
    processor_s: float
    report_s: float
    peak_mb: float
    calls: dict[str, int]
    dollars: dict[str, float]

    @property
    def processor_us(self) -> float:
        """Processor time per line, in microseconds."""
        return self.processor_s / self.lines * 1e6

    @property
    def report_us(self) -> float:
        """Processor time per row of the report, in microseconds."""
        return self.report_s / self.lines * 1e6


def main() -> int:
    """Measure, and print the table. Returns 1 if a promise is broken."""
    options = _options()
    if options.read:
        print(json.dumps(asdict(_read(options.read))))
        return 0
    console = Console()
    found: list[Figures] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console, transient=True) as bar:
        for size in options.sizes:
            with LocalAws() as aws:  # a new one: its content slows it down
                task = bar.add_task(f"{size:,} lines", total=size)
                stack = LocalStack.create(aws)
                manifest = Path(folder) / "manifest.jsonl"
                with manifest.open("w", encoding="utf-8") as file:
                    file.writelines(_lines(size))
                aws.client().upload_file(str(manifest), stack.environment["ASSETS_BUCKET"], "manifest.jsonl")
                with endless_queue() as queue:
                    environment = {**stack.environment, "AWS_ENDPOINT_URL_SQS": queue}
                    found.append(_measure(environment, lambda done, task=task: bar.update(task, completed=done)))
    _show(console, found)
    return 0 if _is_kept(found, options.slack) else 1


def _measure(environment: dict[str, str], show: Any) -> Figures:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.batches", "--read", "manifest.jsonl"],
        env={**os.environ, **environment, "POWERTOOLS_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        last = line
        if line.strip().isdigit():
            show(int(line))
    if process.wait() != 0:
        raise SystemExit("the manifest was not read: see above")
    return Figures(**json.loads(last))


def _lines(count: int) -> Iterator[str]:
    """Lines as people write them: the name of a workflow, with some inputs."""
    for number in range(count):
        request = {
            "workflow": "text_to_image",
            "set": {"6.text": f"a lighthouse by night, number {number}", "3.seed": number},
            "metadata": {"campaign": "lighthouses", "number": str(number)},
        }
        yield json.dumps(request) + "\n"


def _read(key: str) -> Figures:
    """Make a batch of the manifest, and jobs of its lines. Runs in a separate process."""
    from comfy_serverless.aws.s3 import S3Address
    from comfy_serverless.handlers.wiring_ingest import ingest
    from comfy_serverless.jobs.sources import DroppedObject

    counted = counted_calls()
    drops = ingest()
    keeper = drops.keeper
    bucket = os.environ["ASSETS_BUCKET"]  # any but the input bucket, which would notify the real ingest
    before_mb, before_s, started = _peak_mb(), time.process_time(), time.perf_counter()
    batch = drops.begin_batch(DroppedObject(address=S3Address(bucket, key), version="bench"))
    for part in keeper.batches.ranges(batch.id):
        assert keeper.read(batch.id, part.start, until=float("inf"))
        print(sum(one.lines for one in keeper.batches.ranges(batch.id)), flush=True)
    lines = sum(one.lines for one in keeper.batches.ranges(batch.id))
    assert counted.calls["dynamodb:PutItem"] >= lines, "every line is a job"
    wall_s, processor_s = time.perf_counter() - started, time.process_time() - before_s
    calls, dollars = dict(counted.calls), dollars_by_kind(counted, processor_s=processor_s)
    report_s = _report(keeper, batch)
    return Figures(
        lines=lines,
        size_bytes=batch.size_bytes,
        wall_s=wall_s,
        processor_s=processor_s,
        report_s=report_s,
        peak_mb=_peak_mb() - before_mb,
        calls=calls,
        dollars=dollars,
    )


def _report(keeper: Keeper, batch: Batch) -> float:
    """Report on the batch as if its jobs had ended. Returns the processor time."""
    from comfy_serverless.batches.report import write_part, write_report
    from comfy_serverless.jobs.document import JobStatus
    from comfy_serverless.jobs.reserved import Reserved
    from comfy_serverless.table.job_state import JobState
    from comfy_serverless.table.reader import JobReader

    class Ended(JobReader):
        def many(self, job_ids: Sequence[str]) -> dict[str, JobState]:
            return {name: replace(state, status=JobStatus.SUCCEEDED) for name, state in super().many(job_ids).items()}

    jobs = Ended(keeper.jobs._table)
    begun = time.process_time()
    ranges = keeper.batches.ranges(batch.id)
    for part in ranges:
        assert write_part(keeper.s3, jobs, batch, part, reserved=Reserved.of(keeper.settings)) is None
    write_report(keeper.s3, batch, ranges, bucket=os.environ["OUTPUT_BUCKET"], prefix="")
    return time.process_time() - begun


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _is_kept(found: list[Figures], slack: float) -> bool:
    if len(found) < 3:
        return True
    second, last = found[1], found[-1]
    most = MOST * slack
    is_steady = last.processor_us <= second.processor_us * most and last.report_us <= second.report_us * most
    return is_steady and last.peak_mb <= second.peak_mb + MEMORY_SLACK_MB * slack


def _show(console: Console, found: list[Figures]) -> None:
    table = Table(
        "lines", "lines/s here", "processor", "by the line", "report", "memory", "calls/line", "$/1,000 jobs", box=None
    )
    for one in found:
        table.add_row(
            f"{one.lines:,}",
            f"{one.lines / one.wall_s:,.0f}",
            f"{one.processor_s:.1f} s",
            f"{one.processor_us:,.0f} µs",
            f"{one.report_us:,.0f} µs",
            f"{one.peak_mb:+.0f} MB",
            f"{sum(one.calls.values()) / one.lines:.2f}",
            f"{sum(one.dollars.values()) / one.lines * 1000:.4f}",
        )
    console.print(table)
    last = found[-1]
    for kind, dollars in last.dollars.items():
        console.print(f"  {kind:<34} ${dollars / last.lines * 1000:.5f} for 1,000 jobs")
    calls = Counter(last.calls).most_common(6)
    console.print("  calls: " + ", ".join(f"{name} {count:,}" for name, count in calls), style="dim")
    if len(found) >= 3:
        ratio = last.processor_us / found[1].processor_us
        report_ratio = last.report_us / found[1].report_us
        console.print(
            f"a line among {last.lines:,}: x {ratio:.2f} of one among {found[1].lines:,}, its row of the report "
            f"x {report_ratio:.2f} (at most {MOST})"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batches", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="lines of the manifests (default 100 to 100,000)")
    parser.add_argument("--slack", type=float, default=1.0, help="how far a figure may miss its limit (default 1)")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
