"""The items of a job, of its outputs, preview and idempotency key. Only this file knows their columns. No IO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from comfy_serverless.aws.dynamodb import Item, Update, now_s
from comfy_serverless.jobs.document import Job, JobStatus, Output, shorten_job
from comfy_serverless.jobs.keys import RESULT_NAME
from comfy_serverless.moments import moment_text
from comfy_serverless.table.columns import (
    IDEMPOTENCY_S,
    KEEPER,
    KEEPER_DUE,
    keeper_of,
    lease_of,
    read_columns,
    write_columns,
)

#: An item may have 400 KB; the rest is for labels, progress and the names of the attributes.
MAX_DOCUMENT_BYTES = 250_000
#: How long the newest preview is shown, in seconds.
PREVIEW_S = 3600
#: A write costs by the started kilobyte of the item: of more outputs, only the items of these have the addresses.
MAX_OUTPUT_NAMES_BYTES = 4000
#: The sort key of the job itself.
JOB = "job"
#: The sort key of the newest preview, and one that sorts after every `output#…` and before `preview`.
PREVIEW, LAST_OUTPUT = "preview", "output~"
#: The sort key of an idempotency key.
IDEMPOTENCY = "idempotency"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobItem:
    """The columns of a job. A column at its default is not written; those without a default always are."""

    id: str  # the job's id, as in the partition key
    owner: str  # whose job it is: the hash key of the index `by_owner`
    status: JobStatus  # the Comfy API's state
    created_at: str  # when it was submitted
    updated_at: str  # when its state last changed, for lists of jobs
    created_id: str  # moment and id, as the sort key of lists
    request: str  # where its request is: an object, or a line of a manifest
    result: str  # where the worker writes how it ended, before the table is written
    labels: Mapping[str, str]  # `metadata` of the request
    runs: int  # how often it has been begun, without runs that a shutdown interrupted
    is_rerunnable: bool  # whether `request` has all that a worker needs: what may be a key is not kept
    release: str | None = None  # the only one whose workers may run it: of a check (`cli.release_check`)
    open_owner: str | None = None  # the owner while it waits or runs, for the index that counts; batches do not count
    webhook: Mapping[str, str] | None = None  # `webhook_item` says where: {}; older releases wrote `url`, `secret`
    batches: frozenset[str] = frozenset()  # those it is a line of: the same line in two of them is one job
    line: str | None = None  # the line it was made of, "batch#offset", if `request` does not say so
    expires: int | None = None  # when DynamoDB may delete it, in seconds since 1970
    keeper: str | None = None  # who looks after it (see `columns`); None once nothing is left to do
    keeper_due: int | None = None  # when its keeper should have acted, in seconds since 1970
    trace: Mapping[str, str] | None = None  # `traceparent`, `tracestate`: the span that it is a child of
    version: int = 1  # what a worker must understand to run it, as in its message (see `jobs.stored_request`)
    waits_since: int | None = None  # when a job of a batch was last sent again, in seconds since 1970
    was_parked: bool = False  # its message was dropped because its batch is paused; stays if it is begun all the same
    is_held: bool = False  # its message was once believed to wait invisibly
    is_missed: bool = False  # its queue was found empty, and it cannot be sent again
    undelivered: int = 0  # how often it has not reached any worker
    sent_again: int = 0  # how often it was sent again because no worker had it any more
    run: str | None = None  # the run it belongs to; None while it waits
    release_version: str | None = None  # what the image of the worker that last began it was built from
    last_run: str | None = None  # the run before: a job that ends between two has that one's outputs
    started_at: str | None = None  # when the newest run has begun
    progress_json: str | None = None  # the run's last `Progress`
    completed_at: str | None = None  # when it ended
    document_json: str | None = None  # the `Job` it ended as, without outputs and labels
    output_places: str | None = None  # of the outputs in the result's order, as text: thousands of them must fit
    key_id: str | None = None  # the API key it was submitted with, for the counters of usage; None for none
    output_names: str | None = None  # their paths beside the result, a line each (`named_outputs`)
    asked_sha256: str | None = None  # what was asked for under an id that its caller chose (`JobRequest.digest`)
    shown_json: str | None = None  # what lists show of an ended job (`table.shown`); older releases wrote none

    @classmethod
    def from_item(cls, item: Item, **beside: Any) -> Self:  # noqa: ANN401  (fields of subclasses)
        columns = {"labels": {}, "runs": 0, "is_rerunnable": True, **read_columns(JobItem, item, stored=STORED)}
        columns["status"] = JobStatus(columns["status"])
        columns["batches"] = frozenset(columns.get("batches", ()))
        if "keeper" in columns:
            columns["keeper"] = keeper_of(columns["keeper"])
        return cls(**columns, **beside)

    @property
    def counted_run(self) -> str | None:
        """The run whose outputs count: of a job that ended between two runs, the last one."""
        return self.last_run if self.run is None and self.document_json is not None else self.run

    def to_item(self) -> Item:
        """The item as it is first written."""
        item = {"pk": job_pk(self.id), "sk": JOB, **write_columns(self, of=JobItem, stored=STORED)}
        item["status"] = self.status.value
        if self.keeper is not None:
            item[KEEPER] = lease_of(self.keeper, self.id)
        return item


#: The columns and their names in the table: deployed tables keep their names.
STORED = {column.name: column.name for column in fields(JobItem)} | {
    "keeper": KEEPER,
    "keeper_due": KEEPER_DUE,
    "was_parked": "is_parked",
    "progress_json": "progress",
    "document_json": "document",
}


def job_update(
    job_id: str,
    *,
    assign: Mapping[str, Any],
    condition: str,
    values: Mapping[str, Any] | None = None,
    add: Mapping[str, int | set[str]] | None = None,
    remove: Sequence[str] = (),
) -> Update:
    """A change of a job; names are those of columns, also the `#names` of the condition."""
    if "keeper" in assign:
        assign = {**assign, "keeper": lease_of(assign["keeper"], job_id)}
    return Update(
        pk=job_pk(job_id),
        sk=JOB,
        assign={STORED[name]: value for name, value in assign.items()},
        add={STORED[name]: value for name, value in add.items()} if add else None,
        remove=[STORED[name] for name in remove],
        condition=re.sub(r"#(\w+)", lambda name: f"#{STORED[name[1]]}", condition),
        values=values,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """A job's columns in the index by owner."""

    id: str
    status: str
    created_at: str
    updated_at: str
    created_id: str
    completed_at: str | None = None
    labels: Mapping[str, str]

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**{"labels": {}, **read_columns(cls, item)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The newest preview of a job that runs."""

    node_id: str  # the node that shows it
    content_type: str
    data_base64: str  # the picture itself

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    def to_item(self, job_id: str) -> Item:
        """The item as it is written."""
        return {"pk": job_pk(job_id), "sk": PREVIEW, **write_columns(self), "expires": now_s() + PREVIEW_S}


def output_item(job: JobItem, output: Output, *, place: int, run: str) -> Item:
    """The item of a delivered output, without the fields that only the worker's reply has."""
    return {
        "pk": job_pk(job.id),
        "sk": f"output#{place:06}#{output.id}#{run}",
        "run": run,
        "output": output.to_line(),
        "expires": job.expires,
    }


def outputs_of(job: JobItem, items: Iterable[Item]) -> tuple[Output, ...]:
    """The outputs of the run that counts, in the order of its result, or else as they were delivered."""
    return tuple(output for _, output in placed_outputs_of(job, items))


def placed_outputs_of(job: JobItem, items: Iterable[Item]) -> list[tuple[int, Output]]:
    """The same, each with its place in its run, which it keeps."""
    by_place = {
        int(item["sk"].split("#")[1]): item["output"]
        for item in items
        if item["sk"].startswith("output#") and item["run"] == job.counted_run
    }
    order = by_place if job.output_places is None else map(int, filter(None, job.output_places.split(",")))
    return [(place, Output.model_validate_json(by_place[place])) for place in order if place in by_place]


def named_outputs(job: Job) -> str | None:
    """The paths of a job's outputs below the folder of its result; None if they are elsewhere, or too long."""
    folder = (job.result_uri or "").removesuffix(RESULT_NAME)
    uris = [output.s3_uri or "" for output in job.outputs]
    if not folder or not all(uri.startswith(folder) for uri in uris):
        return None
    names = "\n".join(uri.removeprefix(folder) for uri in uris)
    return names if len(names.encode()) <= MAX_OUTPUT_NAMES_BYTES else None


def idempotency_item(owner: str, key: str) -> Item:
    """The item of an idempotency key that was used just now."""
    return {"pk": idempotency_pk(owner, key), "sk": IDEMPOTENCY, "expires": now_s() + IDEMPOTENCY_S}


def job_pk(job_id: str) -> str:
    """The partition key of a job and its items."""
    return f"job#{job_id}"


def idempotency_pk(owner: str, key: str) -> str:
    """The partition key of an idempotency key."""
    return f"idempotency#{owner}#{key}"


def index_key(owner: str, created_id: str) -> Item:
    """The key at which a page of the index by owner goes on."""
    job_id = created_id.partition("#")[2]
    return {"pk": job_pk(job_id), "sk": JOB, "owner": owner, "created_id": created_id}


def index_bound(moment: datetime) -> str:
    """What the `created_id` of every job that was submitted after a moment is greater than."""
    return moment_text(moment) + chr(ord("#") + 1)


def stored_document(job: Job) -> str:
    """The document of an ended job, without labels, which its item has, and outputs, which are separate items."""
    bare = job.model_copy(update={"outputs": (), "metadata": {}})
    if len(bare.model_dump_json().encode()) > MAX_DOCUMENT_BYTES:
        bare = shorten_job(bare, size=lambda some: len(some.model_dump_json().encode()), limit_bytes=MAX_DOCUMENT_BYTES)
    return json.dumps(bare.to_json(), ensure_ascii=False)
