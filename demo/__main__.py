"""The demo: every sample event through the real Lambda emulator, with its results on screen and in out/.

    python -m demo [--out DIR] [--engine COMMAND]

Starts a local S3 and the worker, stops both, and exits non-zero if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from demo.report import contact_sheet_of, results_table, short_path, summary, time_text
from demo.samples import SAMPLES, DownloadDiffers, Outcome, Sample, download, send, worker_environment
from demo.seed import seed
from local.aws.lambda_emulator import EmulatorNotFound, LambdaEmulator
from local.aws.processes import NotListening, ProcessDied, chosen_engine
from local.aws.server import LocalAws

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 180
LOG_LINES = 30
LINE_WIDTH = 66


class Demo:
    """One run: says what it does on the console, and leaves everything in one folder.

    Args:
        out: the folder for results, contact sheet and log.
        engine: the command that starts ComfyUI; None for the embedded engine.
    """

    def __init__(self, out: Path, console: Console, *, engine: str | None = None) -> None:
        self._out = out
        self._console = console
        self._engine = engine
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=len(SAMPLES) + 4)

    @property
    def log_path(self) -> Path:
        """Where everything the worker prints is kept."""
        return self._out / "worker.log"

    def run(self) -> bool:
        """Send the samples, one after the other, until one goes wrong. Returns whether all went well.

        Raises:
            EmulatorNotFound, ProcessDied, NotListening: S3 or the worker cannot run here.
            DownloadDiffers: a file in S3 is not what its result says.
        """
        shutil.rmtree(self._out / "jobs", ignore_errors=True)
        self._out.mkdir(parents=True, exist_ok=True)
        with self._progress, LocalAws() as s3:
            with self._step("a local S3 with a photo and requests"):
                seed(s3.client())
            outcomes = self._send_all(s3)
            jobs = [job for outcome in outcomes for job in outcome.jobs]
            with self._step("results downloaded, checksums compared"):
                files = {job.id: download(job, s3.client(), self._out / "jobs") for job in jobs}
            with self._step("contact sheet drawn"):
                contact_sheet_of(outcomes, files).save(self._out / "demo.png")
        self._console.print()
        self._console.print(results_table(outcomes))
        self._console.print(f"\n{summary(outcomes)}")
        self._console.print(f"Picture: {short_path(self._out / 'demo.png')}")
        self._console.print(f"Files:   {short_path(self._out / 'jobs')}")
        problems = [f"{outcome.sample.event}: {text}" for outcome in outcomes for text in outcome.problems]
        if problems:
            self.explain("\n".join(problems))
        return not problems

    def explain(self, problem: str) -> None:
        """Say what went wrong, with the end of the worker's log and the place of the whole."""
        if self.log_path.is_file():
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            self._console.print(f"\nThe end of the worker's log, {short_path(self.log_path)}:")
            self._console.print(escape("\n".join(lines)), style="dim", soft_wrap=True)
        self._console.print(f"\n[bold red]The demo failed:[/] {escape(problem)}")

    def _send_all(self, s3: LocalAws) -> list[Outcome]:
        outcomes: list[Outcome] = []
        environment = {**s3.environment, **worker_environment(self._engine), **chosen_engine()}
        self.log_path.unlink(missing_ok=True)
        worker = LambdaEmulator(environment=environment, timeout_s=TIMEOUT_S, log_path=self.log_path)
        with self._step("the worker under the Lambda emulator"):
            worker.start()
        with worker:
            for sample in SAMPLES:
                outcomes.append(self._send(sample, worker, s3))
                if outcomes[-1].problems:
                    break
        return outcomes

    def _send(self, sample: Sample, worker: LambdaEmulator, s3: LocalAws) -> Outcome:
        self._progress.update(self._task, description=sample.meaning)
        outcome = send(sample, worker, s3.client())
        self._line(f"{sample.event}: {sample.meaning}", outcome.reply_ms, good=not outcome.problems)
        for job in outcome.jobs:
            if job.error and job.id in sample.failures:
                text = escape(f"{job.id} failed, as it should: {job.error.code}: {job.error.message}")
                self._console.print(Padding(f"[dim]{text}[/]", (0, 0, 0, 2)))
        self._progress.advance(self._task)
        return outcome

    @contextmanager
    def _step(self, description: str) -> Iterator[None]:
        self._progress.update(self._task, description=description)
        started = time.monotonic()
        yield
        self._line(description, round((time.monotonic() - started) * 1000), good=True)
        self._progress.advance(self._task)

    def _line(self, text: str, took_ms: int, *, good: bool) -> None:
        mark = "[green]✓[/]" if good else "[bold red]✗[/]"
        self._console.print(f"{mark} {escape(text):<{LINE_WIDTH}} {time_text(took_ms):>9}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Send every sample event to the worker and show what comes back."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="where results go (default: out/)")
    parser.add_argument("--engine", metavar="COMMAND", help="what starts ComfyUI (default: the embedded engine)")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a check mark shows a question mark
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is stopped
    demo = Demo(options.out, Console(highlight=False), engine=options.engine)
    try:
        return 0 if demo.run() else 1
    except (EmulatorNotFound, ProcessDied, NotListening, DownloadDiffers) as error:
        demo.explain(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
