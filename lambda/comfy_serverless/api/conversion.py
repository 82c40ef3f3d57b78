"""A workflow's graph in API format, for routes that cannot leave the conversion to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.jobs.workflow_source import graph_of

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services
    from comfy_serverless.jobs.request import JobRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A workflow with its graph.

    Attributes:
        extra_data, warnings, editors, rolled: see `jobs.workflow_source.Resolved`.
    """

    graph: dict[str, Any]
    extra_data: dict[str, Any]
    warnings: list[str]
    editors: dict[str, Any] | None
    rolled: dict[str, str]


def whole_of(
    request: JobRequest, behind: Services, *, seed: str | None = None, declared: Mapping[str, Any] | None = None
) -> Whole:
    """The workflow of a request, converted by what the workers have told last. Nothing is run.

    Args:
        declared: converts it instead of that.

    Raises:
        EngineUnavailable: it is the editor's, and nobody has told yet which nodes the workers have.
        ComfyError: as `graph_of`.
    """
    declarations = behind.declarations.newest if declared is None else lambda: declared
    found = graph_of(request, s3=behind.s3, settings=behind.settings, declarations=declarations, seed=seed)
    if found.graph is None:
        raise nodes_unknown(
            "a workflow of the editor is converted by that: run a job first, of any workflow; or convert it where "
            "ComfyUI is (`comfy-serverless convert`)."
        )
    return Whole(
        graph=found.graph,
        extra_data=found.extra_data,
        warnings=found.warnings,
        editors=found.editors,
        rolled=dict(found.rolled),
    )


def nodes_unknown(what_for: str) -> EngineUnavailable:
    """The refusal while nobody has told which nodes the workers have; `what_for` it is needed, and what to do."""
    return EngineUnavailable(
        f"no worker has told yet which nodes it has, nor has who deployed it (`make declarations`), and {what_for}"
    )
