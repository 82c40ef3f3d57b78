"""`PUT /api/v2/workflows/{name}`: from what somebody sends to a version, or to what would be one.

the workflow, in any wrapper ──► a graph ──► inputs: found, or chosen ──► the document in S3, the head in the table
                                                             └─ a dry run ends here

A dry run also looks at what the editor saved with classes that nobody has declared: by what the file itself says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.api.conversion import whole_of
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.document import first_warnings
from comfy_serverless.jobs.references import refuse_foreign_addresses
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import owner_prefix
from comfy_serverless.jobs.workflow_source import resolve_workflow
from comfy_serverless.workflows.reference import check_alias, check_name
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from comfy_serverless.api.auth import Caller
    from comfy_serverless.api.services import Services
    from comfy_serverless.api.workflow_bodies import PushBody
    from comfy_serverless.graph.convert.stand_ins import StandIns
    from comfy_serverless.workflows.checkup import Finding
    from comfy_serverless.workflows.pushing import Prepared


@dataclass(frozen=True, slots=True)
class Draft:
    """A version as it would be kept, what is wrong with it on the workers, and what was said on the way."""

    prepared: Prepared
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def draft(name: str, body: PushBody, who: Caller, behind: Services, *, left_out: tuple[str, ...]) -> Draft:
    """Look at a push; nothing is written.

    A dry run takes a file of the editor's whatever the workers have: what nobody has declared is shown as the file
    tells it, which `notes` say, and `findings` has each class that is missing.

    Raises:
        InvalidRequest: the name or the alias cannot be one.
        InvalidWorkflow: it is no workflow, or cannot be converted.
        EngineUnavailable: it is the editor's, no dry run, and nobody has told yet which nodes the workers have.
    """
    # No run of a job waits for these, and what finds inputs.
    from comfy_serverless.workflows.deployed import Deployed, findings_of
    from comfy_serverless.workflows.pushing import prepare, unknown_ranges

    check_name(name)
    if body.alias is not None:
        check_alias(body.alias)
    _check_addresses((body.workflow, body.extra_data), who, behind)
    instead = _stand_ins(body.workflow, behind) if body.dry_run else None
    declared = behind.declarations.newest() if instead is None else instead.object_info
    whole = whole_of(JobRequest.parse({"workflow": body.workflow}), behind, declared=declared)
    editors = whole.editors or _saved_in(body.extra_data) or _saved_in(whole.extra_data)
    _check_addresses((whole.graph, editors), who, behind)
    bare = Version(
        name=name,
        number=0,
        owner=who.owner,
        graph=whole.graph,
        editors=editors,
        rolled=whole.rolled,
        description=body.description,
        note=body.note,
        created_by=who.key_name,
        release=behind.workers.release()[1],
    )
    prepared = prepare(bare, declared, inputs=body.inputs, outputs=body.outputs)
    undeclared = () if instead is None else instead.notes
    notes = (*undeclared, *prepared.proposal.notes, *unknown_ranges(prepared.version))
    told = (*left_out, *_unused(body.extra_data or {}), *whole.warnings, *notes)
    findings = findings_of(prepared.version, Deployed.told(behind.declarations, behind.node_list.not_imported))
    return Draft(prepared, findings, first_warnings(dict.fromkeys(told)))


def _stand_ins(workflow: dict[str, Any] | str, behind: Services) -> StandIns | None:
    """What to look at a workflow of the editor with, if nobody has declared all of its classes; else None."""
    found = resolve_workflow(workflow, s3=behind.s3, settings=behind.settings)
    if not is_of_editor(found):
        return None
    from comfy_serverless.graph.convert.stand_ins import stand_ins

    instead = stand_ins(found, behind.declarations.newest() or {})
    return instead if instead.classes else None


def _check_addresses(document: object, who: Caller, behind: Services) -> None:
    """Raise MissingAsset if it names files in our own buckets that are not the caller's results."""
    buckets = {behind.assets_bucket, behind.output_bucket}
    own = f"s3://{behind.output_bucket}/{owner_prefix(who.owner, behind.settings)}/"
    refuse_foreign_addresses(document, buckets=buckets, allowed_prefix=own)


def _saved_in(extra_data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The editor's workflow that goes along with a graph, into pictures; None if there is none."""
    info = (extra_data or {}).get("extra_pnginfo")
    saved = info.get("workflow") if isinstance(info, Mapping) else None
    return dict(saved) if isinstance(saved, Mapping) and is_of_editor(saved) else None


def _unused(extra_data: Mapping[str, Any]) -> list[str]:
    """A sentence on the data for ComfyUI that no version keeps: each run brings its own."""
    info = extra_data.get("extra_pnginfo")
    names = [name for name in extra_data if name != "extra_pnginfo"]
    if isinstance(info, Mapping):
        names += [f"extra_pnginfo.{name}" for name in info if name != "workflow"]
    shown = ", ".join(repr(name[:60]) for name in sorted(names)[:20])
    return [f"not kept, because each run brings its own `extra_data`: {shown}"] if shown else []
