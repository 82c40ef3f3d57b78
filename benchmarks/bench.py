"""`make bench`: the costs of the connector, as ratios to the floor in the same run.

    python -m benchmarks.bench [--rounds 30] [--short] [--slack 1] [--json FILE] [--chart FILE]

Runs on the engine that the settings name (COMFYUI_DIR for a real ComfyUI), else on the embedded one. Contenders take
turns in random order: a fixed order can fall into step with the engine's garbage collection.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from benchmarks.chart import draw
from benchmarks.floor import Floor
from benchmarks.input_check import NamedRun
from benchmarks.measures import connector_lag_ms, engine_start_seconds, import_seconds, memory_growth
from benchmarks.owners import idle_gaps_ms, small_job_ms
from benchmarks.throughput import idle_percent, many_jobs
from benchmarks.workflows import noise_files, noise_job, small_job
from comfy_serverless import ComfyConnector, Settings

ROOT = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: ours, the floor's, and the promised limit."""

    name: str
    unit: str
    ours: float
    floor: float | None
    limit: float
    #: What the limit applies to: the ratio, the difference to the floor, or our own figure.
    judged: str

    @property
    def value(self) -> float:
        """The value that is judged."""
        if self.floor is None or self.judged == "value":
            return self.ours
        return self.ours / self.floor if self.judged == "ratio" else self.ours - self.floor

    @property
    def is_kept(self) -> bool:
        """Whether the promise holds."""
        return self.value <= self.limit


def main() -> int:
    """Measure, and print the table. Returns 1 if a promise is broken."""
    options = _options()
    # What other runs of the engine have left would be listed and counted with ours.
    with tempfile.TemporaryDirectory(prefix="comfy-bench-") as fresh:
        tempfile.tempdir = os.environ["TMPDIR"] = fresh
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    console = Console()
    connector = ComfyConnector()
    try:
        folder = connector.input_directory
        port = connector.urlport
        output_folder = connector._engine.folder("output")
        if folder is None or port is None or output_folder is None:
            console.print("The benchmark needs an engine that it starts itself: unset COMFYUI_URL.")
            return 2
        made = output_folder / "bench"
        shutil.rmtree(made, ignore_errors=True)  # of a run that was stopped
        try:
            with Bar(console=console, transient=True) as bar:
                measures = _measure(connector, Floor("127.0.0.1", port, output_folder), folder, options, bar)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        engine = connector.engine
    finally:
        connector.kill_api()
    _show(console, measures, engine)
    if options.json:
        document = {"engine": engine, "rounds": options.rounds, "measures": [_row(measure) for measure in measures]}
        options.json.write_text(json.dumps(document, indent=2))
    if options.chart:
        draw([(m.name, m.value, m.limit) for m in measures], title=f"comfy-serverless on {engine}", path=options.chart)
    return 0 if all(measure.value <= measure.limit * options.slack for measure in measures) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="how often each job is run (default 30)")
    parser.add_argument("--short", action="store_true", help="fewer jobs for memory: for machines that others use too")
    parser.add_argument(
        "--slack",
        type=float,
        default=1.0,
        help="how far a figure may miss its limit before the exit status is 1 (default 1: not at all)",
    )
    parser.add_argument("--json", type=Path, default=ROOT / "results.json", help="where the figures go")
    parser.add_argument("--chart", type=Path, default=ROOT / "results.png", help="where the chart goes")
    return parser.parse_args()


