"""A manifest out of one workflow and many files: `batch run WORKFLOW --each 'photos/*.jpg'`."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from comfy_serverless.cli.assignments import Assignment, find, put
from comfy_serverless.cli.batches.check import LocalFiles, Workflows, check, read_workflow
from comfy_serverless.cli.batches.file_input import input_of_editor, the_input
from comfy_serverless.cli.batches.manifest import STANDARD_INPUT, batch_name
from comfy_serverless.cli.batches.pushed import Pushed, unknown
from comfy_serverless.cli.converting import converted, supplied_by
from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.cli.habits import counted, one_line, say
from comfy_serverless.cli.paths import is_file, is_folder, local_path
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, NotFound
from comfy_serverless.files import may_carry_workflow, type_of_name
from comfy_serverless.graph.file_inputs import ADDRESS_BEGINNINGS, as_address, is_address
from comfy_serverless.graph.lookup import NodeLookup, NothingMeant, met_several, title_of
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.lines import lines_of
from comfy_serverless.json_text import finite
from comfy_serverless.worker.inputs.plan import with_mask_inputs

_LONGEST_NAME = 40
#: Types of files that nobody takes for a picture, a video, a sound or a model.
_TEXTS = ("text/", "application/json")
_HALF = re.compile("[\ud800-\udfff]")
#: A path that begins so would be read as something else.
_READ_OTHERWISE = ("~", "{", "[", '"', *ADDRESS_BEGINNINGS)


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


@dataclass(frozen=True, slots=True)
class _Source:
    """The workflow of the jobs.

    Attributes:
        given: what was given: a file, or the name of one of the image's workflows.
        path: its file, if workers can read that; None if lines name it as it was given, or have the graph themselves.
        document: what is in it; None if that is not known here.
        is_in_lines: whether lines have the graph: workers read no pictures, and no standard input of this machine.
    """

    given: str
    path: Path | None
    document: Document | None
    is_in_lines: bool = False

    @property
    def is_editors(self) -> bool:
        """Whether the editor saved it: then workers convert it, and there is no graph."""
        return self.document is not None and bool(self.document.editors)

    @property
    def the_input(self) -> str:
        """The address of its one input that takes a file. Raises as `the_input`."""
        if self.document is None:
            return the_input({})
        return input_of_editor(self.document.editors) if self.is_editors else the_input(self.document.graph)

    def fields(self, folder: Path) -> dict[str, Any]:
        """The fields that it gives to the request of each line of a manifest in a folder."""
        if self.document is None:
            return {"workflow": self.given}
        document = self.document
        beside = {name: value for name, value in document.beside.items() if name != "job_id"}
        extra = {"extra_data": dict(document.extra_data)} if self.is_in_lines and document.extra_data else {}
        deadline = {} if document.deadline_s is None else {"deadline_s": document.deadline_s}
        shown = self.given if self.path is None else path_from(folder, self.path)
        if shown != self.given and os.sep not in shown:  # else it might be the name of one of the image's
            shown = f".{os.sep}{shown}"
        workflow = document.editors or document.graph
        return {"workflow": workflow if self.is_in_lines else shown, **beside, **deadline, **extra}


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
    force: bool = False,
) -> Made:
    """Write the manifest; nothing is written if its jobs would fail.

    Args:
        workflow: a file of any kind that `run` reads, `-` for standard input, or the name of one of the image's or one
            that was pushed.
        folder: of named workflows, as far as they are here.
        address: the input that takes each file; None for the only one that takes any.
        values: what is set: `NODE.INPUT=VALUE`, or `NAME=VALUE` of one that was pushed.
        name: what the batch is called; None for a name by workflow and folder.
        path: where the manifest goes; None for a file in the current folder.
        force: whether it is written although its jobs would fail.

    Raises NotFound and InvalidRequest for files, names and addresses that mean nothing; InvalidWorkflow.
    """
    workflows = Workflows(LocalFiles(Path()), folder)
    source = _source(workflow, workflows)
    pushed = Pushed.asked_for(workflow) if source.document is None else None
    if source.document is None and pushed is None and (address is None or values):
        raise unknown(workflow)
    files = files_of(patterns)
    if note := told_of_texts(files):
        say(f"note: {note}")
    named = batch_name(Path(default_name(workflow, files)), name)
    where = pushed.input_for(files[0], address) if pushed is not None else address or source.the_input
    given = _fields_set(source, where, [] if pushed is not None else values, labels)
    if pushed is not None and (by_name := pushed.values(values, where=where, file=files[0])):
        given["inputs"] = by_name

    def lines(files: Iterable[Path], folder: Path) -> list[str]:
        return requests_for(files, address=where, given={**source.fields(folder), **given}, folder=folder)

    if not force:
        _check(lines(files[:1], Path()), workflows)
    target = path or Path(f"{named}.jsonl")
    written = write_manifest(lines(files, target.parent), target, may_move=path is None)
    return Made(written, named, len(files), where)


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


def told_of_texts(files: Sequence[Path]) -> str:
    """What to say of files that a pattern has met and that no input takes by their names; "" if there are none."""
    texts = [file.name for file in files if (type_of_name(file.name) or "").startswith(_TEXTS)]
    if not texts:
        return ""
    return (
        f"{len(texts):,} of {counted(len(files), 'file')} {'is a text' if len(texts) == 1 else 'are texts'} by name "
        f"({', '.join(texts[:3])}{', …' if len(texts) > 3 else ''}): an input for pictures, videos or sounds refuses "
        "such a file. A pattern like '*.jpg' leaves them out, and so does the folder alone."
    )


def requests_for(files: Iterable[Path], *, address: str, given: Mapping[str, Any], folder: Path) -> list[str]:
    """The lines of a manifest in a folder, one for each file.

    Args:
        given: the fields that all of them have.
    """
    inputs = given.get("inputs", {})
    if isinstance(inputs, Mapping):
        inputs = {name: _value_from(folder, value) for name, value in inputs.items()}
    fields = {"workflow": given["workflow"], "inputs": {}, **given}
    return [_line({**fields, "inputs": {address: path_from(folder, file), **inputs}}) for file in files]


def path_from(folder: Path, path: Path) -> str:
    """A path, which is from the current folder, as a manifest in another one has it: from there.

    It cannot be taken for something else: a file called `~x` is `./~x`.
    """
    if path.is_absolute():
        return str(path)
    here = folder.resolve()
    # Links are followed before `..` is, as the system does; the file's own name is kept.
    shown = str(path) if here == Path.cwd().resolve() else os.path.relpath(path.parent.resolve() / path.name, here)
    return shown if as_address(shown) == shown and not shown.startswith(_READ_OTHERWISE) else f".{os.sep}{shown}"


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
    content = "".join(f"{line}\n" for line in lines).encode()
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


def _source(workflow: str, workflows: Workflows) -> _Source:
    path = None if workflow == STANDARD_INPUT.name else workflows.file_of(workflow)
    if path is None and workflow != STANDARD_INPUT.name:
        found = workflows.find(workflow)
        return _Source(workflow, None, None if found is None else _as_document(found))
    document = read_document(workflow if path is None else str(path))
    for warning in document.warnings:
        say(one_line(warning))
    if "job_id" in document.beside:
        say("the request's job_id is left out: each line is a job of its own")
    can_be_read = path is not None and _reads_same(path, document.editors or document.graph)
    return _Source(workflow, path if can_be_read else None, document, is_in_lines=not can_be_read)


def _as_document(workflow: dict[str, Any]) -> Document:
    return Document({}, editors=workflow) if is_of_editor(workflow) else Document(workflow)


def _reads_same(path: Path, workflow: Mapping[str, Any]) -> bool:
    """Whether workers, which read no pictures and no files of other services, find the same workflow in a file."""
    if may_carry_workflow(path.name):  # it may be a video of gigabytes
        return False
    try:
        return read_workflow(path) == workflow
    except (InvalidRequest, InvalidWorkflow):
        return False


def _fields_set(source: _Source, where: str, texts: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """What the options and the workflow's own request give to every line: `set`, `inputs` and `metadata`.

    Raises InvalidRequest if `--input` means nothing, or if it is an input that `--set` has taken.
    """
    if source.document is None:
        return {"metadata": dict(labels)} if labels else {}
    document = source.document
    if source.is_editors:
        if not texts:
            return _fields_of_editor(document, where, labels)
        document = _converted_here(document)
    graph = document.graph
    settable, fillable = NodeLookup(graph), NodeLookup(with_mask_inputs(graph))
    filled = _meant_by(fillable, where)
    for note in met_several(with_mask_inputs(graph), [where]):
        say(f"--input: {note}")
    values = values_set(graph, texts)
    set_here = {target for address in values for target in settable.resolve(address)[1]}
    if both := sorted(set_here & filled):
        raise InvalidRequest(
            f"--set and the files of --each would both go into {'.'.join(both[0])}: leave out this --set, or name "
            "another input with --input."
        )
    before = document.beside.get("metadata")
    fields = {
        "set": {**_without(settable, document.values, set_here | filled), **values},
        "inputs": _without(fillable, document.inputs, filled),
        "metadata": {**before, **labels} if isinstance(before, Mapping) else labels,
    }
    return {name: value for name, value in fields.items() if value}


def _fields_of_editor(document: Document, where: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The same where nothing is set: what of the request means the same input is found by its address alone."""
    before = document.beside.get("metadata")
    fields = {
        "set": {address: value for address, value in document.values.items() if address != where},
        "inputs": {address: value for address, value in document.inputs.items() if address != where},
        "metadata": {**before, **labels} if isinstance(before, Mapping) else labels,
    }
    return {name: value for name, value in fields.items() if value}


