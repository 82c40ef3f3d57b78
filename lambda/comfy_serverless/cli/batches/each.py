"""A manifest out of one workflow and many files: `batch run WORKFLOW --each 'photos/*.jpg'`."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from comfy_serverless.cli.assignments import Assignment, find, put
from comfy_serverless.cli.batches.check import LocalFiles, Workflows
from comfy_serverless.cli.batches.manifest import batch_name
from comfy_serverless.cli.habits import say
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.files import type_of_name
from comfy_serverless.graph.file_inputs import takes_file
from comfy_serverless.graph.lookup import title_of
from comfy_serverless.graph.workflow import is_link

_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Made:
    """A manifest that was written.

    Attributes:
        address: the input that takes each file.
    """

    path: Path
    name: str
    lines: int
    address: str


def manifest_for(
    workflow: str,
    patterns: Sequence[str],
    *,
    folder: Path | None,
    address: str | None,
    values: Sequence[str],
    labels: Mapping[str, str],
    name: str | None,
    path: Path | None,
) -> Made:
    """Write the manifest.

    Args:
        workflow: a file, or the name of one of the image's workflows.
        folder: of named workflows, as far as they are here.
        address: the input that takes each file; None for the only one that takes any.
        values: what is set: `NODE.INPUT=VALUE`.
        name: what the batch is called; None for a name by workflow and folder.
        path: where the manifest goes; None for a file in the current folder.

    Raises NotFound and InvalidRequest for files, names and addresses that mean nothing; InvalidWorkflow.
    """
    graph = Workflows(LocalFiles(Path.cwd()), folder).graph(workflow)
    if graph is None and (address is None or values):
        raise InvalidRequest(
            f"the workflow {workflow!r} is neither a file nor known here (WORKFLOWS_DIR, workflows/), and so are "
            "its inputs: give its file, or --input, and no --set."
        )
    files = files_of(patterns)
    named = batch_name(Path(default_name(workflow, files)), name)
    where = address or the_input(graph or {})
    set_values = values_set(graph or {}, values)
    lines = requests_for(files, workflow=workflow, address=where, values=set_values, labels=labels)
    written = write_manifest(lines, path or Path(f"{named}.jsonl"), may_move=path is None)
    return Made(written, named, len(lines), where)


def values_set(graph: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The `set` of a request, out of `NODE.INPUT=VALUE` as `run` reads it: typed by what stands in the graph.

    Raises InvalidWorkflow for addresses that mean nothing, and for values that inputs do not take.
    """
    values: dict[str, Any] = {}
    for one in find(graph, [Assignment("--set", text) for text in texts]):
        node_id, name = one.targets[0]
        values[one.address] = put(graph, [one], {})[node_id]["inputs"][name]
        if len(one.targets) > 1:
            nodes = ", ".join(f"{node_id} {title_of(graph[node_id])}" for node_id, _ in one.targets)
            say(f"--set {one.address}: set on {len(one.targets)} nodes: {nodes}")
    return values


def files_of(patterns: Sequence[str]) -> list[Path]:
    """The files that patterns mean, each once, as people count: `2.jpg` before `10.jpg`.

    A pattern is a file, a folder (its pictures, videos and sounds), or has `*`, `?`, `[…]` or `**`; hidden files are
    left out.

    Raises NotFound if a pattern means no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = _files(pattern)
        if not files:
            raise NotFound(
                f"--each {pattern!r}: there is no such file. It is looked for from the folder {Path.cwd()}; "
                "'**/*.jpg' means the folders below, too."
            )
        found.update(dict.fromkeys(sorted(files, key=_counted)))
    return list(found)


def the_input(graph: Mapping[str, Any]) -> str:
    """The address of the one input of a workflow that takes a file.

    Raises InvalidRequest if there is none, or several: `--input` says which is meant.
    """
    found = [
        f"{node_id}.{name}"
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if takes_file(node["class_type"], name) and not is_link(value)
    ]
    match found:
        case [one]:
            return one
        case []:
            raise InvalidRequest(
                "no input of this workflow takes a file, as far as is known here; --input NODE.INPUT names it."
            )
    shown = ", ".join(f"{address} ({title_of(graph[address.rpartition('.')[0]])})" for address in found[:10])
    raise InvalidRequest(f"several inputs of this workflow take a file: {shown}. --input NODE.INPUT says which.")


def requests_for(
    files: Iterable[Path], *, workflow: str, address: str, values: Mapping[str, Any], labels: Mapping[str, str]
) -> list[str]:
    """The manifest's lines, one for each file."""
    common = {**({"set": dict(values)} if values else {}), **({"metadata": dict(labels)} if labels else {})}
    return [
        json.dumps({"workflow": workflow, "inputs": {address: str(file)}, **common}, ensure_ascii=False)
        for file in files
    ]


def default_name(workflow: str, files: Sequence[Path]) -> str:
    """What the batch is called: `thumbnail-photos` for files of the folder `photos`."""
    parts = [Path(workflow).stem]
    if len(folders := {file.parent.name for file in files}) == 1:
        parts += folders
    name = "-".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts).strip("-")
    return name[:_LONGEST_NAME].strip("-") or "batch"


def write_manifest(lines: Sequence[str], path: Path, *, may_move: bool) -> Path:
    """Write a manifest; returns where it is. One that stands there is not replaced, unless it is the same.

    Args:
        may_move: whether it may have another name if there is something else: `NAME-2.jsonl`.

    Raises InvalidRequest.
    """
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    for number in count(1):
        target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(content)
        except FileExistsError as error:
            if target.is_file() and target.read_bytes() == content:
                return target
            if not may_move:
                raise InvalidRequest(f"--manifest {target}: another file is there; give another name.") from error
        except OSError as error:
            raise InvalidRequest(f"the manifest {target} cannot be written: {error.strerror}") from error
        else:
            return target
    raise AssertionError("unreachable: numbers do not end")


def _files(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():  # also one whose name has brackets
        return [path]
    if path.is_dir():
        return [file for file in path.iterdir() if file.is_file() and _is_media(file)]
    found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - patterns may be absolute
    return [Path(name) for name in found if Path(name).is_file()]


def _is_media(file: Path) -> bool:
    is_hidden = file.name.startswith(".")
    return not is_hidden and (type_of_name(file.name) or "").partition("/")[0] in {"image", "video", "audio"}


def _counted(file: Path) -> list[tuple[int, str]]:
    """Sorts numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(file))]
