"""Makes of a workflow what ComfyUI gets. No IO."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.editor_format import Readable
from comfy_serverless.graph.prefixes import fill_prefixes
from comfy_serverless.graph.workflow import as_engine_reads, check_format, check_links

#: What to do if the embedded engine does not have a class: a sentence without its full stop.
EMBEDDED_LACKS = (
    "The embedded engine has ComfyUI's model-free image nodes only: "
    "set COMFYUI_DIR or COMFYUI_URL to run the workflow on your own ComfyUI"
)


def graph_to_submit(workflow: object, *, now: datetime | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The graph of a workflow in API format as ComfyUI gets it, and what was put right in it, for people.

    `now` as for `fill_prefixes`.

    Raises:
        InvalidWorkflow: it is no such graph, or has links that lead nowhere.
    """
    graph, mended = as_engine_reads(check_format(workflow))
    check_links(graph)
    graph, about_names = fill_prefixes(graph, now=now)
    return graph, (*mended, *about_names)


def converted_to_submit(readable: Readable, *, now: datetime) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The same of a workflow that was converted."""
    graph, notes = graph_to_submit(readable.found.workflow, now=now)
    return graph, (*readable.warnings, *notes)


def with_hint(error: UiFormatWorkflow, *, is_embedded: bool) -> UiFormatWorkflow:
    """The refusal of a conversion; where the embedded engine lacks a class, with what has it instead of a pack."""
    if is_embedded and any(reason.get("reason") == "missing_node_type" for reason in error.details.get("reasons", ())):
        from comfy_serverless.graph.convert.findings import INSTALL_IT

        told = error.message.replace(INSTALL_IT, "").rstrip(". ")
        return UiFormatWorkflow(f"{told}. {EMBEDDED_LACKS}", details=error.details)
    return error
