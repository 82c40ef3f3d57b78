"""Gives every job its own folder, below the engine's output and temp folders. Pure.

So the names of its files depend on nothing that ran before, no job finds another's, ComfyUI (which lists a folder
before it writes into it) stays quick, and in the end there is one folder to remove.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.lookup import listing
from comfy_serverless.graph.nodes import known
from comfy_serverless.graph.workflow import copy_graph, is_link

#: The folder that the folders of jobs are in. Only jobs write there, so it may be removed with all that is in it.
JOBS_FOLDER = "comfy-serverless"
#: An input for nodes that choose the names of their previews. Unless something about them changes they are not run
#: again, and name the files of a job that is over. An input that they do not declare is no argument of theirs, but
#: counts as such a change (ComfyUI 0.3.64 and 0.33.0: `get_input_data`, `get_immediate_node_signature`).
_CHANGE = "comfy_serverless_job"
#: The name that ComfyUI's own savers give a file when the workflow gives none.
_DEFAULT_NAME = "ComfyUI"


def folder_of(job_id: str) -> str:
    """The folder of a job, relative to the engine's output and temp folders. Job ids are harmless as names."""
    return f"{JOBS_FOLDER}/{job_id}"


def in_own_folder(graph: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """A copy of a checked graph whose savers write into the job's folder; nodes before them stay as they are (cached).

    Raises InvalidWorkflow if a `filename_prefix` leads out of it, or is no text.
    """
    folder = folder_of(job_id)
    result = copy_graph(graph)
    problems: dict[str, str] = {}
    for node_id, node in result.items():
        inputs = node["inputs"]
        if "filename_prefix" in inputs and not is_link(prefix := inputs["filename_prefix"]):
            path = PurePosixPath(str(prefix).replace("\\", "/"))
            if not isinstance(prefix, str | int | float):
                problems[node_id] = "filename_prefix is no text"
            elif path.is_absolute() or ".." in path.parts:
                problems[node_id] = f"filename_prefix {str(prefix)[:200]!r} leads out of the job's output folder"
            # Without a name ComfyUI would take the folder's for one.
            inputs["filename_prefix"] = f"{folder}/{prefix if path.parts else _DEFAULT_NAME}"
        elif known(node["class_type"]).names_preview:
            inputs[_CHANGE] = job_id
    if problems:
        raise InvalidWorkflow(
            f"{listing(problems, form='Node {}: {}')}. Use a name, or a folder below it: 'ComfyUI' or 'today/fox'.",
            details={"node_errors": problems},
        )
    return result
