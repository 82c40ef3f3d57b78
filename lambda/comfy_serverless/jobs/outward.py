"""Our texts as key holders read them: without account numbers, roles, and folders of the worker. No IO.

`result.json`, the table and the log have them whole, for the operator. Addresses that are part of the contract
(`s3_uri`, `result_uri`) stay, with the bucket's name. So do tracebacks of nodes, with the paths of ComfyUI's code: they
are what the author of a workflow goes by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from comfy_serverless.errors import InternalError
from comfy_serverless.jobs.document import Job, JobError
from comfy_serverless.jobs.machine_paths import without_folders

_ARN = re.compile(r"\barn:aws[\w-]*:[^\s\"'`,;()<>\[\]{}]+")
#: In names of buckets as CloudFormation, SageMaker and we make them, in addresses of queues and images, and in words.
_ACCOUNT = re.compile(
    r"(?<=-)\d{12}(?=-[a-z]{2}-[a-z-]+-\d)|(?<=\.amazonaws\.com/)\d{12}\b|\b\d{12}(?=\.dkr\.)"
    r"|(?<=\baccount )\d{12}\b|(?<=\baccount: )\d{12}\b|(?:(?<=east-\d-)|(?<=west-\d-)|(?<=north-\d-)|(?<=south-\d-)"
    r"|(?<=central-\d-))\d{12}\b",
    re.IGNORECASE,
)
#: Of the engine: its log has lines of jobs of other owners.
_LEFT_OUT = frozenset({"log_tail"})
_OWN_MISTAKE = "the job failed because of a mistake of ours; the worker's log has the details."


def outward(text: str) -> str:
    """A text without what it tells of the account and of the worker's folders; a file keeps its name."""
    return without_folders(_of_account(text))


def outward_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an error, likewise, without the engine's log."""
    return {name: _plain(value) for name, value in details.items() if name not in _LEFT_OUT}


def outward_job(job: Job) -> Job:
    """A job's document, likewise in its error and warnings."""
    error = None if job.error is None else _error(job.error)
    return job.model_copy(update={"error": error, "warnings": tuple(map(outward, job.warnings))})


def _error(error: JobError) -> JobError:
    if error.code == InternalError.code:
        return error.model_copy(update={"message": _OWN_MISTAKE, "traceback": None, "details": {}})
    traceback = None if error.traceback is None else _of_account(error.traceback)
    details = outward_details(error.details)
    return error.model_copy(update={"message": outward(error.message), "traceback": traceback, "details": details})


def _of_account(text: str) -> str:
    return _ACCOUNT.sub("…", _ARN.sub("arn:…", text))


def _plain(value: object) -> object:
    """A JSON value with all its texts; errors' details are not nested deeply (`MAX_ERROR_LEVELS`)."""
    match value:
        case str():
            return outward(value)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value
