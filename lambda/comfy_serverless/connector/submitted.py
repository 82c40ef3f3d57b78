"""Makes of a workflow what ComfyUI gets. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from comfy_serverless.graph.editor_format import in_api_format
from comfy_serverless.graph.prefixes import fill_prefixes
from comfy_serverless.graph.workflow import as_engine_reads, check_format, check_links
from comfy_serverless.graph.wrappers import Unwrapped


def graph_to_submit(workflow: object, *, now: datetime) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The graph of a workflow in API format as ComfyUI gets it, and what was put right in it, for people.

    Raises:
        InvalidWorkflow: it is no such graph, or has links that lead nowhere.
    """
    graph, mended = as_engine_reads(check_format(workflow))
    check_links(graph)
    graph, about_names = fill_prefixes(graph, now=now)
    return graph, (*mended, *about_names)


def converted_to_submit(
    found: Unwrapped, object_info: Mapping[str, Any], *, seed: str, now: datetime
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The same of a workflow that the editor saved. Raises as `in_api_format`.

    Args:
        seed: what its dynamic prompts are rolled from.
    """
    readable = in_api_format(found, object_info, seed=seed, now=now)
    graph, notes = graph_to_submit(readable.found.workflow, now=now)
    return graph, (*readable.warnings, *notes)
