"""The route of a job's log: the last lines that ComfyUI wrote while it ran the job."""

from __future__ import annotations

from contextlib import closing
from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from botocore.exceptions import ClientError

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import NOT_FOUND, REFUSALS, JobLog, documented
from comfy_serverless.api.jobs import JobId, find_job
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.aws.s3 import S3Address, Trouble, trouble_of
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.run_log import LEFT_OUT, MAX_LOG_BYTES, log_address, log_lines
from comfy_serverless.table.job_state import JobState

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

_NOT_YET = "the job has not ended: its log is kept when it does; GET the job, or its events, for how far it is."
_NOT_RUN = "the job ended before a worker ran it: there is no log."
_NOT_KEPT = (
    "nothing is kept of this job: ComfyUI wrote nothing during it, its worker was lost, or KEEP_LOGS, a setting of "
    "the workers, keeps logs of other jobs only (`failed`, its default; `all`; `none`)."
)


@router.get(
    "/api/v2/jobs/<id>/log",
    summary="What ComfyUI wrote while it ran a job (ours)",
    tags=["jobs"],
    description="The last 200 lines of a job that failed (setting KEEP_LOGS), without keys, accounts and folders of "
    "the worker. `note` says why there are none.",
    responses={200: documented("The log, as far as it is kept.", JobLog), **NOT_FOUND, **REFUSALS},
)
def get_log(id: JobId) -> Response[str]:  # noqa: A002  (the contract's name)
    """Return a job's log."""
    behind = services(router)
    state = find_job(id, caller(router), behind, read=behind.jobs.read_alone)
    return answer(HTTPStatus.OK, log_of(state, behind).model_dump())


def log_of(state: JobState, behind: Services) -> JobLog:
    """What is kept of a job's log."""
    if not state.is_over:
        return JobLog(lines=[], is_complete=False, note=_NOT_YET)
    content = _read(log_address(S3Address.parse(state.result)), behind) if state.runs else None
    if content is None:
        was_run = state.runs > 0 and state.status is not JobStatus.EXPIRED
        return JobLog(lines=[], is_complete=False, note=_NOT_KEPT if was_run else _NOT_RUN)
    lines = log_lines(content)
    return JobLog(lines=lines, is_complete=not (lines and lines[0].startswith(LEFT_OUT)))


def _read(address: S3Address, behind: Services) -> bytes | None:
    """The file; None if there is none. Without s3:ListBucket, S3 denies what does not exist."""
    try:
        found = behind.s3.get_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if trouble_of(error) in (Trouble.MISSING, Trouble.DENIED):
            return None
        raise
    with closing(found["Body"]) as body:
        return bytes(body.read(MAX_LOG_BYTES))
