"""The workflow that a request names: the graph itself, an object in S3, or a file in `WORKFLOWS_DIR`."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from comfy_serverless.aws.s3 import S3Address, read_json
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.fetch.sources import show
from comfy_serverless.graph.file_inputs import is_address, scheme_of, with_addresses
from comfy_serverless.graph.workflow import apply_set, as_engine_reads, check_format, check_links
from comfy_serverless.graph.wrappers import Unwrapped, merged, unwrap
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.json_text import finite, parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


class Resolved(NamedTuple):
    """The workflow of a request as the engine gets it.

    Attributes:
        graph: checked, in API format, with the request's `set` applied.
        extra_data: what the engine gets with it, of the request and of the file that the workflow stood in.
        warnings: what was put right, or left out of that file.
    """

    graph: dict[str, Any]
    extra_data: dict[str, Any]
    warnings: list[str]


def graph_of(request: JobRequest, *, s3: S3Client, settings: Settings) -> Resolved:
    """The workflow behind a request.

    Raises:
        MissingAsset: the object in S3 cannot be read, or its bucket is not allowed.
        InvalidRequest: there is no workflow of that name, or it is not JSON.
        InvalidWorkflow: it is not a workflow in API format, `set` does not fit it, or links lead nowhere.
    """
    found, warnings = _found_in(_document(request.workflow, s3=s3, settings=settings))
    graph = with_addresses(apply_set(check_format(found.workflow), request.values))
    graph, mended = as_engine_reads(graph)
    check_links(graph)
    return Resolved(graph, merged(request.extra_data or {}, found.extra_data), [*warnings, *mended])


def resolve_workflow(workflow: dict[str, Any] | str, *, s3: S3Client, settings: Settings) -> dict[str, Any]:
    """The checked graph behind a request's `workflow`, before its `set` is applied. Raises as `graph_of`."""
    return check_format(_found_in(_document(workflow, s3=s3, settings=settings))[0].workflow)


def named_workflow(name: str, folder: Path | None) -> dict[str, Any]:
    """The checked graph in `folder/name.json`; the suffix may be given.

    Raises:
        InvalidRequest: there is no such file in the folder, or it is not JSON.
        InvalidWorkflow: it is not a workflow in API format.
    """
    return check_format(_found_in(_named(name, folder))[0].workflow)


def _found_in(document: Any) -> tuple[Unwrapped, list[str]]:  # noqa: ANN401  (any JSON value)
    """The workflow in a document, and what is left out of it. One that has none is judged by its check."""
    found = unwrap(document)
    if found is None:
        return Unwrapped(document), []
    extra, secrets = split(found.extra_data)
    return replace(found, extra_data=finite(extra)), found.left_out(*secrets)


def _document(workflow: dict[str, Any] | str, *, s3: S3Client, settings: Settings) -> object:
    """The workflow itself, or what the object or the file has that a request names."""
    if isinstance(workflow, dict):
        return workflow
    if not is_address(workflow):
        return _named(workflow, settings.workflows_dir)
    if scheme_of(workflow) != "s3":
        raise InvalidRequest(f"the workflow {show(workflow)} is not fetched: send it itself, or its s3:// address.")
    address = S3Address.parse(workflow)
    allowed = settings.allowed_input_buckets
    if allowed and address.bucket not in allowed:
        raise MissingAsset(
            f"the workflow {address} may not be used: ALLOWED_INPUT_BUCKETS allows {', '.join(allowed)}."
        )
    return read_json(s3, address, what="the workflow")


def _named(name: str, folder: Path | None) -> object:
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
    return parse_json(path.read_bytes(), source=f"the workflow {name!r}")
