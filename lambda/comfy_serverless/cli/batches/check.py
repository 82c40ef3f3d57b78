"""Checks a manifest before it is dropped: what would fail for certain is known here. Reads local files, asks no AWS.

each line ──► is it JSON? a request? ──► its workflow, if that is known here ──► `set` and `inputs` fit it?
                                     └──► its local files: there? to be uploaded?
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from comfy_serverless.batches.owned import IdsOfLines
from comfy_serverless.cli.batches.by_name import Inputs, inputs_of
from comfy_serverless.cli.habits import counted
from comfy_serverless.cli.paths import is_file, local_path
from comfy_serverless.errors import ComfyError, InvalidRequest, InvalidWorkflow
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.sources import parse as parse_source
from comfy_serverless.graph.active_nodes import active_nodes
from comfy_serverless.graph.chance import draws, rolls
from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.file_inputs import is_address, scheme_of, takes_file
from comfy_serverless.graph.lookup import listing
from comfy_serverless.graph.workflow import apply_set, check_format, check_links, load_payload
from comfy_serverless.graph.wrappers import is_of_editor, unwrap
from comfy_serverless.jobs.extra_data import refuse_unkept
from comfy_serverless.jobs.line_ids import Question
from comfy_serverless.jobs.lines import Line
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import request_at
from comfy_serverless.worker.inputs.plan import plan_inputs
from comfy_serverless.workflows.folder import Folder
from comfy_serverless.workflows.version import Version

#: How many problems are kept; of the others there is the number.
MAX_PROBLEMS = 1000
_MAX_CHARACTERS = 500
#: Of the path of an uploaded file.
_LONGEST_NAME = 512


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that would fail, and why."""

    line: int
    text: str


@dataclass(slots=True)
class Findings:
    """What is known of a manifest before it is dropped.

    Attributes:
        requests: how many lines have one, good or bad; blank lines do not count.
        bad: how many lines would fail.
        problems: the first of them.
        duplicates: lines that are the same as an earlier one, with the number of that.
        drawn: how many lines have something random in them, a seed or alternatives in a text.
        files: the local files that lines name, each once; their workflows too.
        workflows: those of them that are workflows.
        notes: further things that a person may want to know.
    """

    requests: int = 0
    bad: int = 0
    problems: list[Problem] = field(default_factory=list)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    drawn: int = 0
    files: dict[Path, None] = field(default_factory=dict)
    workflows: set[Path] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def files_in_words(self) -> str:
        """How many local files there are: "2 local files and 1 local workflow"."""
        files = counted(len(self.files) - len(self.workflows), "local file")
        return f"{files} and {counted(len(self.workflows), 'local workflow')}" if self.workflows else files

    def to_json(self) -> dict[str, int]:
        """Their numbers."""
        return {
            "lines": self.requests,
            "bad": self.bad,
            "duplicates": len(self.duplicates),
            "random_seeds": self.drawn,
            "files": len(self.files) - len(self.workflows),
            "workflow_files": len(self.workflows),
        }


@dataclass(frozen=True)
class LocalFiles:
    """The files that lines name by a path: beside the manifest, or in the current folder."""

    folder: Path

    def find(self, text: str) -> Path | None:
        """The file that a text names; None if there is none."""
        path = local_path(text)
        candidates = [path] if path.is_absolute() else [self.folder / path, path]
        return next((one for one in candidates if is_file(one)), None)


@dataclass(frozen=True)
class Workflows:
    """The workflows that are known here: files that lines name, and those in a folder by their names.

    Attributes:
        folder: of named workflows, as a worker has in WORKFLOWS_DIR; None if there is none here.
    """

    files: LocalFiles
    folder: Path | None
    _graphs: dict[str, dict[str, Any] | ComfyError | None] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, Path]:
        """The files of the folder by the names of their workflows."""
        if self.folder is None:
            return {}
        return {path.relative_to(self.folder).with_suffix("").as_posix(): path for path in self.folder.rglob("*.json")}

    def find(self, name: str) -> dict[str, Any] | None:
        """The workflow behind the `workflow` of a request, also the editor's; None if it is not known here.

        Raises ComfyError.
        """
        if name not in self._graphs:
            try:
                self._graphs[name] = self._read(name)
            except ComfyError as error:
                self._graphs[name] = error
        if isinstance(found := self._graphs[name], ComfyError):
            raise found
        return found

    def draws(self, question: str) -> bool:
        """Whether a workflow is known to have something random (`line_ids.asks_for_chance`)."""
        asked = Question.parse(question)
        try:
            workflow = self.find(asked.workflow)
        except ComfyError:
            return False
        return workflow is not None and (rolls(workflow) if asked.is_of_texts else draws(workflow))

    def inputs_of(self, request: JobRequest) -> Inputs:
        """The inputs of a request, as far as its workflow is known. Raises InvalidRequest if values do not fit."""
        return inputs_of(request, self._version(request), is_here=lambda text: self.files.find(text) is not None)

    def _version(self, request: JobRequest) -> Version | None:
        """The named workflow of a request, if a folder here has it."""
        name = str(request.workflow)
        if not request.is_named or self.folder is None or self.file_of(name) is not None:
            return None
        try:
            return self._named_files.version(_of_image(name), None)
        except ComfyError:
            return None  # `find` says why

    @cached_property
    def _named_files(self) -> Folder:
        return Folder(self.folder)

    def file_of(self, name: str) -> Path | None:
        """The local file that a `workflow` names; None for an address, or for the name of one of the image's."""
        if is_address(name) or name in self.names:
            return None
        path = self.files.find(name)
        named = self.names.get(name.removesuffix(".json"))
        return None if path is not None and named is not None and path.samefile(named) else path

    def _read(self, name: str) -> dict[str, Any] | None:
        if is_address(name):
            return None
        path = self.file_of(name) or self.names.get(_of_image(name).removesuffix(".json"))
        if path is not None:
            return read_workflow(path)
        if "@" in name:  # another version of a named workflow: the stack has it
            return None
        near = difflib.get_close_matches(name.removesuffix(".json"), self.names, n=1, cutoff=0.75)
        if near:
            raise InvalidRequest(f"there is no workflow {name[:200]!r} in {self.folder}; did you mean {near[0]!r}?")
        return None


