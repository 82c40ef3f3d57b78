"""From a file to a version that can be pushed: its graph, its inputs and outputs, what it needs, what is wrong. Pure.

    a document ──► graph_in ──► propose ──► choose ──► needs ──► compat ──► Draft
                   unwrapped,    what a      what its    models,   beside what is deployed
                   converted     person sets author says packs

Every door that pushes goes through `prepare`: the API's PUT, and the operator's command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.errors import EngineUnavailable, InvalidWorkflow
from comfy_serverless.graph.needs import needs_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import Resolved, graph_in
from comfy_serverless.workflows.choosing import Choices, choose
from comfy_serverless.workflows.compat import Finding, Kind, Severity, problems_of
from comfy_serverless.workflows.proposal import Proposal, propose
from comfy_serverless.workflows.reference import check_name
from comfy_serverless.workflows.version import Version

#: The findings that a message names; `details` has all of them.
_NAMED: Final = 10
_NOBODY_TOLD: Final = "no worker has told yet which nodes it has, nor has who deployed it (`make declarations`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What is known of the workers that a workflow is held against.

    Attributes:
        object_info: what their ComfyUI declares.
        lost: the packs that did not import there.
        knows_models: whether a worker has said which models there are; the image alone does not know all of them.
        release: what their image was built from (`release_version`); "" if that is not known.
    """

    object_info: Mapping[str, Any]
    lost: Sequence[NotImported] = ()
    knows_models: bool = True
    release: str = ""

    def problems_of(self, version: Version) -> tuple[Finding, ...]:
        """What is wrong with a version on these workers."""
        return problems_of(version, self.object_info, lost=self.lost, knows_models=self.knows_models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version that nobody has pushed yet.

    Attributes:
        version: its number is 0; the store gives it one.
        proposal: what would be its inputs and outputs if nothing was chosen.
        findings: what is wrong with it on the workers that are deployed.
        notes: what was put right, left out, guessed or not found, for people.
    """

    version: Version
    proposal: Proposal
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def breaking(self) -> tuple[Finding, ...]:
        """The findings by which a run would fail."""
        return tuple(one for one in self.findings if one.breaks)

    def refuse_broken(self) -> None:
        """Raise InvalidWorkflow if a run of it would fail. Not called by those who push in spite of that (`force`)."""
        if self.breaking:
            raise InvalidWorkflow(
                f"{self.version.name} would not run on the workers that are deployed, so it was not pushed: "
                f"{in_one(self.breaking)}. Mend it, or push it all the same: `force` (--force).",
                details={"findings": [one.to_json() for one in self.findings]},
            )


def prepare(
    document: object,
    *,
    name: str,
    owner: str,
    choices: Choices,
    deployed: Deployed | None,
    description: str = "",
    note: str = "",
    created_by: str = "",
    created_at: str = "",
) -> Draft:
    """A version of the workflow in a document, with its proposal and its findings. Nothing is kept, nothing is fetched.

    Args:
        document: JSON in any format and wrapper: the editor's, the API's, what a picture has in it.
        choices: which inputs and outputs it shall have; without any those of the proposal.
        deployed: the workers that it would run on; None if nobody has told what they have.

    Raises:
        InvalidRequest: no workflow may be called so, or the choices do not fit; every mistake is named.
        InvalidWorkflow, UiFormatWorkflow: it is no workflow, or cannot be converted.
        EngineUnavailable: it is the editor's, and nobody has told what the workers have.
    """
    check_name(name)
    object_info = None if deployed is None else deployed.object_info
    whole = graph_in(document, JobRequest(workflow={}), declarations=lambda: object_info)
    graph = _graph(whole)
    editors = whole.editors if whole.editors is not None else _beside(whole.extra_data)
    proposal = propose(graph, object_info, editors=editors)
    inputs, outputs = choose(graph, object_info, inputs=choices.inputs, outputs=choices.outputs, proposal=proposal)
    needs = needs_of(graph, object_info, saved=editors).to_json()
    version = Version(
        name=name,
        number=0,
        owner=owner,
        graph=graph,
        editors=editors,
        rolled=whole.rolled,
        inputs=inputs,
        outputs=outputs,
        needs={part: needs[part] for part in ("models", "nodes", "partner_nodes", "notes") if needs[part]},
        description=description or choices.description,
        note=note,
        created_at=created_at,
        created_by=created_by,
        release="" if deployed is None else deployed.release,
    )
    findings = (_NOT_CHECKED,) if deployed is None else deployed.problems_of(version)
    return Draft(version=version, proposal=proposal, findings=findings, notes=(*whole.warnings, *proposal.notes))


def in_one(findings: Sequence[Finding]) -> str:
    """Findings in one sentence, without a full stop."""
    more = f"; and {len(findings) - _NAMED} more" if len(findings) > _NAMED else ""
    return "; ".join(one.message for one in findings[:_NAMED]) + more


_NOT_CHECKED: Final = Finding(
    kind=Kind.NOT_CHECKED,
    severity=Severity.WARNS,
    message=f"whether it would run is not known: {_NOBODY_TOLD}. `workflows doctor` checks it later",
)


def _graph(whole: Resolved) -> dict[str, Any]:
    if whole.graph is None:
        raise EngineUnavailable(
            f"{_NOBODY_TOLD}, and a workflow of the editor is converted by that: run a job first, of any workflow; "
            "or convert it where ComfyUI is (`comfy-serverless convert FILE`), and push the graph in API format."
        )
    return whole.graph


def _beside(extra_data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The editor's workflow that stood beside a graph in API format, as in ComfyUI's pictures."""
    info = extra_data.get("extra_pnginfo")
    saved = info.get("workflow") if isinstance(info, Mapping) else None
    return saved if isinstance(saved, dict) and isinstance(saved.get("nodes"), list) else None
