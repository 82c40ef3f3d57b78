"""Workflows by their names on this machine: files in WORKFLOWS_DIR, or in `workflows/`, run by a `ComfyConnector`.

    "poster", {"prompt": "a fox", "photo": "fox.png"} ──► values checked ──► files given to ComfyUI ──► what `run` takes

Nothing here needs the libraries of AWS.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.editor_format import with_saved
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.graph.lookup import NodeLookup, NothingMeant
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.workflow import SEED_LIMIT, apply_set, draw_seeds
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, unwrap
from comfy_serverless.workflows.check import InputCheck
from comfy_serverless.workflows.folder import Folder
from comfy_serverless.workflows.reference import LIVE, Reference
from comfy_serverless.workflows.version import NamedInput, Version

if TYPE_CHECKING:
    from comfy_serverless.graph.convert import Conversion

_MOST_LISTED = 20


class Connector(Protocol):
    """What is asked of the `ComfyConnector`."""

    def object_info(self) -> Mapping[str, Any]: ...

    def upload_file(self, file: Path, name: str) -> str: ...

    def convert(
        self, workflow: Mapping[str, Any], *, supplied: Mapping[str, Any] | None = None, seed: str | None = None
    ) -> Conversion: ...


def workflow_here(
    name: str, inputs: Mapping[str, Any], *, connector: Connector, folder: Path | None
) -> Mapping[str, Any]:
    """A workflow of this machine as `ComfyConnector.run` takes it, with values in it.

    Args:
        name: of a file in the folder, also `poster@0`. What was pushed runs where it was pushed.
        inputs: values by the names of inputs, or by addresses in the graph; a file by its path, or by its name in
            ComfyUI's input folder.
        folder: WORKFLOWS_DIR; None for `workflows` in the current folder.

    Raises:
        InvalidRequest: there is no such file, or the inputs do not fit; `details["errors"]` has every problem.
        InvalidWorkflow: it is no workflow.
    """
    declared = connector.object_info()
    version = _version(name, Folder(folder or Path("workflows")), declared)
    by_name = {one.name: one for one in version.inputs}
    _check(version, inputs, declared)
    values: dict[str, Any] = {}
    for called, value in inputs.items():
        one = by_name.get(called)
        if one is None:
            values[called] = value
        else:
            values |= dict.fromkeys(one.targets, _value(one, value, connector))
    document: Mapping[str, Any] = version.graph if version.editors is None else version.editors
    found = unwrap(document) or Unwrapped(document)
    if not is_of_editor(found.workflow):
        graph, beside = version.graph, found.extra_data
    else:
        graph = connector.convert(found.workflow, supplied=values, seed=str(uuid.uuid4())).graph
        beside = with_saved(found)
    return {"prompt": draw_seeds(apply_set(graph, values))[0], "extra_data": beside}


def _version(name: str, folder: Folder, declared: Mapping[str, Any]) -> Version:
    bare = name.removesuffix("@0").removesuffix(f"@{LIVE}")
    if (version := folder.version(bare, declared)) is not None:
        return version
    if os.path.isfile(name):  # noqa: PTH113  (it takes every text, also one that is no path)
        raise InvalidRequest(
            f"{name[:200]!r} is a file, and a text is the name of a workflow in {folder.path}: give what is in the "
            "file, as `ComfyConnector.load_payload(…)` reads it."
        )
    near = Guesses().near(bare, folder.names())
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(folder.names()[:_MOST_LISTED]) or 'none'}."
    pushed = " A version that was pushed runs where it was pushed, over HTTP." if _is_pushed(name) else ""
    raise InvalidRequest(f"there is no workflow {name[:200]!r} in {folder.path}; {hint}{pushed}")


def _is_pushed(name: str) -> bool:
    try:
        reference = Reference.parse(name)
    except InvalidRequest:
        return False
    return bool(reference.version) or (reference.alias is not None and reference.alias != LIVE)


def _check(version: Version, inputs: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Raise InvalidRequest with every problem of the values by names; what is no name must be an address."""
    names, lookup = {one.name for one in version.inputs}, NodeLookup(version.graph)
    check = InputCheck.of(version, declared)
    others = {name: value for name, value in inputs.items() if name not in names and not _is_meant(lookup, name)}
    named = {name: value for name, value in inputs.items() if name in names}
    problems = [
        {"field": f"inputs.{told.field}", "problem": told.problem} for told in check.problems({**named, **others})
    ]
    if problems:
        listing = "; ".join(f"{one['field']}: {one['problem']}" for one in problems[:_MOST_LISTED])
        raise InvalidRequest(
            f"The workflow {version.name!r} cannot run so: {listing}.", details={"errors": problems[:100]}
        )


def _is_meant(lookup: NodeLookup, address: str) -> bool:
    try:
        return bool(lookup.resolve(address))
    except NothingMeant:
        return False


def _value(one: NamedInput, value: Any, connector: Connector) -> Any:  # noqa: ANN401  (any JSON value)
    """A value as it is put into the graph."""
    if one.kind is InputKind.FILE:
        return _file(one, value, connector)
    if one.role is Role.SEED and value == -1:
        return secrets.randbelow(SEED_LIMIT)
    return int(value) if one.kind is InputKind.INTEGER and isinstance(value, float) else value


def _file(one: NamedInput, value: Any, connector: Connector) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str) or is_address(value):
        raise InvalidRequest(
            f"inputs.{one.name}: the connector fetches nothing, and gives ComfyUI one file: give the path of a file on "
            "this machine. `comfy-serverless run` takes addresses, and several files."
        )
    path = Path(value).expanduser()
    return connector.upload_file(path, path.name) if path.is_file() else value
