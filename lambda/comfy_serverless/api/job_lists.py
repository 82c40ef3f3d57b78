"""The list of jobs, with what of each job was asked for (`expand`): one more read of the table for a whole page.

index ──► entries (id, status, moments, labels) ──► one BatchGetItem of their jobs ──► outputs, progress, error
                                                      └─ a job of an older release is read by itself
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import INVALID, REFUSALS, JobList, documented
from comfy_serverless.api.paging import Cursor, page_of, read_cursor, write_cursor
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.errors import InvalidFilter, InvalidRequest
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES, JobStatus, Output
from comfy_serverless.jobs.links import Links
from comfy_serverless.jobs.request import MAX_LABEL_CHARACTERS, MAX_LABELS
from comfy_serverless.table.job_item import JobEntry
from comfy_serverless.table.reader import JobReader
from comfy_serverless.table.shown import ListedJob, Shown, shown_of

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

MAX_PAGE, DEFAULT_PAGE = 100, 20
#: How many of its outputs a job has in a list.
MAX_OUTPUTS = 8
#: How many jobs of one page are read by themselves, at most: a page with more of them ends before the next one.
MAX_SINGLE_READS = 20
_LABEL_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
CreatedAfter = Annotated[
    str | None, Query(description="Only of jobs that were submitted after this moment, in ISO 8601. Ours.")
]


class Expand(StrEnum):
    """What a list may say of each job beyond its entry."""

    OUTPUTS = "outputs"
    PROGRESS = "progress"
    ERROR = "error"


EVERYTHING = frozenset(Expand)
_OF_ERROR = {"code", "message", "node_id", "class_type"}


@router.get(
    "/api/v2/jobs",
    summary="List jobs, newest first",
    tags=["jobs"],
    description="`metadata[key]=value` lists only jobs with that label; repeat it for more labels. A page may have "
    "fewer jobs than `limit`: the list goes on as long as there is a `next_cursor`. Ours.",
    responses={200: documented("A page of jobs.", JobList), **INVALID, **REFUSALS},
)
def list_jobs(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: Cursor = None,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state.")] = None,
    created_after: CreatedAfter = None,
    expand: Annotated[
        str | None,
        Query(description="Of each job also these, separated by commas: `outputs`, `progress`, `error`. Ours."),
    ] = None,
) -> Response[str]:
    """Return a page of the caller's jobs: one query, and with `expand` one read of all of them."""
    behind, wanted = services(router), read_expand(expand)
    entries, end = behind.jobs.page(
        caller(router).owner,
        labels=label_filters(router.current_event.query_string_parameters or {}),
        status=status.value if status else None,
        limit=limit,
        before=read_cursor(cursor),
        after=read_moment(created_after),
    )
    if wanted:
        found = look_up(entries, behind.jobs, behind.beside)
    else:
        found = [ShownJob(entry, None, Shown()) for entry in entries]
    page = _fitting(entries_of(found, wanted, behind.links))
    if 0 < len(page) < len(entries):
        end = entries[len(page) - 1].created_id
    return answer(HTTPStatus.OK, page_of("jobs", page, end and write_cursor(end)))


class ShownJob(NamedTuple):
    """A job of a list: its entry in the index, its own columns, and what they show; None if it is forgotten."""

    entry: JobEntry
    job: ListedJob | None
    shown: Shown


def read_expand(text: str | None) -> frozenset[Expand]:
    """What was asked for, `outputs,progress,error`. Raises InvalidRequest for anything else."""
    words = [word.strip() for word in (text or "").split(",")]
    try:
        return frozenset(Expand(word) for word in words if word)
    except ValueError as error:
        raise InvalidRequest(
            f"`expand` takes {', '.join(Expand)}, separated by commas; not {(text or '')[:100]!r}."
        ) from error


