"""The workflow that a request names: the graph itself, an object in S3, or a file in `WORKFLOWS_DIR`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.aws.s3 import PinnedAddress, parse_json, read_json
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, MissingAsset
from comfy_serverless.fetch.sources import show
from comfy_serverless.graph.file_inputs import is_address, scheme_of
from comfy_serverless.graph.workflow import apply_set, check_format, check_links

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


def resolve_workflow(workflow: dict[str, Any] | str, *, s3: S3Client, settings: Settings) -> dict[str, Any]:
    """The checked API-format graph behind a request's `workflow`.

    Raises:
        MissingAsset: the object in S3 cannot be read, or its bucket is not allowed.
        InvalidRequest: there is no workflow of that name, or it is not JSON.
        InvalidWorkflow: it is not a workflow in API format.
    """
    if isinstance(workflow, dict):
        return check_format(workflow)
    if not is_address(workflow):
        return named_workflow(workflow, settings.workflows_dir)
    if scheme_of(workflow) != "s3":
        raise InvalidRequest(f"the workflow {show(workflow)} is not fetched: send it itself, or its s3:// address.")
    address, pin = PinnedAddress.parse(workflow)
    allowed = settings.allowed_input_buckets
    if allowed and address.bucket not in allowed:
        raise MissingAsset(
            f"the workflow {address} may not be used: ALLOWED_INPUT_BUCKETS allows {', '.join(allowed)}."
        )
    return check_format(read_json(s3, address, what="the workflow", pin=pin))


def graph_of(request: JobRequest, *, s3: S3Client, settings: Settings) -> dict[str, Any]:
    """The graph of a request: resolved, with its `set` applied, and checked. Raises as `resolve_workflow`."""
    graph = apply_set(resolve_workflow(request.workflow, s3=s3, settings=settings), request.values)
    _check_json(graph)
    check_links(graph)
    return graph


def _check_json(graph: Mapping[str, Any]) -> None:
    """ComfyUI gets the graph as JSON, which has no infinite numbers (`1e999` is one) and no halves of characters."""
    for node_id, node in graph.items():
        try:
            json.dumps({node_id: node}, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise InvalidWorkflow(f"Node {node_id!r} has a value that JSON cannot hold: {error}.") from error


def named_workflow(name: str, folder: Path | None) -> dict[str, Any]:
    """The checked graph in `folder/name.json`; the suffix may be given.

    Raises:
        InvalidRequest: there is no such file in the folder, or it is not JSON.
        InvalidWorkflow: it is not a workflow in API format.
    """
    if folder is None:
        raise InvalidRequest(
            f"the workflow {name[:200]!r} is a name, but WORKFLOWS_DIR is not set: "
            "send the workflow itself, or the s3:// address of one."
        )
    available = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.json")}
    path = available.get(name.removesuffix(".json"))  # a look-up, never a path: names cannot lead out of the folder
    if path is None:
        near = difflib.get_close_matches(name[:200], available, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(available)) or 'none'}."
        raise InvalidRequest(f"there is no workflow {name[:200]!r}; {hint}")
    return check_format(parse_json(path.read_bytes(), source=f"the workflow {name!r}"))
