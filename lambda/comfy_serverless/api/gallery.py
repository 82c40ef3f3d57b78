"""The route of an owner's outputs, newest job first: what a gallery shows.

    jobs that have ended, by the index ──► their columns (one read for all) ──► outputs, the filters' only
                                              └─ of a job with more outputs than its columns have: the job's own list

A page reads a bounded number of jobs: it may be short, or empty, and the next one goes on where it ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, GalleryList, documented
from comfy_serverless.api.job_lists import (
    CreatedAfter,
    ShownJob,
    label_filters,
    look_up,
    read_moment,
)
from comfy_serverless.api.outputs import outputs_page
from comfy_serverless.api.paging import CREATED_ID, Cursor, bad_cursor, cursor_text, page_of, write_cursor
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.errors import InvalidFilter, NotFound
from comfy_serverless.files import OutputKind
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.named import VERSION_LABEL, WORKFLOW_LABEL
from comfy_serverless.jobs.output_list import Page
from comfy_serverless.workflows.reference import LIVE, Reference

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

MAX_PAGE, DEFAULT_PAGE = 100, 50
#: How many jobs one round reads, how many rounds a page may take, and how many jobs' own lists it may read.
_ROUND, _ROUNDS, _OWN_LISTS = 100, 3, 10
_CURSOR = re.compile(rf"({CREATED_ID})(?:\+(\d{{1,12}}))?")


class Kind(StrEnum):
    """The kinds of outputs, and models of 3D, which the contract counts among files."""

    IMAGE = OutputKind.IMAGE
    VIDEO = OutputKind.VIDEO
    AUDIO = OutputKind.AUDIO
    TEXT = OutputKind.TEXT
    LATENT = OutputKind.LATENT
    FILE = OutputKind.FILE
    MODEL = "3d"


class Place(NamedTuple):
    """Where a page begins: behind a job, or at one of its outputs."""

    created_id: str
    output: int | None = None

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Read a cursor. Raises InvalidCursor."""
        match = _CURSOR.fullmatch(cursor_text(cursor))
        if match is None:
            raise bad_cursor()
        return cls(match[1], None if match[2] is None else int(match[2]))

    def to_cursor(self) -> str:
        """As `parse` reads it."""
        return write_cursor(self.created_id if self.output is None else f"{self.created_id}+{self.output}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which outputs are asked for."""

    labels: Mapping[str, str]
    kind: Kind | None = None
    after: datetime | None = None
    batch: str | None = None

    def has(self, output: Output) -> bool:
        """Whether an output is of the kind."""
        if self.kind is None:
            return True
        return output.content_type.startswith("model/") if self.kind is Kind.MODEL else output.type == self.kind

    def has_job(self, one: ShownJob) -> bool:
        """Whether a job has the labels, and is of the batch."""
        if self.batch is not None and (one.job is None or self.batch not in one.job.batches):
            return False
        return all(one.entry.labels.get(name) == value for name, value in self.labels.items())


@router.get(
    "/api/v2/outputs",
    summary="Outputs of all jobs, newest job first (ours)",
    tags=["outputs"],
    description="Of jobs that have ended, in each job's order, with fresh links. `metadata[key]=value` lists only "
    "those of jobs with that label. A page may be short, or empty: the list goes on while there is a `next_cursor`.",
    responses={200: documented("A page of outputs.", GalleryList), **NOT_FOUND, **INVALID, **REFUSALS},
)
def list_outputs(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: Cursor = None,
    type: Annotated[Kind | None, Query(description="Only outputs of this kind.")] = None,  # noqa: A002
    batch: Annotated[
        str | None, Query(description="Only of lines of this batch: its name, or its id.", max_length=200)
    ] = None,
    workflow: Annotated[
        str | None, Query(description="Only of runs of this named workflow, or of one version: `poster@3`.")
    ] = None,
    created_after: CreatedAfter = None,
) -> Response[str]:
    """Return a page of the caller's outputs."""
    behind, query, owner = services(router), router.current_event.query_string_parameters or {}, caller(router).owner
    wanted = Wanted(
        labels=_labels(label_filters(query), workflow),
        kind=type,
        after=read_moment(created_after),
        batch=None if batch is None else _batch_id(batch, owner, behind),
    )
    walk = _Walk(behind, caller(router), wanted, limit, None if cursor is None else Place.parse(cursor))
    walk.go()
    linked = behind.links.of_outputs(output for _, output in walk.found)
    wanted_by = {batch_id for one, _ in walk.found if one.job for batch_id in one.job.batches}
    names = behind.batches.names(owner, wanted_by)
    entries = [
        _entry(one, output, batch=_batch_of(one, wanted, names))
        for (one, _), output in zip(walk.found, linked, strict=True)
    ]
    return answer(HTTPStatus.OK, page_of("outputs", entries, walk.end.to_cursor() if walk.end else None))


def _entry(one: ShownJob, output: Output, *, batch: str | None) -> dict[str, Any]:
    return {
        **output.to_json(),
        "created_at": one.entry.created_at,
        "metadata": dict(one.entry.labels),
        "seeds": one.shown.seeds or {},
        "batch": batch,
    }


def _batch_of(one: ShownJob, wanted: Wanted, names: Mapping[str, str]) -> str | None:
    """The name of the batch that a job is a line of: of several, the one that was asked for, or else the first."""
    batches = [batch_id for batch_id in (one.job.batches if one.job else ()) if batch_id in names]
    return names[wanted.batch if wanted.batch in batches else min(batches)] if batches else None


def _batch_id(name: str, owner: str, behind: Services) -> str:
    """The id of the owner's newest batch of this name. Raises NotFound for another's, too."""
    if (batch := behind.batches.named(owner, name)) is None:
        raise NotFound(f"there is no batch {name[:100]!r} of yours.")
    return batch.id


def _labels(labels: dict[str, str], workflow: str | None) -> dict[str, str]:
    """The labels that are asked for, those of a run of the workflow among them. Raises InvalidFilter."""
    if workflow is None:
        return labels
    if WORKFLOW_LABEL in labels:
        raise InvalidFilter(f"`workflow` and `metadata[{WORKFLOW_LABEL}]` are the same filter: send one of them.")
    reference = Reference.parse(workflow)
    if reference.alias not in (None, LIVE):
        raise InvalidFilter(
            f"runs are found by the name of their workflow, or by a version ({reference.name}@3): which one "
            f"{reference.alias!r} meant then is not kept."
        )
    version = {} if reference.version is None else {VERSION_LABEL: str(reference.version)}
    return {**labels, WORKFLOW_LABEL: reference.name, **version}


@dataclass(slots=True)
class _Walk:
    """Goes through the jobs, newest first, until there are outputs enough or it has read enough.

    Attributes:
        end: where the next page begins; None at the end of all.
    """

    behind: Services
    who: Caller
    wanted: Wanted
    limit: int
    begin: Place | None
    found: list[tuple[ShownJob, Output]] = field(default_factory=list)
    end: Place | None = None
    own_lists: int = 0

    def go(self) -> None:
        """Fill `found` and `end`."""
        for one, is_last in self._jobs():
            resumed = self.begin.output if self.begin and self.begin.created_id == one.entry.created_id else None
            place = self._take(one, resumed or 0)
            if place is not None:
                self.end = Place(one.entry.created_id, place)
                return
            if len(self.found) >= self.limit and not is_last:
                self.end = Place(one.entry.created_id)
                return

    def _jobs(self) -> Iterator[tuple[ShownJob, bool]]:
        """The jobs, and whether none comes after; sets `end` if it has read as many as it may."""
        before = None
        if self.begin is not None:
            before = self.begin.created_id
            if self.begin.output is not None and (begun := self._job_at(self.begin)) is not None:
                yield begun, False
        size = self.limit if self.wanted.kind is None and self.wanted.batch is None else _ROUND
        for _ in range(_ROUNDS):
            entries, end = self.behind.jobs.page(
                self.who.owner,
                labels=self.wanted.labels,
                status=None,
                limit=size,
                before=before,
                after=self.wanted.after,
                only_ended=True,
            )
            jobs = look_up(entries, self.behind.jobs, self.behind.beside)
            if len(jobs) < len(entries):
                end = entries[len(jobs) - 1].created_id
            for number, one in enumerate(jobs):
                if self.wanted.has_job(one):
                    yield one, end is None and number == len(jobs) - 1
            if end is None:
                self.end = None
                return
            before = end
            self.end = Place(end)
            if len(entries) < size:
                return  # few of many are meant: it has looked at thousands

    def _job_at(self, place: Place) -> ShownJob | None:
        """The job of a cursor, if it is one of this list; a cursor may have been made up."""
        job_id = place.created_id.partition("#")[2]
        job = self.behind.jobs.listed([job_id]).get(job_id)
        if job is None or job.owner != self.who.owner or job.created_id != place.created_id:
            return None
        found = look_up([job.entry()], self.behind.jobs, self.behind.beside)
        return found[0] if found and self.wanted.has_job(found[0]) else None

    def _take(self, one: ShownJob, place: int) -> int | None:
        """Take outputs of a job from a place on. Returns the place of the first that is left; None if none is."""
        while len(self.found) < self.limit:
            page = self._outputs(one, place)
            if page is None:
                return place
            self.found += [(one, output) for output in page.outputs if self.wanted.has(output)]
            if page.end is None:
                return None
            place = page.end
        return place

    def _outputs(self, one: ShownJob, place: int) -> Page | None:
        """As many outputs of a job as there is room for, from a place on; None if this page must read no more."""
        most, shown = self.limit - len(self.found), one.shown
        if len(shown.outputs) == shown.outputs_total:
            return Page.of(shown.outputs, start=place, limit=most)
        if self.own_lists == _OWN_LISTS:
            return None
        self.own_lists += 1
        try:
            return outputs_page(one.entry.id, self.who, self.behind, start=place, limit=most)
        except NotFound:  # its time was over just now
            return Page([], None)
