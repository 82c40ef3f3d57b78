"""The workflow of a request: the graph itself, or an object in S3. What names mean is known to `workflows.finding`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from comfy_serverless.aws.s3 import PinnedAddress
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.fetch.sources import show
from comfy_serverless.graph.editor_files import without_addresses
from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.file_inputs import fetched_addresses, is_address, scheme_of, with_addresses
from comfy_serverless.graph.workflow import apply_set, as_engine_reads, check_format, check_links
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, merged, unwrap
from comfy_serverless.jobs.embedded import workflow_document
from comfy_serverless.jobs.extra_data import MAX_EXTRA_DATA_BYTES, split
from comfy_serverless.json_text import finite

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


#: Returns what ComfyUI declares of its nodes (`/object_info`); None where nobody has told it yet.
Declarations = Callable[[], Mapping[str, Any] | None]


class Resolved(NamedTuple):
    """The workflow of a request as the engine gets it.

    Attributes:
        graph: checked, in API format, with the request's `set` applied. None if the workflow is the editor's, and
            nothing is known here of the nodes that it has: a worker converts it.
        extra_data: what the engine gets with it, of the request and of the file that the workflow stood in.
        warnings: what was put right, left out of that file, or guessed.
        editors: the workflow as the editor saved it; None if it came in API format.
        rolled: its texts that have alternatives, `{red|blue}`, as they were written, by address.
    """

    graph: dict[str, Any] | None
    extra_data: dict[str, Any]
    warnings: list[str]
    editors: dict[str, Any] | None = None
    rolled: Mapping[str, str] = MappingProxyType({})


def nobody_declares() -> None:
    """Declare no nodes: the editor's workflows are left to a worker."""
    return


def graph_of(
    request: JobRequest,
    *,
    s3: S3Client,
    settings: Settings,
    declarations: Declarations = nobody_declares,
    seed: str | None = None,
) -> Resolved:
    """The workflow behind a request.

    Args:
        declarations: asked only if the workflow is the editor's.
        seed: decides what is rolled (`{a|b}`): the job's id. None for the first of the choices.

    Raises:
        MissingAsset: the object in S3 cannot be read, or its bucket is not allowed.
        InvalidRequest: it is a name (`jobs.named` puts a graph in its place before), or it is not JSON.
        InvalidWorkflow: it is no workflow, `set` does not fit it, or links lead nowhere.
        UiFormatWorkflow: it is the editor's, and cannot be converted; every reason is in its details.
    """
    found, warnings = _found_in(*_document(request.workflow, s3=s3, settings=settings))
    extra_data = merged(request.extra_data or {}, found.extra_data)
    if not is_of_editor(found.workflow):
        graph, mended = _checked(check_format(found.workflow), request)
        return Resolved(graph, extra_data, [*warnings, *mended])
    editors = check_editor_format(found.workflow)
    object_info = declarations()
    if object_info is None:
        return Resolved(None, extra_data, warnings, editors)
    from comfy_serverless.graph.convert import convert  # comes with the first workflow of the editor

    conversion = convert(editors, object_info, supplied={**_first_of(request.inputs), **request.values}, seed=seed)
    graph, mended = _checked(check_format(conversion.graph), request)
    along, too_large = goes_along(editors, graph)
    told = [*warnings, *conversion.warnings, *mended, *too_large]
    return Resolved(graph, merged(extra_data, along), told, editors, conversion.rolled)


def resolve_workflow(workflow: dict[str, Any] | str, *, s3: S3Client, settings: Settings) -> dict[str, Any]:
    """The checked workflow behind a request's `workflow`, as it is: it may be the editor's. Raises as `graph_of`."""
    return _either_format(_found_in(*_document(workflow, s3=s3, settings=settings))[0].workflow)


def _either_format(workflow: Mapping[str, Any]) -> dict[str, Any]:
    return check_editor_format(workflow) if is_of_editor(workflow) else check_format(workflow)


def _checked(graph: Mapping[str, Any], request: JobRequest) -> tuple[dict[str, Any], list[str]]:
    """A graph with the request's `set` in it, and what was put right. Raises InvalidWorkflow."""
    whole, mended = as_engine_reads(with_addresses(apply_set(graph, request.values)))
    check_links(whole)
    return whole, mended


def _first_of(inputs: Mapping[str, str | list[str]]) -> dict[str, str]:
    """What stands in a graph for the files that a request gives: the inputs take them, and a batch, later."""
    return {name: given if isinstance(given, str) else next(iter(given), "") for name, given in inputs.items()}


def goes_along(editors: Mapping[str, Any], graph: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The data with which ComfyUI's pictures can be opened in the editor again; or a sentence on why they cannot."""
    fetched = {address for _, address in fetched_addresses(graph, {})}
    data = {"extra_pnginfo": {"workflow": finite(without_addresses(editors, fetched))}}
    size_bytes = len(json.dumps(data))
    if size_bytes <= MAX_EXTRA_DATA_BYTES:
        return data, []
    too_large = (
        f"the editor's workflow has {size_bytes:,} bytes, and at most {MAX_EXTRA_DATA_BYTES:,} go into pictures: they "
        "cannot be opened in the editor"
    )
    return {}, [too_large]


def _found_in(document: Any, warnings: Sequence[str] = ()) -> tuple[Unwrapped, list[str]]:  # noqa: ANN401  (any JSON)
    """The workflow in a document, and what is left out of it. One that has none is judged by its check."""
    found = unwrap(document)
    if found is None:
        return Unwrapped(document), [*warnings]
    extra, secrets = split(found.extra_data)
    return replace(found, extra_data=finite(extra)), [*warnings, *found.left_out(*secrets)]


def _document(workflow: dict[str, Any] | str, *, s3: S3Client, settings: Settings) -> tuple[object, Sequence[str]]:
    """The workflow itself, or what the object has that a request names; and what is left out of it.

    The object may be a picture, video or sound with the workflow inside.
    """
    if isinstance(workflow, dict):
        return workflow, ()
    if not is_address(workflow):
        raise InvalidRequest(
            f"the workflow {workflow[:200]!r} is a name, and names are not taken here: send the workflow itself, or "
            "the s3:// address of one."
        )
    if scheme_of(workflow) != "s3":
        raise InvalidRequest(f"the workflow {show(workflow)} is not fetched: send it itself, or its s3:// address.")
    address, pin = PinnedAddress.parse(workflow)
    allowed = settings.allowed_input_buckets
    if allowed and address.bucket not in allowed:
        raise MissingAsset(
            f"the workflow {address} may not be used: ALLOWED_INPUT_BUCKETS allows {', '.join(allowed)}."
        )
    found = workflow_document(s3, address, what="the workflow", pin=pin)
    return found.document, found.warnings
