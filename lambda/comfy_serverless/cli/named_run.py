"""Runs a named workflow, for `comfy-serverless run NAME`: its inputs are options.

NAME ──► what it takes ──► options ──► values, all problems at once ──► files are uploaded ──► a run ──► its outputs
 └─► COMFY_BASE_URL or --remote: of the API;  else: of a folder here, by the ComfyUI of this machine
"""

from __future__ import annotations

import argparse
import secrets
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.documents import Document, workflow_folders
from comfy_serverless.cli.habits import CommandParser, one_line
from comfy_serverless.cli.named import which
from comfy_serverless.cli.named.given import (
    Given,
    Taken,
    add_inputs,
    read_given,
    unknown_in_words,
    without_options,
)
from comfy_serverless.cli.paths import is_folder, local_path
from comfy_serverless.cli.run_options import add_options, is_remote
from comfy_serverless.cli.wishes import check_files, check_folder
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.graph.editor_format import with_saved
from comfy_serverless.graph.inputs import Role
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import SEED_LIMIT
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, unwrap
from comfy_serverless.workflows.reference import LIVE, Reference
from comfy_serverless.workflows.schema import schema_of
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from comfy_serverless.connector.connector import ComfyConnector

_EPILOG = """\
A file on this machine is uploaded; where several are taken, repeat the option. A seed of -1 is drawn.
`--set NAME=VALUE` and `--input NAME=FILE` give an input that is called like another option{also}.
"""


def run(options: argparse.Namespace) -> int:
    """Run the workflow that `options.workflow` names, with the arguments behind it. Returns the exit code."""
    first = _first_look(options.arguments)
    if is_remote(first):
        reference, is_shared = which.meant_by(options.workflow)
        return _run_there(options, first, _with_options(options, first, reference), is_shared=is_shared)
    return _run_here(options, first, _with_options(options, first, which.file_meant_by(options.workflow)))


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """What has to be known before the workflow's own options are."""
    parser = CommandParser(add_help=False, allow_abbrev=False)
    add_options(parser)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-h", "--help", action="store_true", dest="wants_help")
    return parser.parse_known_args(arguments)[0]


def _with_options(options: argparse.Namespace, first: argparse.Namespace, reference: Reference) -> Reference:
    says = reference.version is not None or reference.alias != LIVE
    if says + (first.alias is not None) + (first.version_number is not None) > 1:
        options.wrong_usage("which version? Give one of NAME@…, --alias and --version")
    if first.version_number is not None:
        return Reference(reference.name, None, first.version_number)
    return Reference(reference.name, first.alias) if first.alias is not None else reference


