"""Jobs that are refused at the door: they end before they are queued, with a result that says why.

    job in the table, if its id is free ──► result.json in OUTPUT_BUCKET ──► ended as the result says

Cut off anywhere, it is done again with the same outcome; or the caretaker sends the job, and a worker refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.jobs.buckets import Buckets
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.jobs.workflow_source import graph_of
from comfy_serverless.observability import emit_failure, log
from comfy_serverless.worker.record import JobRecord

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.errors import ComfyError
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.job_state import JobState, NewJob
    from comfy_serverless.table.jobs import JobStore


def check_buckets(request: JobRequest, *, s3: S3Client, settings: Settings) -> None:
    """Check the buckets that a request names, as far as they can be known without reading from S3.

    Raises InvalidRequest, MissingAsset, and as `graph_of`: the graph is made only if a foreign address is in it.
    """
    buckets = Buckets.of(settings)
    buckets.check_output(request)
    is_here = isinstance(request.workflow, dict) or not is_address(request.workflow)
    is_suspect = is_here and buckets.names_foreign((request.workflow, request.values))
    buckets.check_inputs(request, graph_of(request, s3=s3, settings=settings).graph if is_suspect else None)


def refuse(
    job: NewJob, error: ComfyError, *, submit: Callable[[NewJob], JobState | None], jobs: JobStore, s3: S3Client
) -> None:
    """End a job before it begins. Another job of its id, and its result, stay as they are.

    Args:
        job: its result is in OUTPUT_BUCKET, whatever its request says.
        submit: writes it into the table, or returns the job that has its id.
    """
    state = submit(job)
    if state is None or state.request != job.request_uri or not state.is_unbegun:
        return
    record = JobRecord(job_id=job.job_id, metadata=dict(job.labels))
    record.result = ResultFile(s3, S3Address.parse(job.result_uri))
    document = record.document(error)
    record.result.write(document)
    if jobs.refuse(state, document):
        emit_failure(error.code, error.kind)
        log.warning("a job is refused", job_id=job.job_id, request=job.request_uri, code=error.code)
