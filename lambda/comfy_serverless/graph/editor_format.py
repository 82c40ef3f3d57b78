"""What the editor saved becomes a graph, and goes along with it, where declarations are at hand. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from comfy_serverless.errors import InvalidWorkflow, UiFormatWorkflow
from comfy_serverless.graph.workflow import MAX_DEPTH, is_shallow
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, merged


@dataclass(frozen=True, slots=True)
class Readable:
    """A workflow in API format, and what ComfyUI gets beside it.

    Attributes:
        found: its graph is for `check_format` to judge; the editor's workflow stands in its `extra_data`.
        warnings: what was guessed, left out or rolled when it was converted.
    """

    found: Unwrapped
    warnings: tuple[str, ...] = ()


def in_api_format(
    found: Unwrapped,
    object_info: Mapping[str, Any],
    *,
    supplied: Mapping[str, Any] | None = None,
    seed: str | None = None,
    now: datetime | None = None,
) -> Readable:
    """The same workflow in API format: converted if the editor saved it, and as it is otherwise.

    Args:
        object_info: what ComfyUI declares of its classes, all of them.
        supplied, seed, now: as for `convert`.

    Raises:
        UiFormatWorkflow: it cannot be converted; every reason is in `details["reasons"]`.
        InvalidWorkflow: it has no nodes, or is nested too deep.
    """
    if not is_of_editor(found.workflow):
        return Readable(found)
    from comfy_serverless.graph.convert import convert  # it is loaded with the first workflow of the editor

    check_editor_format(found.workflow)
    made = convert(found.workflow, object_info, supplied=supplied, seed=seed, now=now)
    return Readable(replace(found, workflow=made.graph, extra_data=with_saved(found)), made.warnings)


def with_saved(found: Unwrapped) -> Mapping[str, Any]:
    """What ComfyUI gets beside a workflow of the editor: that, too, for the pictures that it makes to be opened again.

    One that somebody has put there already stays.
    """
    return merged(found.extra_data, {"extra_pnginfo": {"workflow": found.workflow}})


def check_editor_format(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow itself. Raises UiFormatWorkflow if it has no nodes, InvalidWorkflow if it is nested too deep."""
    if not workflow.get("nodes"):
        nothing = "The workflow, which is in the editor's own format, has no nodes: save it again in ComfyUI."
        raise UiFormatWorkflow(nothing, details={"reasons": [{"reason": "no_nodes", "message": nothing}]})
    if not is_shallow(workflow):
        raise InvalidWorkflow(f"The workflow is nested more than {MAX_DEPTH} levels deep.")
    return workflow if isinstance(workflow, dict) else dict(workflow)
