"""What the command line tells of batches: their numbers, their end as an exit code, their progress while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from comfy_serverless.cli.batches.pace import failed_lines, progress_line, rate_text
from comfy_serverless.cli.habits import FAILED, counted, one_line, print_json, print_table, say, time_in_words

if TYPE_CHECKING:
    from comfy_serverless.batches.progress import BatchProgress
    from comfy_serverless.cli.batches.place import Known, Place

#: The pause between two looks of `--watch`, in seconds: it grows to this within the first minutes.
WATCH_EVERY_S = 5.0
_FIRST_PAUSE_S = 1.0
#: The longest pause between two lines where there is no terminal, in seconds.
LINE_EVERY_S = 60.0
#: The report has all bad lines and all failures.
SHOWN = 3
DONE, NOTHING_SUCCEEDED, NOT_ENDED = 0, 3, 4
_NARROW = 60
_PAUSED = "paused"


def exit_code(batch: Known, *, is_watched: bool = False) -> int:
    """What a script learns of a batch."""
    progress = batch.progress
    if batch.report is None:
        return NOT_ENDED if is_watched and batch.status == _PAUSED else DONE
    if not progress.succeeded:
        return NOTHING_SUCCEEDED
    return FAILED if failed_lines(progress) or progress.canceled else DONE


def facts(batch: Known) -> dict[str, Any]:
    """A batch as `--json` prints it."""
    return {
        "name": batch.name,
        "batch": batch.id,
        **batch.progress.to_json(),
        "created_at": batch.created_at,
        "completed_at": batch.completed_at,
        "bad_lines": list(batch.bad_lines)[:SHOWN],
        "first_failures": list(batch.first_failures)[:SHOWN],
        "notes": list(batch.notes),
        "codes": dict(batch.codes),
        "curable": batch.curable,
        "report": batch.report,
    }


def show(batch: Known, *, as_json: bool, is_watched: bool = False) -> int:
    """Print a batch; returns the exit code."""
    told = facts(batch)
    if as_json:
        print_json(told)
    else:
        print("\n".join(_lines(told, batch.progress)), flush=True)
    return exit_code(batch, is_watched=is_watched)


def show_all(found: Sequence[Known], *, as_json: bool) -> None:
    """Print a list of batches."""
    if as_json:
        print_json(
            {
                "batches": [
                    {
                        "name": batch.name,
                        "batch": batch.id,
                        **batch.progress.to_json(),
                        "created_at": batch.created_at,
                        "report": batch.report,
                    }
                    for batch in found
                ]
            }
        )
        return
    if not found:
        say("There are no batches. Submit one: comfy-serverless batch submit requests.jsonl")
        return
    titles = ("name", "status", "lines", "succeeded", "failed", "created")
    rows = [
        (
            batch.name,
            batch.status,
            _total(batch.progress),
            f"{batch.progress.succeeded:,}",
            f"{failed_lines(batch.progress):,}",
            batch.created_at[:16].replace("T", " "),
        )
        for batch in found
    ]
    print_table(titles, rows, folds=("name",), right=("lines", "succeeded", "failed"))


def watch(place: Place, batch: Known) -> Known:
    """Follow a batch until its report is there, or until it is paused."""
    pause_s = _FIRST_PAUSE_S
    with _shown() as show_progress:
        while True:
            show_progress(batch.progress)
            if batch.report is not None or batch.status == _PAUSED:
                break
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.1, WATCH_EVERY_S)
            batch = place.look(batch)
    if batch.report is None:
        say(
            f"The batch {batch.name} is paused: nothing more begins, so nothing is waited for. "
            f"`comfy-serverless batch resume {batch.name}` lets it go on."
        )
        for note in batch.notes:
            say(f"Note: {note}.")
    return batch


@contextmanager
def _shown() -> Iterator[Callable[[BatchProgress], None]]:
    """What shows progress: a line that changes in a terminal; else lines, the less often the longer it takes."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _PlainLines()
        return
    is_wide = console.width >= _NARROW
    bar = [BarColumn(bar_width=20)] if is_wide else []
    with Progress(*bar, TextColumn("{task.description}", markup=False), console=console) as shown:
        task = shown.add_task("", total=1.0)

        def show_progress(progress: BatchProgress) -> None:
            line = progress_line(progress, width=console.width - (22 if is_wide else 1))
            shown.update(task, completed=progress.ended, total=max(1, progress.lines_total), description=line)

        yield show_progress


class _PlainLines:
    """Prints a line when something has changed, and each twice as long after the one before, up to a minute."""

    def __init__(self) -> None:
        self._last = ""
        self._next_at = 0.0
        self._pause_s = WATCH_EVERY_S

    def __call__(self, progress: BatchProgress) -> None:
        now, line = time.monotonic(), progress_line(progress)
        is_over = progress.status not in {"running", "canceled"} or progress.ended == progress.lines_total
        if line == self._last or (now < self._next_at and not is_over):
            return
        say(line)
        self._last, self._next_at = line, now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LINE_EVERY_S)


def _lines(told: dict[str, Any], progress: BatchProgress) -> Iterator[str]:
    def line(title: str, text: str) -> str:
        return f"{title:<10} {one_line(text)}"  # nodes and their authors have written parts of it

    name = told["name"]
    yield line("batch", f"{name}  ({told['batch']})")
    yield line("status", progress.status)
    yield from (line("note", note) for note in told["notes"])
    yield line("lines", f"{_total(progress)}: {_counts(progress)}" if progress.lines else _total(progress))
    if told["report"] is None:
        if progress.per_second and progress.status == "running":
            left = f", {time_in_words(progress.left_s)} left" if progress.left_s else ""
            yield line("rate", f"{rate_text(progress.per_second)}{left}")
        if progress.counted_at:
            yield line("counted", progress.counted_at)
    for bad in told["bad_lines"]:
        where = f"line {bad['line']}" if bad["line"] is not None else "a line"
        yield line("bad", f"{where}: {bad['message']}")
    if progress.bad > len(told["bad_lines"]):
        yield line("", f"and {progress.bad - len(told['bad_lines']):,} more")
    for failure in told["first_failures"]:
        yield line("failed", f"line {failure['line']}: {failure['code']}: {failure['message']}")
    if told["codes"] and sum(told["codes"].values()) > len(told["first_failures"]):
        yield line("", "in all " + ", ".join(f"{count:,} {code}" for code, count in told["codes"].items()))
    if told["report"] is None:
        return
    yield line("report", told["report"])
    if told["curable"]:
        yield line(
            "next", f"comfy-serverless batch retry {name}    {counted(told['curable'], 'line')} may end well then"
        )
    if progress.succeeded:
        yield line("next", f"comfy-serverless batch download {name}")


def _counts(progress: BatchProgress) -> str:
    names = ("succeeded", "failed", "bad", "canceled", "expired", "duplicates", "running", "queued")
    numbers = {name: getattr(progress, name) for name in names}
    return ", ".join(
        counted(count, "duplicate") if name == "duplicates" else f"{count:,} {name}"
        for name, count in numbers.items()
        if count
    )


def _total(progress: BatchProgress) -> str:
    return f"{progress.lines_total:,}" if progress.is_read else f"about {progress.lines_total:,}"