def _measure(
    connector: ComfyConnector, floor: Floor, folder: Path, options: argparse.Namespace, bar: Bar
) -> list[Measure]:
    task = bar.add_task("measuring", total=8)

    def step(name: str) -> None:
        bar.update(task, advance=1, description=name)

    four = noise_files(folder, count=4, pixels=1024)
    ours, theirs = _compare(connector, floor, small_job, rounds=options.rounds * 3)
    measures = [Measure("1 small job, total", "ms", ours[0], theirs[0], 1.15, "ratio")]
    step("four noise images")
    ours, theirs = _compare(connector, floor, lambda: noise_job(four), rounds=options.rounds)
    measures.append(Measure("2 four noise images, overhead", "ms", ours[1], theirs[1], 1.2, "ratio"))
    step("twelve jobs with uploads")
    bare, full, least = many_jobs(connector, floor, lambda: noise_job(four))
    measures.append(Measure("3 twelve jobs with S3, total", "ms", bare.total, least.total, 1.03, "ratio"))
    measures.append(Measure("3 the same, with thumbnails", "ms", full.total, least.total, 1.25, "ratio"))
    measures.append(Measure("3 idle gap between jobs", "ms", full.idle_gap, least.idle_gap, 3.0, "difference"))
    step("a backlog")
    idle, idle_of_one = idle_percent(connector, floor, lambda: noise_job(four))
    measures.append(Measure("3 engine idle, jobs waiting", "%", idle, idle_of_one, 3, "value"))
    step("change of owner")
    gap, same = idle_gaps_ms(connector, floor, jobs=12 if options.short else 32)
    measures.append(Measure("7 idle gap, change of owner", "ms", gap, same, 10, "difference"))
    apart, alone = small_job_ms(connector, rounds=options.rounds * 3)
    measures.append(Measure("7 small job among strangers", "ms", apart, alone, 2, "difference"))
    floor.close()
    step("start")
    measures.append(
        Measure("4 ready after the engine", "ms", connector_lag_ms(Settings.from_environment()), None, 50, "value")
    )
    floor_s, engine_s = engine_start_seconds()
    measures.append(Measure("4 start of the embedded engine", "ms", engine_s * 1000, floor_s * 1000, 2, "ratio"))
    step("memory")
    peak_mb, growth_mb = memory_growth(jobs=5 if options.short else 20)
    measures.append(Measure("5 memory above idle at 100 MB", "MB", peak_mb, None, 40, "value"))
    measures.append(Measure("5 growth, first job to last", "MB", growth_mb, None, 8, "value"))
    step("import")
    libraries, handler = import_seconds()
    measures.append(Measure("6 import of the handler", "ms", handler * 1000, libraries * 1000, 1.3, "ratio"))
    step("a run by name")
    run = NamedRun()
    measures.append(Measure("8 check and graph of a named run", "ms", *run.costs_ms(), 1, "difference"))
    measures.append(Measure("8 reads of the table, a named run", "", run.reads, None, 1, "value"))
    return measures


def _compare(
    connector: ComfyConnector, floor: Floor, job: Callable[[], dict[str, Any]], *, rounds: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Medians of (total, overhead) in ms: ours, then the floor's."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []

    def run_ours() -> None:
        graph = job()
        started = time.perf_counter()
        execution = connector.run(graph)
        size = sum(len(output.read()) for output in execution.outputs)
        wall_ms = (time.perf_counter() - started) * 1000
        assert size
        ours.append((wall_ms, wall_ms - execution.timings.executing_ms))
        _remove(output.path for output in execution.outputs)

    def run_floor() -> None:
        run = floor.run(job())
        theirs.append((run.wall_ms, run.overhead_ms))
        (entry,) = floor.latest(1)
        _remove(floor.output_paths(entry["outputs"]))

    for _ in range(3):
        run_ours()
        run_floor()
    ours.clear()
    theirs.clear()
    for _ in range(rounds):
        for contender in random.sample([run_ours, run_floor], 2):
            contender()
    return _medians(ours), _medians(theirs)


def _remove(paths: Iterable[Path | None]) -> None:
    """Remove what a job has made: the next one's folder must not be fuller."""
    for path in paths:
        if path is not None:
            path.unlink()


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _row(measure: Measure) -> dict[str, Any]:
    return asdict(measure) | {"value": measure.value, "is_kept": measure.is_kept}


def _show(console: Console, measures: list[Measure], engine: str) -> None:
    table = Table("measure", "ours", "floor", "judged", "at most", "", title=engine, box=None)
    for measure in measures:
        judged = f"x {measure.value:.2f}" if measure.judged == "ratio" else f"{measure.value:.1f} {measure.unit}"
        limit = f"x {measure.limit:g}" if measure.judged == "ratio" else f"{measure.limit:g} {measure.unit}"
        floor = "" if measure.floor is None else f"{measure.floor:.1f}"
        mark = "[green]kept[/]" if measure.is_kept else "[red]missed[/]"
        table.add_row(measure.name, f"{measure.ours:.1f} {measure.unit}", floor, judged, limit, mark)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