def _converted_here(document: Document) -> Document:
    """What the editor saved with its graph: which values its inputs take, the ComfyUI says that `run` would use."""
    from comfy_serverless.cli.local_run import started
    from comfy_serverless.settings import Settings

    with started(None, Settings.from_environment()) as connector:
        return converted(document, connector.convert(document.editors, supplied=supplied_by(document)))


def _meant_by(lookup: NodeLookup, where: str) -> set[tuple[str, str]]:
    try:
        return set(lookup.resolve(where)[1])
    except NothingMeant as problem:
        hint = "; its files are those of --each" if "=" in where else lookup.suggestion(where)
        raise InvalidRequest(f"--input {where}: {problem}{hint}.") from problem


def _without(lookup: NodeLookup, values: Mapping[str, Any], taken: Container[tuple[str, str]]) -> dict[str, Any]:
    """Values by their addresses, but not for inputs that are taken. What means nothing stays, and is refused later."""
    meanings, problems = lookup.resolve_all(values)
    if not any(target in taken for one in meanings for target in one.targets):
        return dict(values)
    left = {
        f"{node_id}.{name}": values[one.address]
        for one in meanings
        for node_id, name in one.targets
        if (node_id, name) not in taken
    }
    return left | {address: values[address] for address in problems}


def _check(lines: Sequence[str], workflows: Workflows) -> None:
    """Judge one of the lines: but for their files they are the same. Raises InvalidRequest if it would fail."""
    found = check(lines_of(["\n".join(lines).encode()]), workflows=workflows, input_bucket="", uploads=True)
    for problem in found.problems:
        raise InvalidRequest(f"the jobs would fail: {problem.text.rstrip('.')}. Nothing was written or sent.")


def _value_from(folder: Path, value: object) -> object:
    """The files of an input, from another folder."""
    if isinstance(value, list):
        return [_value_from(folder, one) for one in value]
    if not isinstance(value, str) or is_address(value) or not is_file(path := local_path(value)):
        return value
    return path_from(folder, path)


def _line(fields: dict[str, Any]) -> str:
    """A line as it can be written: halves of characters, which JSON can hold and a file cannot, stay escaped."""
    fields = finite(fields)
    text = json.dumps(fields, ensure_ascii=False)
    return json.dumps(fields) if _HALF.search(text) else text


def _files(pattern: str) -> list[Path]:
    path = local_path(pattern)
    if is_file(path):  # also one whose name has brackets
        return [path]
    if is_folder(path):
        return [file for file in path.glob("*") if is_file(file) and _is_media(file)]
    found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - patterns may be absolute
    return [Path(name) for name in found if is_file(Path(name))]


def _is_media(file: Path) -> bool:
    is_hidden = file.name.startswith(".")
    return not is_hidden and (type_of_name(file.name) or "").partition("/")[0] in {"image", "video", "audio"}


def _counted(file: Path) -> list[tuple[int, str]]:
    """Sorts numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(file))]
