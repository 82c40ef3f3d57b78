"""How a job and what belongs to it are written into the table. No IO."""

from __future__ import annotations

import json

from comfy_serverless.aws.dynamodb import Item, moment_text, now_text
from comfy_serverless.jobs.document import RETENTION, Job, JobStatus, Output, shorten_job
from comfy_serverless.table.job_state import JobState, NewJob

#: An item has at most 400 KB; the rest is for labels, progress and the names of the attributes.
MAX_DOCUMENT_BYTES = 250_000
#: The sort key of the job itself.
JOB = "job"


def job_pk(job_id: str) -> str:
    """Where a job and all of its items are."""
    return f"job#{job_id}"


def idempotency_pk(owner: str, key: str) -> str:
    """Where an idempotency key is."""
    return f"idempotency#{owner}#{key}"


def index_key(owner: str, created_id: str) -> Item:
    """Where a page of the index by owner goes on."""
    job_id = created_id.partition("#")[2]
    return {"pk": job_pk(job_id), "sk": JOB, "owner": owner, "created_id": created_id}


def new_item(job: NewJob) -> Item:
    """A job that waits, without who looks after it."""
    created = moment_text(job.created_at)
    item = {
        "pk": job_pk(job.job_id),
        "sk": JOB,
        "id": job.job_id,
        "owner": job.owner,
        "status": JobStatus.QUEUED.value,
        "created_at": created,
        "updated_at": created,
        "created_id": f"{created}#{job.job_id}",
        "open_owner": job.owner,
        "labels": dict(job.labels),
        "request": job.request_uri,
        "result": job.result_uri,
        "is_rerunnable": job.is_rerunnable,
        "webhook": dict(job.webhook) if job.webhook else None,
        "batches": {job.batch} if job.batch else None,
        "runs": 0,
        "expires": int(job.created_at.timestamp() + RETENTION.total_seconds()),
    }
    return {name: value for name, value in item.items() if value is not None}


def asset_item(state: JobState, output: Output) -> Item:
    """An output as an asset of the job's owner."""
    bucket, _, key = (output.s3_uri or "").removeprefix("s3://").partition("/")
    return {
        "pk": f"asset#{output.id}",
        "sk": "asset",
        "id": output.id,
        "owner": state.owner,
        "kind": "output",
        "bucket": bucket,
        "key": key,
        "file_path": output.name,
        "content_type": output.content_type,
        "size_bytes": output.size_bytes,
        "hash": output.hash,
        "created_at": now_text(),
        "expires": state.head["expires"],
        "job_id": state.id,
    }


def stored_document(job: Job) -> str:
    """The document of an ended job, without what its item has besides: outputs are items of their own."""
    bare = job.model_copy(update={"outputs": (), "metadata": {}})
    if len(bare.model_dump_json().encode()) > MAX_DOCUMENT_BYTES:
        bare = shorten_job(bare, size=lambda some: len(some.model_dump_json().encode()), limit_bytes=MAX_DOCUMENT_BYTES)
    return json.dumps(bare.to_json(), ensure_ascii=False)
