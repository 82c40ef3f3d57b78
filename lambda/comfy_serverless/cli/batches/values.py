"""The values that names of files can be made of, out of a line of the report and an output of its job. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from comfy_serverless.files import type_of_name
from comfy_serverless.graph.file_inputs import is_address, scheme_of

if TYPE_CHECKING:
    from comfy_serverless.batches.results import Row
    from comfy_serverless.jobs.document import Output

#: What every file has. `{metadata.KEY}` and `{inputs.NODE.INPUT}` come with the batch.
FIELDS: Mapping[str, str] = {
    "line": "the line of the manifest, e.g. {line:4} for 0012",
    "input": "the name of its input file, without the ending",
    "output": "the name that ComfyUI gave the file, without the ending and the counter",
    "node": "the id of the node that made it",
    "title": "the title of that node",
    "index": "which output of that node it is, from 0",
    "job_id": "its job",
    "batch": "the batch",
}


def known_fields(rows: Iterable[Row]) -> dict[str, int]:
    """All fields that files of these lines can have, and how many lines have them."""
    known = dict.fromkeys(FIELDS, 0)
    for row in rows:
        for name in _row_values(row):
            known[name] = known.get(name, 0) + 1
    if not known["input"]:
        del known["input"]
    return known


def values_of(row: Row, output: Output, *, batch: str) -> dict[str, str]:
    """The values for one file."""
    return {
        **_row_values(row),
        "batch": batch,
        "output": _without_counter(PurePosixPath(output.name).stem),
        "node": output.node_id,
        "title": output.title or output.class_type,
        "index": str(output.index),
    }


def default_template(known: Mapping[str, int], lines: int) -> str:
    """What files are called if nothing is asked for: as their input files, if every line has one."""
    return "{input}" if lines and known.get("input") == lines else "{line:4}_{output}"


def input_name(address: str | list[str]) -> str:
    """The name of an input's file, the first of several, without the ending; "" if it has none."""
    first = address if isinstance(address, str) else next(iter(address), "")
    if not is_address(first):
        return PurePosixPath(first).stem if type_of_name(first) else ""  # the name of an upload
    if scheme_of(first) == "data":
        return ""
    path = first if scheme_of(first) == "s3" else unquote(urlsplit(first).path)
    return PurePosixPath(path).stem


def _row_values(row: Row) -> dict[str, str]:
    named = {f"inputs.{name}": text for name, address in row.inputs.items() if (text := input_name(address))}
    values = {"line": str(row.line), "job_id": row.job_id, **named}
    if named:
        values["input"] = next(iter(named.values()))
    return {**values, **{f"metadata.{name}": text for name, text in row.metadata.items() if text}}


def _without_counter(stem: str) -> str:
    """`thumbnail_00001_` -> `thumbnail`: ComfyUI's counter says nothing beside a line's number."""
    bare = stem.rstrip("_")
    head, _, counter = bare.rpartition("_")
    return head if head and counter.isdecimal() and bare != stem else stem
