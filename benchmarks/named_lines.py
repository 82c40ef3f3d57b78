"""What a line that names a workflow costs the keeper, beside a line with the same graph in it and the same values.

Run it by `python -m benchmarks.named_lines [--lines 20000]`. AWS is left out: what counts is our own work on a line, in
processor time, and the most memory that is held meanwhile. Lines come one by one, as they are read.
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.editor_format import best_s
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.reading import CHUNK_LINES, BatchReader, in_chunks
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.jobs.lines import Line
from comfy_serverless.settings import Settings
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.items import Alias, Head, VersionRow
from comfy_serverless.workflows.reader import WorkflowReader
from comfy_serverless.workflows.version import NamedInput, Version

GRAPH: dict[str, Any] = json.loads((Path(__file__).parent.parent / "workflows" / "text_to_image.json").read_text())
INPUTS = (
    NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, default=GRAPH["6"]["inputs"]["text"]),
    NamedInput(name="seed", targets=("3.seed",), kind=InputKind.INTEGER, default=GRAPH["3"]["inputs"]["seed"]),
)
VERSION = Version(name="poster", number=1, owner="team", graph=GRAPH, inputs=INPUTS)
_BATCH = Batch(
    id="batch-1",
    owner="team",
    source="s3://drops/batches/many.jsonl",
    manifest="s3://assets/batches/many.jsonl",
    size_bytes=1,
    status=BatchStatus.RUNNING,
    created_at="2026-11-29T00:00:00Z",
)

#: What a line asks for, by its number.
Request = Callable[[int], dict[str, Any]]


def by_name(number: int) -> dict[str, Any]:
    """A line that names the workflow."""
    return {"workflow": "poster", "inputs": {"prompt": f"a lighthouse, number {number}", "seed": number}}


def inline(number: int) -> dict[str, Any]:
    """A line for the same job, with the graph in it."""
    return {"workflow": GRAPH, "set": {"6.text": f"a lighthouse, number {number}", "3.seed": number}}


class OneWorkflow(WorkflowReader):
    """Has one workflow, at hand. `reads` counts the looks at the table."""

    def __init__(self, version: Version) -> None:
        self.reads = 0
        self._version = version

    def look(self, keys: Sequence[tuple[str, str, int | None]]) -> dict[tuple[str, str, int | None], Head | VersionRow]:
        self.reads += 1
        head = Head(owner="team", name="poster", latest=1, aliases={"live": Alias(weights={1: 1})}, documents={1: "0"})
        return {key: head for key in keys if key == ("team", "poster", None)}

    def read(self, *_: object, **__: object) -> Version:
        return self._version


class Reading:
    """A keeper without AWS. `made` counts its jobs, `reads` its looks at the table."""

    def __init__(self) -> None:
        self.made = 0
        self._store = OneWorkflow(VERSION)
        self._reader = BatchReader(
            jobs=cast("Any", SimpleNamespace(submit_of_batch=self._submit)),
            batches=cast("Any", None),
            workers=cast("Any", SimpleNamespace(send_many=lambda _: None)),
            s3=cast("Any", SimpleNamespace(put_object=lambda **_: None)),
            settings=Settings(output_bucket="results", assets_bucket="assets"),
            named=Finder(self._store, None, lambda: None),
        )

    def _submit(self, _job: object) -> object:
        self.made += 1
        return SimpleNamespace(is_of_batch=False, may_begin=False)

    @property
    def reads(self) -> int:
        return self._store.reads

    def read(self, lines: Iterator[Line]) -> None:
        """Make jobs of lines, chunk by chunk."""
        for chunk in in_chunks(lines, CHUNK_LINES):
            bad = self._reader.submit(_BATCH, chunk.lines, draws=lambda _: False)
            assert not bad, bad[0].message


def lines_of(request: Request, count: int) -> Iterator[Line]:
    """The lines of a manifest, made as they are read."""
    offset = 0
    for number in range(1, count + 1):
        content = json.dumps(request(number)).encode()
        yield Line(offset, len(content), content, number)
        offset += len(content) + 1


def ratio(count: int) -> float:
    """The processor time of a line that names the workflow, divided by that of one with the graph in it."""
    named, whole = (best_s(partial(_read, request, count)) for request in (by_name, inline))
    return named / whole


def peak_bytes(request: Request, count: int) -> int:
    """The most memory that is held while a manifest of so many lines is read."""
    _read(request, CHUNK_LINES)  # what stays of the first one stays once
    tracemalloc.start()
    try:
        _read(request, count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _read(request: Request, count: int) -> None:
    Reading().read(lines_of(request, count))


def main() -> None:
    """Print what a line costs, by name and with its graph."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.named_lines", description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000, metavar="N", help="of each manifest (default 20000)")
    count = parser.parse_args().lines
    for what, request in (("with the graph", inline), ("by its name", by_name)):
        spent_s, held = best_s(partial(_read, request, count)), peak_bytes(request, count)
        print(f"{what:16} {spent_s / count * 1e6:6.0f} µs of a processor a line, {held / 1e6:.1f} MB at most")


if __name__ == "__main__":
    main()
