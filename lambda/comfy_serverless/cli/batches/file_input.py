"""Finds the one input of a workflow that takes a file. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.active_nodes import file_inputs
from comfy_serverless.graph.file_inputs import takes_file
from comfy_serverless.graph.lookup import title_of
from comfy_serverless.graph.workflow import is_link


def the_input(graph: Mapping[str, Any]) -> str:
    """The address of the one input of a workflow that takes a file.

    Raises InvalidRequest if there is none, or several: `--input` says which is meant.
    """
    found = [
        f"{node_id}.{name}"
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if takes_file(node["class_type"], name) and not is_link(value)
    ]
    match found:
        case [one]:
            return one
        case []:
            raise InvalidRequest(
                "no input of this workflow takes a file, as far as is known here; --input NODE.INPUT names it."
            )
    raise _several([f"{address} ({title_of(graph[address.rpartition('.')[0]])})" for address in found])


def input_of_editor(workflow: Mapping[str, Any]) -> str:
    """The same of what the editor saved. Raises as `the_input`."""
    match file_inputs(workflow):
        case [one]:
            return one
        case []:
            return the_input({})
        case found:
            raise _several(found)


def _several(found: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"several inputs of this workflow take a file: {', '.join(found[:10])}. --input NODE.INPUT says which."
    )
