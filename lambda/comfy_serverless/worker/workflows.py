"""Reads the workflow of a job, before anything is fetched for it; what the editor saved becomes a graph here.

a name ──────────────────────────────────► the graph of a version, and inputs by name put in their places
API format ──────────────────────────────► checked where it came in, unless nobody has read it before
the editor's ──► converted by what the engine declares ──► checked again: a conversion may put addresses together
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.named import Named, expanded
from comfy_serverless.jobs.references import refuse_foreign_addresses, resolve_assets
from comfy_serverless.jobs.reserved import Reserved, owner_place
from comfy_serverless.jobs.workflow_source import graph_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.jobs.sources import RequestSource
    from comfy_serverless.settings import Settings
    from comfy_serverless.worker.declarations import EngineDeclarations
    from comfy_serverless.worker.running import RunningJob


class JobWorkflow(NamedTuple):
    """The workflow of a job.

    Attributes:
        graph: in API format, with the request's `set` applied.
        inputs: those of the request, and files that the workflow names by their assets.
        extra_data: what the engine gets with it.
        warnings: about it, for people.
    """

    graph: dict[str, Any]
    inputs: Mapping[str, str | list[str]]
    extra_data: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Workflows:
    """Reads them for one worker.

    Attributes:
        named: the workflows that requests may name.
    """

    s3: S3Client
    settings: Settings
    declarations: EngineDeclarations
    named: Named

    def expanded(
        self, request: JobRequest, source: RequestSource, job: RunningJob, *, job_id: str, until: float
    ) -> JobRequest:
        """The request with the graph of the workflow that it names, and its labels; any other request itself.

        A file that the editor saved has its inputs once the engine has declared its nodes: only if values do not fit
        without that, it is asked.

        Args:
            until: when it is of no use any more, on the monotonic clock.

        Raises as `jobs.named.expanded`, and as `EngineDeclarations.for_job`.
        """
        owner = source.owner_name
        try:
            return expanded(self.named, request, owner=owner, key=job_id, was_taken=True)
        except InvalidRequest as error:
            may_fit = "errors" in error.details and bool(request.inputs)
            if not may_fit or self.declarations.read_already() is not None:
                raise
        self.declarations.for_job(job, until=until)
        return expanded(self.named, request, owner=owner, key=job_id, was_taken=True)

    def of(
        self,
        request: JobRequest,
        source: RequestSource,
        job: RunningJob,
        *,
        job_id: str,
        until: float,
        was_named: bool = False,
    ) -> JobWorkflow:
        """The workflow of a request.

        Args:
            until: when it is of no use any more, on the monotonic clock.
            was_named: whether `expanded` has put the graph into it.

        Raises:
            ComfyError: as `graph_of`, and as `EngineDeclarations.for_job` if the workflow is the editor's.
            InvalidRequest, MissingAsset: it names a file of others.
        """
        whole = graph_of(
            request,
            s3=self.s3,
            settings=self.settings,
            declarations=lambda: self.declarations.for_job(job, until=until),
            seed=job_id,
        )
        graph = whole.graph
        if graph is None:
            raise AssertionError("the engine has declared nothing, and not failed")
        inputs: Mapping[str, str | list[str]] = request.inputs
        if was_named or isinstance(request.workflow, str) or whole.editors is not None:
            self._check_places((graph, request.inputs), request, source)
        if request.files is not None:
            resolved = resolve_assets(graph, owner=source.owner_name, assets=request.files, inputs=request.inputs)
            graph, inputs = resolved.graph, {**resolved.inputs, **request.inputs}
        return JobWorkflow(graph, inputs, whole.extra_data, whole.warnings)

    def _check_places(self, document: object, request: JobRequest, source: RequestSource) -> None:
        """Raise MissingAsset or InvalidRequest if a graph, or an input, names a file of others in our buckets."""
        place = request.output
        if not (source.is_checked and place.prefix and place.prefix.endswith(owner_place(source.owner_name))):
            Reserved.of(self.settings).check_addresses(document)
            return
        # A request of the API: in our buckets its owner has results, and nothing else that has an address.
        buckets = {bucket for bucket in (self.settings.assets_bucket, self.settings.output_bucket) if bucket}
        refuse_foreign_addresses(document, buckets=buckets, allowed_prefix=f"s3://{place.bucket}/{place.prefix}/")