def _of_image(name: str) -> str:
    """The name of a file in WORKFLOWS_DIR, which is version 0 of a named workflow."""
    return name.removesuffix("@0").removesuffix("@live")


class _Judged(NamedTuple):
    """The local files of a request, its workflow if that is one, and the inputs that name files it does not bring.

    `is_converted`: whether its workflow is the editor's, and a worker converts it.
    `named`: what must have been uploaded before.
    """

    files: list[Path]
    workflow: list[Path]
    standing: list[str]
    is_converted: bool = False
    named: Sequence[str] = ()


def read_workflow(path: Path) -> dict[str, Any]:
    """The checked workflow in a file, as workers read it; it may be the editor's.

    Raises InvalidRequest and InvalidWorkflow, which name the file.
    """
    try:
        document = load_payload(path)
        found = unwrap(document)
        workflow = document if found is None else found.workflow
        return check_editor_format(workflow) if is_of_editor(workflow) else check_format(workflow)
    except (InvalidRequest, InvalidWorkflow) as error:
        named = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise type(error)(named, details=error.details) from error
    except OSError as error:
        raise InvalidRequest(f"the workflow {path} cannot be read: {error.strerror}") from error


def check(
    lines: Iterable[Line], *, workflows: Workflows, input_bucket: str, uploads: bool, knows_uploads: bool = False
) -> Findings:
    """Judge each line of a manifest.

    Args:
        input_bucket: where manifests are dropped, and no result may go.
        uploads: whether local files are sent before the manifest.
        knows_uploads: whether lines may name files that were uploaded before, by their names or ids.
    """
    findings = Findings()
    first_lines: dict[str, int] = {}
    ids = IdsOfLines()
    unknown: Counter[str] = Counter()
    standing: Counter[str] = Counter()
    named: Counter[str] = Counter()
    converted = 0
    for line in lines:
        if line.is_blank:
            continue
        findings.requests += 1
        try:
            found = request_at(line, batch_id="", draws=workflows.draws)
            request = found.request
            ids.check(found, line.number)
            refuse_unkept(request.extra_data)
            judged = _judged(
                request, workflows, input_bucket=input_bucket, uploads=uploads, knows_uploads=knows_uploads
            )
        except ComfyError as error:
            findings.bad += 1
            if len(findings.problems) < MAX_PROBLEMS:
                findings.problems.append(Problem(line.number, error.message[:_MAX_CHARACTERS]))
            continue
        findings.files.update(dict.fromkeys([*judged.workflow, *judged.files]))
        findings.workflows.update(judged.workflow)
        standing.update(judged.standing)
        named.update(judged.named)
        converted += judged.is_converted
        findings.drawn += found.is_of_place
        if isinstance(request.workflow, str) and not is_address(request.workflow):
            unknown[request.workflow] += workflows.find(request.workflow) is None
        first = first_lines.setdefault(str(request.job_id), line.number)
        if first != line.number:
            findings.duplicates.append((line.number, first))
    findings.notes += [
        f"the workflow {name!r} ({counted(count, 'line')}) is not known here: it must be one of the "
        "image's workflows (WORKFLOWS_DIR), or a named one, whose inputs are checked when the batch is read"
        for name, count in unknown.most_common(5)
        if count
    ]
    findings.notes += [
        f"{counted(count, 'line')} with {place}, as it stands in the workflow: a worker has that file only if it is in "
        "its image; `inputs` brings another"
        for place, count in standing.most_common(5)
    ]
    findings.notes += [
        f"{name!r} ({counted(count, 'line')}) is no file here: it must be the name, or the id, of one that was uploaded"
        for name, count in named.most_common(5)
    ]
    if converted:
        findings.notes.append(
            f"{counted(converted, 'line')} with a workflow as the editor saves it: a worker converts it, and says then "
            "whether its nodes are there and whether `set` and `inputs` fit"
        )
    return findings


