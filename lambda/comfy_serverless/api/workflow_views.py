"""How named workflows, and their versions, are shown. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from comfy_serverless.api.workflow_bodies import (
    Finding,
    Move,
    Problem,
    Proposed,
    Pushed,
    VersionEntry,
    Workflow,
    WorkflowEntry,
    WorkflowVersion,
)
from comfy_serverless.api.workflow_openapi import Described
from comfy_serverless.errors import ComfyError
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows import checkup, items
from comfy_serverless.workflows.example import example_of
from comfy_serverless.workflows.items import Head, VersionRow, weights_json
from comfy_serverless.workflows.renewal import renewed
from comfy_serverless.workflows.schema import schema_of
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from comfy_serverless.workflows.pushing import Prepared

OWN, SHARED, IMAGE = "own", "operator", "image"


def aliases_json(head: Head) -> dict[str, dict[str, Any]]:
    """Where each alias leads."""
    return {name: {"weights": weights_json(one.weights)} for name, one in sorted(head.aliases.items())}


def entry(head: Head) -> WorkflowEntry:
    """A workflow in a list."""
    return WorkflowEntry(**_entry(head))


def entry_of_file(name: str) -> WorkflowEntry:
    """A workflow in the image's folder."""
    return WorkflowEntry(name=name, source=IMAGE, latest=0, aliases={})


def described(
    head: Head | None, version: Version | None, object_info: Mapping[str, Any] | None, *, name: str
) -> Workflow:
    """A workflow with what one of its versions takes and makes.

    Args:
        head: None for a file in the image's folder.
        version: None if the alias leads nowhere.
        object_info: what the workers declare now, for the choices.
    """
    facts = _entry(head) if head is not None else entry_of_file(name).model_dump()
    history = [] if head is None or head.owner == OPERATOR else [_move(move) for move in head.history]
    if version is None:
        return Workflow(**facts, history=history)
    return Workflow(
        **facts,
        history=history,
        version=version.number,
        description=version.description,
        inputs=[one.to_json() for one in renewed(version, object_info)],
        outputs=[one.to_json() for one in version.outputs],
        json_schema=schema_of(version, object_info),
        example=example_of(version, object_info),
    )


def as_described(version: Version, object_info: Mapping[str, Any] | None) -> Described:
    """A workflow as the OpenAPI document has it."""
    title, _, rest = version.description.strip().partition("\n")
    return Described(
        name=version.name,
        title=title,
        description=rest.strip() or title,
        schema=schema_of(version, object_info),
        example=example_of(version, object_info),
    )


def version_entry(row: VersionRow, head: Head) -> VersionEntry:
    """A version in a list."""
    return VersionEntry(
        number=row.number,
        created_at=row.created_at,
        created_by=row.created_by,
        note=row.note,
        release=row.release,
        sha256=row.sha256,
        aliases=sorted(name for name, one in head.aliases.items() if row.number in one.weights),
    )


def whole_version(version: Version) -> WorkflowVersion:
    """A version with its graph, the same for ever."""
    return WorkflowVersion(
        name=version.name,
        number=version.number,
        created_at=version.created_at,
        created_by=version.created_by,
        note=version.note,
        release=version.release,
        description=version.description,
        sha256=version.content_sha256,
        inputs=[one.to_json() for one in version.inputs],
        outputs=[one.to_json() for one in version.outputs],
        json_schema=schema_of(version),
        needs=dict(version.needs),
        workflow=dict(version.graph),
        editors=None if version.editors is None else dict(version.editors),
    )


def pushed(
    version: Version,
    object_info: Mapping[str, Any] | None,
    *,
    notes: tuple[str, ...],
    is_new: bool,
    head: Head | None,
    findings: Iterable[checkup.Finding] = (),
) -> Pushed:
    """What a push has kept."""
    return Pushed(
        name=version.name,
        version=version.number,
        is_new=is_new,
        aliases={} if head is None else aliases_json(head),
        inputs=[one.to_json() for one in renewed(version, object_info)],
        outputs=[one.to_json() for one in version.outputs],
        json_schema=schema_of(version, object_info),
        findings=findings_json(findings),
        notes=list(notes),
    )


def findings_json(findings: Iterable[checkup.Finding]) -> list[Finding]:
    """What is wrong with a version, as the API shows it."""
    return [Finding(**one.to_json()) for one in findings]


def would_be(
    prepared: Prepared,
    object_info: Mapping[str, Any] | None,
    *,
    notes: tuple[str, ...],
    findings: Iterable[checkup.Finding] = (),
) -> Pushed:
    """What a push would keep, and why it would not."""
    version, found = prepared.version, prepared.proposal
    return Pushed(
        name=version.name,
        inputs=[one.to_json() for one in renewed(version, object_info)],
        outputs=[one.to_json() for one in version.outputs],
        json_schema=schema_of(version, object_info),
        proposal=Proposed(
            inputs=[one.to_json() for one in found.inputs], outputs=[one.to_json() for one in found.outputs]
        ),
        problems=problems_of(prepared.refusal),
        findings=findings_json(findings),
        notes=list(notes),
    )


def problems_of(refusal: ComfyError | None) -> list[Problem]:
    """What a refusal says of each part of a request, or of all of it."""
    if refusal is None:
        return []
    listed = refusal.details.get("errors")
    if not isinstance(listed, list):
        return [Problem(field="request", problem=refusal.message)]
    return [Problem(field=str(one["field"]), problem=str(one["problem"])) for one in listed]


def _entry(head: Head) -> dict[str, Any]:
    return {
        "name": head.name,
        "source": SHARED if head.is_shared else OWN,
        "title": head.title,
        "latest": head.latest,
        "aliases": aliases_json(head),
        "updated_at": head.updated_at or None,
    }


def _move(move: items.Move) -> Move:
    return Move(
        alias=move.alias, weights=weights_json(move.after), before=weights_json(move.before), at=move.at, by=move.by
    )
