"""What came back from the sample events: as a table, as a sentence, and as one picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.markup import escape
from rich.table import Table

from comfy_serverless.cli.contact_sheet import Card, Tile, contact_sheet, open_picture
from comfy_serverless.jobs.document import Job, JobStatus, Output
from demo.samples import Outcome
from demo.seed import EVENTS

PHOTO = EVENTS / "photo.jpg"
JOB_WIDTH = 22  # so that the table fits a screen of 80 columns
#: The files of a job, by the id of the output.
Files = Mapping[str, Path]


def results_table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each job, under the event that brought it about."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("event", no_wrap=True, min_width=20)
    table.add_column("job", no_wrap=True, overflow="ellipsis", max_width=JOB_WIDTH)
    table.add_column("outcome", no_wrap=True, min_width=14)
    for name, width in (("files", 5), ("size", 6), ("took", 7)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for outcome in outcomes:
        if not outcome.jobs:
            table.add_row(outcome.sample.event, "", "nothing new")
        for row, job in enumerate(outcome.jobs):
            table.add_row(
                outcome.sample.event if row == 0 else "",
                escape(job.id),
                _status(job, expected=job.id in outcome.sample.failures),
                str(len(job.outputs)),
                size_text(sum(output.size_bytes for output in job.outputs)),
                time_text(took_ms(job)),
            )
    return table


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line: how much came back, and how fast the warm worker was compared with the cold one."""
    jobs = [job for outcome in outcomes for job in outcome.jobs]
    files = sum(len(job.outputs) for job in jobs)
    warm = [outcome.reply_ms for outcome in outcomes[1:]]
    times = f"; cold {time_text(outcomes[0].reply_ms)}, warm {time_text(statistics.median(warm))}" if warm else ""
    return f"{len(outcomes)} events, {len(jobs)} jobs, {files} files{times}"


def contact_sheet_of(outcomes: Sequence[Outcome], files: Mapping[str, Files]) -> Image.Image:
    """Inputs beside results, a card for each job. `files` has each job's files, by the job's id."""
    cards = [_card(job, outcome, files[job.id]) for outcome in outcomes for job in outcome.jobs]
    engine = next((job.engine for card in outcomes for job in card.jobs if job.engine), "no engine")
    return contact_sheet(cards, title="comfy-serverless", subtitle=f"{summary(outcomes)}  ·  {engine}")


def size_text(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def time_text(time_ms: float) -> str:
    """A duration as people read it."""
    return f"{time_ms / 1000:.1f} s" if time_ms >= 1000 else f"{time_ms:.0f} ms"


def took_ms(job: Job) -> int:
    """From the moment the job was taken up to its end."""
    if job.started_at is None or job.completed_at is None:
        return 0
    return round((job.completed_at - job.started_at).total_seconds() * 1000)


def short_path(path: Path) -> str:
    """A path as people see it: relative to the current folder, if it is below that."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _status(job: Job, *, expected: bool) -> str:
    if job.status is JobStatus.SUCCEEDED:
        return "[green]succeeded[/]"
    return f"[yellow]{job.status.value} (meant)[/]" if expected else f"[bold red]{job.status.value}[/]"


def _card(job: Job, outcome: Outcome, files: Files) -> Card:
    meant = ", as it should" if job.id in outcome.sample.failures else ""
    detail = f"events/{outcome.sample.event}.json  ·  {job.status.value}{meant}  ·  {time_text(took_ms(job))}"
    if job.error is not None:
        text = f"{job.error.code}: {job.error.message}"
        return Card(job.id, detail, (), (Tile(text, "", alarm=True),))
    results = [_result_tile(output, files[output.id]) for output in job.outputs]
    return Card(job.id, detail, _input_tiles(files.values()), results)


def _result_tile(output: Output, path: Path) -> Tile:
    size = size_text(output.size_bytes)
    if output.type != "image":
        return Tile(path.read_text(encoding="utf-8") if output.type == "text" else path.suffix, output.name, size)
    picture = open_picture(path)
    return Tile(picture, output.title or output.name, f"{output.width} × {output.height}  ·  {size}")


def _input_tiles(paths: Iterable[Path]) -> list[Tile]:
    """What went in, as the pictures themselves tell: ComfyUI writes the whole workflow into its PNGs."""
    graph = next(filter(None, map(_embedded_graph, paths)), {})
    classes = {node["class_type"]: node["inputs"] for node in reversed(graph.values())}
    if "CLIPTextEncode" in classes:
        sampler = classes["KSampler"]
        return [Tile(classes["CLIPTextEncode"]["text"], "Prompt", f"{sampler['steps']} steps, seed {sampler['seed']}")]
    if "LoadImage" in classes:
        photo = open_picture(PHOTO)
        return [Tile(photo, "Photo", f"{photo.width} × {photo.height}  ·  {size_text(PHOTO.stat().st_size)}")]
    return []


def _embedded_graph(path: Path) -> dict[str, Any]:
    if path.suffix != ".png":
        return {}
    with Image.open(path) as picture:
        graph: dict[str, Any] = json.loads(picture.info.get("prompt", "{}"))
        return graph