def _judged(
    request: JobRequest, workflows: Workflows, *, input_bucket: str, uploads: bool, knows_uploads: bool
) -> _Judged:
    """What a request brings. Raises a ComfyError if it would fail."""
    if request.output.bucket == input_bucket:
        raise InvalidRequest("`output.bucket` is the input bucket: every result would start a job again.")
    files: list[Path] = []
    workflow: list[Path] = []
    named: list[str] = []
    graph: Mapping[str, Any] | None
    if isinstance(request.workflow, dict):
        is_editors = is_of_editor(request.workflow)
        graph = check_editor_format(request.workflow) if is_editors else check_format(request.workflow)
    else:
        graph = workflows.find(request.workflow)
        if (path := workflows.file_of(request.workflow)) is not None:
            workflow = _to_send(f"the workflow {request.workflow!r}", path, uploads=uploads)
    inputs = workflows.inputs_of(request)
    for name, given in inputs.files.items():
        for value in (given,) if isinstance(given, str) else given:
            if knows_uploads and _may_be_uploaded(value, workflows.files):
                named.append(value[:100])
            else:
                files += _local_files(name, value, workflows.files, uploads=uploads)
    if graph is None:
        return _Judged(files, workflow, [], named=named)
    if is_of_editor(graph):
        return _Judged(files, workflow, _standing_in(graph, request), is_converted=True, named=named)
    graph = apply_set(graph, {**inputs.values, **request.values})
    check_links(graph)
    wanted = plan_inputs(graph, inputs.given).wanted if inputs.given else ()
    brought = {target for one in wanted for target in one.targets}
    standing = [place for place, target in _named_files(graph) if target not in brought]
    return _Judged(files, workflow, standing, named=named)


def _may_be_uploaded(value: str, local: LocalFiles) -> bool:
    """Whether an input can name a file that was uploaded: what is no address, no file here, and no base64."""
    if is_address(value) or scheme_of(value) or len(value) > _LONGEST_NAME or local.find(value) is not None:
        return False
    try:
        parse_source(value)
    except Unusable:
        return True
    return False


def _standing_in(workflow: Mapping[str, Any], request: JobRequest) -> list[str]:
    """What of the editor's workflow names a file that a request does not bring.

    Raises InvalidWorkflow if an address names a node, by a number, that the workflow does not have.
    """
    nodes = list(active_nodes(workflow))
    given = [*request.values, *request.inputs]
    unknown = {address: "no node has this id" for address in given if _means_no_id(address, workflow)}
    if unknown:
        raise InvalidWorkflow(f"this does not fit the workflow: {listing(unknown)}.", details={"set": unknown})
    called = [name.rpartition(".") for name in given]
    return [
        f"{node.class_type}.{name} = {value[:60]!r}"
        for node in nodes
        for name in node.file_inputs
        if (value := node.file_in(name)) and not is_address(value)
        if not any(name == input_name and node.is_called(who) for who, _, input_name in called)
    ]


def _means_no_id(address: str, workflow: Mapping[str, Any]) -> bool:
    """Whether an address begins with the id of a node that is not there. A title may have dots, and begin so, too."""
    nodes = [node for node in workflow["nodes"] if isinstance(node, Mapping)]
    parts = address.split(".")
    starts = {".".join(parts[:end]) for end in range(1, len(parts))}
    is_known = any(str(node.get("id")) in starts or node.get("title") in starts for node in nodes)
    return len(parts) > 1 and parts[0].isdigit() and not is_known


def _named_files(graph: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """The inputs that name a file of ComfyUI's input folder: what they say, and where they are."""
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            if isinstance(value, str) and not is_address(value) and takes_file(node["class_type"], name):
                yield f"{node['class_type']}.{name} = {value[:60]!r}", (node_id, name)


def _local_files(name: str, value: str, local: LocalFiles, *, uploads: bool) -> list[Path]:
    """The local file that an input names, if it does. Raises InvalidRequest if it names nothing that can be used."""
    if not is_address(value) and (path := local.find(value)) is not None:
        return _to_send(f"{name}: {value[:200]!r}", path, uploads=uploads)
    try:
        parse_source(value)
    except Unusable as problem:
        shown = value[:200]
        missing = (
            "" if is_address(value) else "there is no such file beside the manifest or in the current folder, and "
        )
        raise InvalidRequest(f"{name}: {shown!r}: {missing}{problem}.") from problem
    return []


def _to_send(what: str, path: Path, *, uploads: bool) -> list[Path]:
    if not uploads:
        raise InvalidRequest(f"{what} is a file of this machine: --upload sends it to the stack first.")
    return [path]
