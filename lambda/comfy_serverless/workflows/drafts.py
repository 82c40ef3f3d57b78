"""From a file to a version that can be pushed: its graph, its inputs and outputs, what it needs, what is wrong. Pure.

a document ──► graph_in ──► prepare ──► findings_of ──► Draft
               unwrapped,   proposal,   beside what
               converted    choices,    is deployed
                            needs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import Resolved, graph_in
from comfy_serverless.workflows.checkup import Finding
from comfy_serverless.workflows.choosing import Choices
from comfy_serverless.workflows.deployed import NOBODY_TOLD, Deployed, findings_of
from comfy_serverless.workflows.pushing import Prepared, prepare
from comfy_serverless.workflows.reference import check_name
from comfy_serverless.workflows.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version that nobody has pushed yet.

    Attributes:
        prepared: the version, whose number is 0, and the proposal.
        findings: what is wrong with it on the workers that are deployed; `checkup.refuse_broken` refuses it.
        notes: what was put right, left out, guessed or not found, for people.
    """

    prepared: Prepared
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def draft(
    document: object,
    *,
    name: str,
    owner: str,
    choices: Choices,
    deployed: Deployed | None,
    description: str = "",
    note: str = "",
    created_by: str = "",
) -> Draft:
    """A version of the workflow in a document. Nothing is kept, nothing is fetched.

    Args:
        document: JSON in any format and wrapper: the editor's, the API's, what a picture has in it.
        choices: which inputs and outputs it shall have; without any those of the proposal.
        deployed: the workers that it would run on; None if nobody has told what they have.

    Raises:
        InvalidRequest: no workflow may be called so.
        InvalidWorkflow, UiFormatWorkflow: it is no workflow, or cannot be converted.
        EngineUnavailable: it is the editor's, and nobody has told what the workers have.
    """
    object_info = None if deployed is None else deployed.object_info
    whole = graph_in(document, JobRequest(workflow={}), declarations=lambda: object_info)
    bare = Version(
        name=check_name(name),
        number=0,
        owner=owner,
        graph=_graph(whole),
        editors=whole.editors if whole.editors is not None else _beside(whole.extra_data),
        rolled=whole.rolled,
        description=description or choices.description,
        note=note,
        created_by=created_by,
        release="" if deployed is None else deployed.release,
    )
    prepared = prepare(bare, object_info, inputs=choices.inputs, outputs=choices.outputs)
    findings = findings_of(prepared.version, deployed)
    return Draft(prepared=prepared, findings=findings, notes=(*whole.warnings, *prepared.proposal.notes))


def _graph(whole: Resolved) -> dict[str, Any]:
    if whole.graph is None:
        raise EngineUnavailable(
            f"{NOBODY_TOLD}, and a workflow of the editor is converted by that: run a job first, of any workflow; "
            "or convert it where ComfyUI is (`comfy-serverless convert FILE`), and push the graph in API format."
        )
    return whole.graph


def _beside(extra_data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The editor's workflow that stood beside a graph in API format, as in ComfyUI's pictures."""
    info = extra_data.get("extra_pnginfo")
    saved = info.get("workflow") if isinstance(info, Mapping) else None
    return saved if isinstance(saved, dict) and isinstance(saved.get("nodes"), list) else None
