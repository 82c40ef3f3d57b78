"""A caller's request as a worker gets it: checked, with his files' addresses in it, and a place for results.

    POST /api/v2/jobs, /generate, runs, agents ──► the API makes it            ┐
    a line of a caller's batch ──► `ingest` makes it, when it reads the line   ┴──► a stored request, kept in S3

What a caller may name is the same at every door. What is dropped, sent or invoked with a role of the operator's is
judged elsewhere (`jobs.reserved`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.errors import InvalidRequest, UiFormatWorkflow
from comfy_serverless.jobs.buckets import Buckets
from comfy_serverless.jobs.references import known_files, refuse_foreign_addresses, resolve_assets, uploaded_inputs
from comfy_serverless.jobs.request import JobRequest, OutputTarget
from comfy_serverless.jobs.reserved import owner_prefix
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.jobs.workflow_source import Resolved, graph_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.jobs.references import Assets
    from comfy_serverless.settings import Settings


class Behind(Protocol):
    """What is asked about a request.

    Attributes:
        assets: who has which uploaded file.
        node_list, declarations: what workers have told of their nodes.
        assets_bucket, output_bucket: where the files of all owners are.
    """

    @property
    def s3(self) -> S3Client: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def assets(self) -> Assets: ...

    @property
    def node_list(self) -> NodeListReader: ...

    @property
    def declarations(self) -> DeclarationsReader: ...

    @property
    def assets_bucket(self) -> str: ...

    @property
    def output_bucket(self) -> str: ...


def place_of(owner: str, settings: Settings, *, bucket: str) -> OutputTarget:
    """Where the results of an owner's jobs go."""
    return OutputTarget(bucket=bucket, prefix=owner_prefix(owner, settings))


def check_places(request: JobRequest, owner: str, settings: Settings, *, buckets: tuple[str, str]) -> None:
    """Raise InvalidRequest or MissingAsset if a request itself names a place that is not its caller's. No IO.

    Args:
        buckets: that of assets, and that of outputs.
    """
    if request.output.bucket is not None or request.output.prefix is not None:
        raise InvalidRequest(
            "`output` is not possible here: results are kept with the job, and are downloaded by links."
        )
    document = (request.workflow, request.model_dump(mode="json", exclude={"workflow", "extra_data"}))
    refuse_foreign_addresses(document, buckets=set(buckets), allowed_prefix=_own(owner, settings, buckets[1]))


def runnable(request: JobRequest, owner: str, behind: Behind, *, job_id: str) -> StoredRequest:
    """The request for the worker, with assets resolved and a place for results; and the workflow as the caller sent it.

    What the editor saved is converted here if workers have told lately what nodes they have; else by the worker.

    Args:
        request: a named workflow's has the graph already (`jobs.named.expanded`).

    Raises a ComfyError if it cannot be run.
    """
    buckets = (behind.assets_bucket, behind.output_bucket)
    check_places(request, owner, behind.settings, buckets=buckets)
    whole = graph_of(
        request, s3=behind.s3, settings=behind.settings, declarations=behind.declarations.fresh, seed=job_id
    )
    # A workflow that was read from S3 has not been checked yet, nor has what the conversion has put together.
    read = whole.editors if isinstance(request.workflow, str) else None
    allowed = _own(owner, behind.settings, behind.output_bucket)
    refuse_foreign_addresses((whole.graph, read), buckets=set(buckets), allowed_prefix=allowed)
    readable = Buckets.of(behind.settings).and_inputs(behind.output_bucket)
    readable.check_inputs(request, whole.graph)
    place = place_of(owner, behind.settings, bucket=behind.output_bucket)
    ready = request.model_copy(
        update={"job_id": job_id, "output": place, "reply": "links", "extra_data": whole.extra_data}
    ).with_warnings((*request.warnings, *whole.warnings))
    if whole.graph is None:
        return _left_to_worker(ready, whole, owner, behind)
    behind.node_list.check(whole.graph)
    resolved = resolve_assets(whole.graph, owner=owner, assets=behind.assets, inputs=request.inputs)
    inputs = uploaded_inputs(request.inputs, owner=owner, assets=behind.assets)
    ready = ready.model_copy(
        update={
            "workflow": resolved.graph,
            "values": {},  # they are in the graph
            "inputs": {**resolved.inputs, **request.inputs, **inputs},
        }
    )
    return StoredRequest(ready, whole.graph if whole.editors is None else whole.editors)


def _own(owner: str, settings: Settings, bucket: str) -> str:
    return f"s3://{bucket}/{owner_prefix(owner, settings)}/"


def _left_to_worker(ready: JobRequest, whole: Resolved, owner: str, behind: Behind) -> StoredRequest:
    """The request with the editor's workflow, and with the addresses of the files that it may name."""
    if not behind.declarations.are_told_with_lists() and behind.node_list.is_told():
        raise UiFormatWorkflow(
            "the workers that have run lately are of an older release, which does not take what the editor saved: "
            "deploy the worker's image (and send it again in a quarter of an hour), or send the workflow as exported "
            "for the API (Workflow > Export (API)).",
            details={"reasons": [{"reason": "older_workers", "message": "the workers are of an older release"}]},
        )
    editors: dict[str, Any] = whole.editors or {}
    # The worker looks up names in the graph that it makes, and nowhere else: so they are set there.
    named = uploaded_inputs(ready.inputs, owner=owner, assets=behind.assets)
    values = {**ready.values, **{name: ready.inputs[name] for name in named}}
    inputs = {name: given for name, given in ready.inputs.items() if name not in named}
    files = known_files(editors, values, owner=owner, assets=behind.assets, inputs=inputs)
    ready = ready.model_copy(update={"workflow": editors, "values": values, "inputs": inputs})
    return StoredRequest(ready.with_files(files), editors)
