"""`make bench-workers`: does work spread? One queue, from which one, two or four workers take jobs.

    python -m benchmarks.workers [--workers 1,2,4] [--jobs 8] [--job-s 3] [--slack 1]

Each worker is a Lambda emulator with its own engine, as in `make dev`. The engine waits, as if for a GPU: a small
machine can run several of them. Promised: N workers do at least 0.9 N times as much as one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.dev import DevStack

WORKERS = (1, 2, 4)
#: The least that N workers must do, as a share of N times what one does.
LEAST = 0.9
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Spread:
    """The work of this many workers, from the first job's start to the last one's end."""

    workers: int
    jobs: int
    seconds: float

    @property
    def per_minute(self) -> float:
        """Jobs that ended per minute."""
        return 60 * self.jobs / self.seconds


def main() -> int:
    """Measure, and print the table. Returns 1 if a promise is broken."""
    options = _options()
    console = Console()
    found: list[Spread] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        for workers in options.workers:
            jobs = options.jobs * workers
            task = bar.add_task(f"{workers} workers", total=jobs)
            found.append(
                _measure(workers, jobs, options.job_s, lambda done, task=task: bar.update(task, completed=done))
            )
    one = found[0].per_minute / found[0].workers
    table = Table("workers", "jobs", "time", "jobs a minute", f"of {found[0].workers}, times as many", box=None)
    for spread in found:
        share = spread.per_minute / one / spread.workers
        table.add_row(
            str(spread.workers),
            str(spread.jobs),
            f"{spread.seconds:.1f} s",
            f"{spread.per_minute:.1f}",
            f"{spread.per_minute / one:.2f} ({share:.0%})",
        )
    console.print(table)
    return 0 if all(spread.per_minute / one * options.slack >= LEAST * spread.workers for spread in found) else 1


def _measure(workers: int, jobs: int, job_s: float, show: Any) -> Spread:
    engine = f"{sys.executable} -m comfy_lite --step-ms {job_s * 1000:g}"
    with (
        tempfile.TemporaryDirectory() as folder,
        DevStack(log_folder=Path(folder), workers=workers, engine=engine) as stack,
    ):
        _run(stack, workers)  # starts every worker's engine
        documents = _run(stack, jobs, show)
    started = min(_moment(document["started_at"]) for document in documents)
    ended = max(_moment(document["completed_at"]) for document in documents)
    return Spread(workers, jobs, ended - started)


def _run(stack: DevStack, count: int, show: Any = lambda _: None) -> list[dict[str, Any]]:
    """Submit this many jobs, and wait for all of them."""
    graph = json.loads((ROOT / "workflows" / "text_to_image.json").read_text(encoding="utf-8"))
    waiting = []
    for _ in range(count):
        _sampler(graph).update(steps=1, seed=time.monotonic_ns())
        waiting.append(_ask(stack, "POST", "/api/v2/jobs", {"workflow": graph})["id"])
    ended: list[dict[str, Any]] = []
    while waiting:
        document = _ask(stack, "GET", f"/api/v2/jobs/{waiting[0]}")
        if document["status"] in {"queued", "running"}:
            time.sleep(0.2)
            continue
        assert document["status"] == "succeeded", document
        ended.append(document)
        waiting.pop(0)
        show(len(ended))
    return ended


def _sampler(graph: dict[str, Any]) -> dict[str, Any]:
    (inputs,) = [node["inputs"] for node in graph.values() if node["class_type"] == "KSampler"]
    found: dict[str, Any] = inputs
    return found


def _ask(stack: DevStack, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        stack.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=_numbers, default=WORKERS, help="how many (default 1,2,4)")
    parser.add_argument("--jobs", type=int, default=8, help="for each worker (default 8)")
    parser.add_argument("--job-s", type=float, default=3.0, help="how long the engine takes for one (default 3)")
    parser.add_argument("--slack", type=float, default=1.0, help="how far a figure may miss its limit (default 1)")
    return parser.parse_args()


def _numbers(text: str) -> Sequence[int]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