def _parsed(
    options: argparse.Namespace, first: argparse.Namespace, taken: Taken
) -> tuple[argparse.Namespace, Given, list[tuple[str, str]]] | None:
    """What was asked for; None if it was help, which is printed."""
    parser = CommandParser(
        prog=f"comfy-serverless run {options.workflow}",
        usage=f"comfy-serverless run {options.workflow} [INPUTS] [OPTIONS]",
        description=one_line(taken.description or f"Run the named workflow {taken.name}."),
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_inputs(parser, taken)
    also = without_options(parser, taken)
    parser.epilog = _EPILOG.format(also=f": {', '.join(also)}" if also else "")
    if first.wants_help:
        parser.print_help()
        return None
    asked, further = parser.parse_known_args(options.arguments)
    if further:
        parser.error(unknown_in_words(parser, taken, further))
    asked.wrong_usage = parser.error
    given, others = read_given(asked, taken)
    return asked, given, others


def _run_there(options: argparse.Namespace, first: argparse.Namespace, reference: Reference, *, is_shared: bool) -> int:
    from comfy_serverless.cli import remote, remote_run
    from comfy_serverless.cli.named import registry

    api = remote.Api.from_environment()
    alias = None if reference.alias == LIVE else reference.alias
    try:
        told = registry.OverHttp(api).described(
            reference.name, alias=alias, version=reference.version, is_shared=is_shared
        )
    except NotFound as error:
        raise _with_file_here(error, reference) from error
    if "version" not in told:
        raise which.nothing_live(told)
    taken = Taken.of(told)
    parsed = _parsed(options, first, taken)
    if parsed is None:
        return 0
    asked, given, others = parsed
    if asked.log is not None:
        asked.wrong_usage("--log: what the API's ComfyUI logs is there: `comfy-serverless jobs logs ID` shows it")
    if others:
        names = ", ".join(one.name for one in taken.inputs) or "none"
        option, text = others[0]
        address = text.partition("=")[0]
        raise InvalidRequest(f"{option} {address[:100]}: {taken.name} has no such input; it has: {names}.")
    check_files(given.files)
    check_folder(asked.out)
    uploaded, addresses = remote_run.references(api, given.files)
    body = {"inputs": {**given.values, **addresses, **uploaded}, "metadata": dict(asked.labels)}
    if asked.deadline is not None:
        body["deadline_s"] = asked.deadline
    source = "operator" if is_shared else None
    meant = {"alias": alias, "version": reference.version, "sticky": asked.sticky, "source": source}
    meant = {name: value for name, value in meant.items() if value is not None}
    key = uuid.uuid4().hex
    job = remote_run.followed(api, lambda: registry.run(api, reference.name, body, which=meant, idempotency_key=key))
    return remote_run.finish(api, job, (), options=asked)


def _with_file_here(error: NotFound, reference: Reference) -> ComfyError:
    """The error, with a hint at a file of this name."""
    path = _file_here(reference.name)
    hint = f" There is the file {path}: `comfy-serverless run {path}` runs it here." if path is not None else ""
    return NotFound(f"{error.message.rstrip('.')}.{hint}", details=error.details)


def _file_here(name: str) -> Path | None:
    return next((path for folder in workflow_folders() if (path := folder / f"{name}.json").is_file()), None)


def _run_here(options: argparse.Namespace, first: argparse.Namespace, reference: Reference) -> int:
    from comfy_serverless.cli import local_run
    from comfy_serverless.settings import Settings
    from comfy_serverless.workflows.folder import version_of

    path = _file_here(reference.name)
    if path is None:
        folders = ", ".join(dict.fromkeys(str(folder) for folder in workflow_folders()))
        is_there = is_folder(local_path(options.workflow))
        what = f"{options.workflow!r} is a folder" if is_there else f"there is no file {options.workflow!r}"
        raise InvalidRequest(
            f"{what}, and there is no {reference.name}.json in {folders} (WORKFLOWS_DIR names another folder). To run "
            "a workflow that was pushed, set COMFY_BASE_URL and COMFY_API_KEY."
        )
    if reference.version or (reference.alias not in (None, LIVE)) or first.sticky is not None:
        raise InvalidRequest(
            f"{path} is version 0, and has no aliases: a version that was pushed runs where it was pushed. Set "
            "COMFY_BASE_URL and COMFY_API_KEY."
        )
    with ExitStack() as cleanup:
        connector = cleanup.enter_context(local_run.started(first.log, Settings.from_environment()))
        declared = connector.object_info_now()
        version = version_of(path, declared)
        taken = Taken(version.name, version.number, version.inputs, schema_of(version, declared), version.description)
        parsed = _parsed(options, first, taken)
        if parsed is None:
            return 0
        asked, given, others = parsed
        if asked.labels:
            asked.wrong_usage("--label: only a job of the API has labels")
        asked.assignments = others
        return local_run.run_document(_document(version, given, connector), asked, lambda: connector, cleanup)


def _document(version: Version, given: Given, connector: ComfyConnector) -> Document:
    """The workflow with what was given for its inputs, by their addresses."""
    inputs = {one.name: one for one in version.inputs}
    values: dict[str, Any] = {}
    for name, value in given.values.items():
        values |= dict.fromkeys(inputs[name].targets, _drawn(value, inputs[name].targets, inputs[name].role))
    files = {target: origins for name, origins in given.files.items() for target in inputs[name].targets}
    whole: Mapping[str, Any] = version.graph if version.editors is None else version.editors
    found = unwrap(whole) or Unwrapped(dict(whole))
    if not is_of_editor(found.workflow):
        return Document(graph=dict(version.graph), values=values, inputs=files, extra_data=found.extra_data)
    conversion = connector.convert(found.workflow, supplied=values, seed=str(uuid.uuid4()))
    return Document(conversion.graph, values, files, extra_data=with_saved(found), warnings=conversion.warnings)


def _drawn(value: object, targets: tuple[str, ...], role: Role) -> object:
    """The value; a seed of -1 of several nodes is drawn here, as one number for all."""
    is_drawn_later = len(targets) == 1 and targets[0].rpartition(".")[2] in SEED_INPUTS
    return secrets.randbelow(SEED_LIMIT) if role is Role.SEED and value == -1 and not is_drawn_later else value