def look_up(entries: Sequence[JobEntry], jobs: JobReader, beside: Executor) -> list[ShownJob]:
    """The jobs of these entries as they are now, in their order.

    One BatchGetItem for a hundred. Only a job whose columns do not say it (an older release, or a lost run, has ended
    it) is read by itself, at most `MAX_SINGLE_READS` of them: then what is returned ends before the next one.
    """
    listed = jobs.listed([entry.id for entry in entries]) if entries else {}
    # An id that was given back is anybody's before the index knows it: that job is another one.
    made = {entry.id: entry.created_id for entry in entries}
    listed = {job_id: job for job_id, job in listed.items() if job.created_id == made[job_id]}
    known = {job_id: job.shown() for job_id, job in listed.items()}
    unknown = [entry.id for entry in entries if entry.id in known and known[entry.id] is None]
    for state in beside.map(jobs.read, unknown[:MAX_SINGLE_READS]):
        if state is not None and state.created_id == made[state.id]:
            known[state.id] = shown_of(state)
    left = frozenset(unknown[MAX_SINGLE_READS:])
    found: list[ShownJob] = []
    for entry in entries:
        if entry.id in left:
            break
        found.append(ShownJob(entry, listed.get(entry.id), known.get(entry.id) or Shown()))
    return found


def entries_of(found: Sequence[ShownJob], expand: Collection[Expand], links: Links) -> list[dict[str, Any]]:
    """The entries as they are sent. What was expanded is there also where there is nothing: null, or an empty list."""
    first = [one.shown.outputs[:MAX_OUTPUTS] if Expand.OUTPUTS in expand else () for one in found]
    linked = iter(links.of_outputs(output for outputs in first for output in outputs))  # one signer for all of them
    return [_entry(one, expand, [next(linked) for _ in outputs]) for one, outputs in zip(found, first, strict=True)]


def _entry(one: ShownJob, expand: Collection[Expand], outputs: Sequence[Output]) -> dict[str, Any]:
    newest: JobEntry | ListedJob = one.job or one.entry  # the index is a moment behind
    document: dict[str, Any] = {
        "id": one.entry.id,
        "status": str(newest.status),
        "create_time": newest.created_at,
        "update_time": newest.updated_at,
        "created_at": newest.created_at,
        **({} if newest.completed_at is None else {"completed_at": newest.completed_at}),
        "metadata": dict(newest.labels),
    }
    shown = one.shown
    if expand:
        document["started_at"] = shown.started_at
    if Expand.OUTPUTS in expand:
        document["outputs"] = [output.to_json() for output in outputs]
        document["outputs_total"] = shown.outputs_total
    if Expand.PROGRESS in expand:
        document["progress"] = shown.progress and shown.progress.model_dump(mode="json")
    if Expand.ERROR in expand:
        document["error"] = shown.error and shown.error.model_dump(mode="json", include=_OF_ERROR)
    return document


def _fitting(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many entries as an answer has room for: links are long."""
    left, fitting = REPLY_LIMIT_BYTES, list[dict[str, Any]]()
    for entry in entries:
        left -= len(json.dumps(entry)) + 2
        if left < 0 and fitting:
            break
        fitting.append(entry)
    return fitting


def label_filters(query: Mapping[str, str]) -> dict[str, str]:
    """The labels of `metadata[name]=value`. Raises InvalidFilter for more or longer ones than jobs have."""
    matches = {match[1]: value for name, value in query.items() if (match := _LABEL_FILTER.fullmatch(name))}
    if len(matches) > MAX_LABELS or any(
        not name or len(name) > MAX_LABEL_CHARACTERS or len(value) > MAX_LABEL_CHARACTERS
        for name, value in matches.items()
    ):
        raise InvalidFilter(
            f"at most {MAX_LABELS} labels can be asked for, with names and values of up to "
            f"{MAX_LABEL_CHARACTERS} characters: ?metadata[name]=value"
        )
    return matches


def read_moment(text: str | None) -> datetime | None:
    """A moment in ISO 8601; without a zone it is UTC. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"`created_after` is no moment: {text[:100]!r}; write 2026-01-31T12:00:00Z (a + is %2B in an address)."
        ) from error
