"""Reads what `run` is given: a workflow, a request with one, or a file that ComfyUI has made; a file or stdin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comfy_serverless.cli.made_files import read_value
from comfy_serverless.cli.paths import is_file
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, merged, unwrap
from comfy_serverless.jobs.shapes import shape
from comfy_serverless.json_text import parse_json

#: The fields of a request (docs/a-job.md) that a run here has a use for, and those that it has none for.
_USED = ("workflow", "set", "inputs", "deadline_s", "extra_data")
_UNUSED = ("job_id", "models", "output", "reply", "metadata")


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow to be run, and what was written beside it.

    Attributes:
        graph: checked; empty for one that the editor saved, as long as it is not converted (`cli.converting`).
        values: `set` of a request.
        inputs: `inputs` of a request.
        beside: fields of a request that mean nothing for a run on this machine.
        extra_data: what ComfyUI gets beside the workflow.
        warnings: what was left out of what was read, for people.
        named: the name or the address of a workflow that is not on this machine; the graph is empty then.
        editors: the workflow as the editor saved it, not converted yet; empty if there is none.
    """

    graph: dict[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    named: str = ""
    editors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of those fields."""
        return tuple(self.beside)


def read_document(name: str, *, elsewhere: bool = False) -> Document:
    """Read a file, or stdin for `-`.

    Args:
        elsewhere: the workflow that a request names need not be on this machine. Then `Document.named` has the name.

    Raises:
        InvalidRequest: it cannot be read, or is not what is wanted.
        InvalidWorkflow: the workflow is none.
    """
    value, warnings = read_value(name)
    document = _document(value, elsewhere=elsewhere)
    return replace(document, warnings=(*document.warnings, *warnings))


def _document(value: object, *, elsewhere: bool) -> Document:
    shaped = shape(value, known=(*_USED, *_UNUSED))
    fields = shaped.fields
    if "workflow" not in fields:
        return Document(check_format(value))  # which says what it is instead
    _check(fields)
    workflow, named, beside = fields["workflow"], "", fields.get("extra_data", {})
    if isinstance(workflow, str):
        path = _find(workflow)
        if path is None and not elsewhere:
            raise _not_here(workflow)
        content = None if path is None else parse_json(path.read_bytes(), source=f"the workflow {path}")
        if path is not None:
            fields = {**fields, **_by_address(path, fields)}
        found = unwrap(content) or Unwrapped(content)  # type: ignore[arg-type]  # its check says what it is
        workflow, named = ({}, workflow) if content is None else (found.workflow, "")
        beside = merged(beside, found.extra_data)
    is_editors = is_of_editor(workflow)
    return Document(
        {} if named or is_editors else check_format(workflow),
        fields.get("set", {}),
        fields.get("inputs", {}),
        fields.get("deadline_s"),
        {name: fields[name] for name in _UNUSED if name in fields},
        beside,
        shaped.warnings,
        named,
        check_editor_format(workflow) if is_editors else {},
    )


def _check(fields: Mapping[str, Any]) -> None:
    """Check the fields of a request as every door does. Raises InvalidRequest, naming what is wrong."""
    try:
        from comfy_serverless.jobs.request import JobRequest
    except ModuleNotFoundError as error:  # pydantic comes with the extra `aws`, and a run here does without it
        if (error.name or "comfy_serverless").partition(".")[0] == "comfy_serverless":
            raise
        check_plainly(fields)
    else:
        JobRequest.parse(fields)


def check_plainly(fields: Mapping[str, Any]) -> None:
    """Check those fields of a request that are used here. Raises InvalidRequest, naming what is wrong. No IO."""
    for name in sorted(set(fields) - {*_USED, *_UNUSED}):
        raise InvalidRequest(
            f"The request has a field that no request has: {name}; it has {', '.join((*_USED, *_UNUSED))}."
        )
    for name in ("set", "inputs", "extra_data", "metadata"):
        if not isinstance(fields.get(name, {}), Mapping):
            raise InvalidRequest(f'`{name}` of the request must be an object: {{"3.seed": 42}}.')
    if not isinstance(fields["workflow"], str):  # the inputs of one that is named may be anything
        _check_files(fields.get("inputs", {}))
    if not all(isinstance(value, str) for value in fields.get("metadata", {}).values()):
        raise InvalidRequest("`metadata` of the request must have texts as its values.")
    if not isinstance(fields.get("job_id", ""), str):
        raise InvalidRequest("`job_id` of the request must be a text.")
    if not isinstance(fields["workflow"], Mapping | str) or not fields["workflow"]:
        raise InvalidRequest("`workflow` of the request must be a workflow, or the name of one.")
    deadline_s = fields.get("deadline_s", 0)
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not 0 <= deadline_s < float("inf"):
        raise InvalidRequest("`deadline_s` of the request must be a number of seconds.")


def _by_address(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`set` and `inputs` of a request, by addresses: its inputs may go by the names that those of the file have."""
    given = fields.get("inputs", {})
    if all("." in name for name in given):
        return {}
    from comfy_serverless.workflows.folder import version_of

    known = {one.name: one for one in version_of(path, None).inputs}
    values: dict[str, Any] = dict(fields.get("set", {}))
    files: dict[str, Any] = {}
    for name, value in given.items():
        one = known.get(name)
        targets = (name,) if one is None else one.targets
        (files if one is None or one.kind is InputKind.FILE else values).update(dict.fromkeys(targets, value))
    _check_files(files)
    return {"set": values, "inputs": files}


def _check_files(given: Mapping[str, Any]) -> None:
    for address, value in given.items():
        items = value if isinstance(value, list) and value else [value]
        if not all(isinstance(item, str) for item in items):
            raise InvalidRequest(f"inputs.{address} of the request must be a text, or a list of texts for a batch.")


def _find(workflow: str) -> Path | None:
    """The file that a request names; None if there is no such file here."""
    candidates = [folder / name for folder in workflow_folders() for name in (workflow, f"{workflow}.json")]
    return next((path for path in candidates if is_file(path)), None)


def _not_here(workflow: str) -> InvalidRequest:
    return InvalidRequest(
        f"The request names the workflow {workflow[:200]!r}, and there is no such file in "
        f"{', '.join(dict.fromkeys(map(str, workflow_folders())))} (WORKFLOWS_DIR names another folder)."
    )


def workflow_folders() -> list[Path]:
    """The folders in which a workflow has a name on this machine."""
    from comfy_serverless.settings import Settings

    return [folder for folder in (Settings.from_environment().workflows_dir, Path("workflows"), Path()) if folder]
