"""Routes of named workflows (ours): list, show, push, move an alias, retire, run.

Owners are apart: a workflow is the caller's own, or one that the operator shares, or a file in the image. What another
owner has is not there. The operator's are never written through the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel

from comfy_serverless.api import workflow_views as views
from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import INVALID, MAX_WAIT_S, NOT_FOUND, REFUSALS, UNREADABLE, ErrorEnvelope, documented
from comfy_serverless.api.body_reader import EVERY_PATH, BodyReader, left_out
from comfy_serverless.api.jobs import IdempotencyKey, answer_at_end, answer_job, moment_in
from comfy_serverless.api.named_runs import NamedRun, start
from comfy_serverless.api.paging import Cursor, bad_cursor, checked_cursor
from comfy_serverless.api.responses import answer
from comfy_serverless.api.run_bodies import read_run
from comfy_serverless.api.services import services
from comfy_serverless.api.workflow_bodies import (
    AliasBody,
    PushBody,
    Pushed,
    VersionList,
    Workflow,
    WorkflowEntry,
    WorkflowList,
    WorkflowVersion,
    read_push,
)
from comfy_serverless.api.workflow_lookup import entries, own_head, seen
from comfy_serverless.api.workflow_pushes import draft
from comfy_serverless.errors import InvalidRequest, NotFound, PayloadTooLarge
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES, Job
from comfy_serverless.workflows.checkup import refuse_broken
from comfy_serverless.workflows.items import Head
from comfy_serverless.workflows.meant import SHARED
from comfy_serverless.workflows.reference import NAME, Reference, check_alias, check_name

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

LIST = "/api/v2/workflows"
ONE = f"{LIST}/<name>"
MAX_PAGE, DEFAULT_PAGE = 100, 50
#: How much of a sticky key counts.
MAX_STICKY_CHARACTERS = 255

Name = Annotated[str, Path(description="The workflow's name.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
AliasQuery = Annotated[str | None, Query(description="Whose version is meant; `live` if nothing is said.")]
VersionQuery = Annotated[int | None, Query(ge=0, le=999_999, description="The version; 0 is a file in the image.")]
SourceQuery = Annotated[
    Literal["operator", "image"] | None,
    Query(description="Whose is meant, whatever you have of that name: what the operator shares, or the image's file."),
]
_TAG = "named workflows"


@router.get(
    LIST,
    summary="List named workflows (ours)",
    tags=[_TAG],
    description="Your own, those that the operator shares, and files in the image, by name.",
    responses={200: documented("A page of workflows.", WorkflowList), **INVALID, **REFUSALS},
)
def list_workflows(limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Response[str]:
    """Return a page of what the caller can run."""
    after = checked_cursor(cursor, NAME) or ""
    found = list(islice(entries(services(router), caller(router).owner, after=after), limit + 1))
    more = found[limit - 1].name if len(found) > limit else None
    return _shown(WorkflowList(workflows=found[:limit], next_cursor=more))


@router.get(
    ONE,
    summary="Show a named workflow: its inputs, outputs and aliases (ours)",
    tags=[_TAG],
    responses={200: documented("The workflow.", Workflow), **NOT_FOUND, **INVALID, **REFUSALS},
)
def get_workflow(
    name: Name, alias: AliasQuery = None, version: VersionQuery = None, source: SourceQuery = None
) -> Response[str]:
    """Return a head, and what one of its versions takes: of two behind an alias, that of the greater weight."""
    reference = _reference(name, alias, version, source)
    behind, owner = services(router), caller(router).owner
    found = seen(behind, reference, owner=owner, is_shared=source == "operator")
    return _shown(views.described(found.head, found.version, behind.declarations.fresh(), name=name))


@router.get(
    f"{ONE}/versions",
    summary="List the versions of a named workflow, newest first (ours)",
    tags=[_TAG],
    responses={200: documented("A page of versions.", VersionList), **NOT_FOUND, **INVALID, **REFUSALS},
)
def list_versions(
    name: Name, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, source: SourceQuery = None
) -> Response[str]:
    """Return a page of versions, without their graphs."""
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and 0 < int(cursor[:7]) <= 999_999):
        raise bad_cursor()
    reference = _reference(name, None, None, source)
    head = seen(services(router), reference, owner=caller(router).owner, is_shared=source == "operator").head
    if head is None:
        raise NotFound(f"the workflow {name!r} is a file in the image: it has version 0, and no other.")
    before = {} if cursor is None else {"before": int(cursor)}
    rows = list(islice(services(router).workflows.versions(head.owner, name, **before), limit + 1))
    more = str(rows[limit - 1].number) if len(rows) > limit else None
    return _shown(VersionList(versions=[views.version_entry(row, head) for row in rows[:limit]], next_cursor=more))


@router.get(
    f"{ONE}/versions/<number>",
    summary="A version with its graph (ours)",
    tags=[_TAG],
    description="Nothing of a version ever changes: its `ETag` stays good.",
    responses={
        200: documented("The version.", WorkflowVersion),
        413: documented("`invalid_request`: it has more than an answer may.", ErrorEnvelope),
        **NOT_FOUND,
        **INVALID,
        **REFUSALS,
    },
)
def get_version(
    name: Name, number: Annotated[int, Path(ge=0, le=999_999)], source: SourceQuery = None
) -> Response[str]:
    """Return all that is kept of a version."""
    reference = _reference(name, None, number, source).to_text()
    meant = f"{SHARED}{reference}" if source == "operator" else reference
    version = services(router).named.find(meant, owner=caller(router).owner, key="")
    tag = f'"{version.content_sha256[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if tag in (router.current_event.headers.get("if-none-match") or ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, body="", headers=headers)
    return _shown(views.whole_version(version), headers=headers)


@router.put(
    ONE,
    summary="Make a version of a named workflow (ours)",
    tags=[_TAG],
    description="Takes a workflow in any format and wrapper. What is the same as the newest version makes no new one. "
    "What would fail on the workers that are deployed is refused, without `force`: `findings` has all that is wrong.",
    responses={
        200: documented("`dry_run`: what would be made; or the newest version has this content already.", Pushed),
        201: documented("The version.", Pushed),
        409: documented("`workflow_changed`: others have changed it at the same moment.", ErrorEnvelope),
        503: documented("`engine_unavailable`: nobody has told yet which nodes the workers have.", ErrorEnvelope),
        **NOT_FOUND,  # a name that no path has
        **UNREADABLE,
        **INVALID,
        **REFUSALS,
    },
    enable_validation=False,  # by Powertools; ours differs only in how it reads bodies
    middlewares=[BodyReader(shapers={EVERY_PATH: read_push})],
)
def put_workflow(name: Name, body: Annotated[PushBody, Body()]) -> Response[str]:
    """Keep a workflow under a name, or show what would be kept."""
    behind, who = services(router), caller(router)
    made = draft(name, body, who, behind, left_out=left_out(router))
    object_info, prepared = behind.declarations.fresh(), made.prepared
    if body.dry_run:
        return _shown(views.would_be(prepared, object_info, notes=made.notes, findings=made.findings))
    if prepared.refusal is not None:
        raise prepared.refusal
    if not body.force:
        refuse_broken(name, made.findings)
    kept = behind.workflows.push(prepared.version, alias=body.alias, if_head=body.expected)
    head = behind.workflows.head(who.owner, name)
    shown = views.pushed(kept, object_info, notes=made.notes, findings=made.findings, is_new=kept.is_new, head=head)
    return _shown(shown, status=HTTPStatus.CREATED if kept.is_new else HTTPStatus.OK)


@router.post(
    f"{ONE}/alias",
    summary="Move an alias, or roll it back (ours)",
    tags=[_TAG],
    responses={
        200: documented("The workflow, as it is then.", WorkflowEntry),
        409: documented("`workflow_changed`: the alias was moved by somebody else meanwhile.", ErrorEnvelope),
        **NOT_FOUND,
        **UNREADABLE,
        **INVALID,
        **REFUSALS,
    },
)
def move_alias(name: Name, body: Annotated[AliasBody, Body()]) -> Response[str]:
    """Move an alias by one conditional write."""
    check_alias(body.alias)
    targets, expected = body.targets(), body.expects()
    head, store, by = _own_head(name), services(router).workflows, caller(router).key_name
    if targets is None:
        moved = store.rollback(head.owner, name, body.alias, by=by, expected=expected)
    else:
        moved = store.move(head.owner, name, body.alias, targets, by=by, expected=expected)
    return _shown(views.entry(moved))


@router.delete(
    f"{ONE}/alias/<alias>",
    summary="Drop an alias (ours)",
    tags=[_TAG],
    description="Runs that name it are refused from then on. The versions that it led to stay.",
    responses={
        200: documented("The workflow, as it is then.", WorkflowEntry),
        409: documented("`workflow_changed`: others have changed it at the same moment.", ErrorEnvelope),
        **NOT_FOUND,
        **INVALID,
        **REFUSALS,
    },
)
def drop_alias(name: Name, alias: Annotated[str, Path(description="The alias.")]) -> Response[str]:
    """Take an alias of the caller's away."""
    head = _own_head(name)
    return _shown(
        views.entry(services(router).workflows.drop_alias(head.owner, name, alias, by=caller(router).key_name))
    )


@router.delete(
    ONE,
    summary="Retire a named workflow (ours)",
    tags=[_TAG],
    description="It is hidden, and its runs are refused. Its versions stay: a push brings it back.",
    responses={204: {"description": "It is retired."}, **NOT_FOUND, **INVALID, **REFUSALS},
    status_code=204,
)
def retire_workflow(name: Name) -> Response[str]:
    """Hide a workflow of the caller's."""
    head = _own_head(name)
    services(router).workflows.retire(head.owner, name)
    return answer(HTTPStatus.NO_CONTENT, None)


@router.post(
    f"{ONE}/runs",
    summary="Run a named workflow (ours)",
    tags=[_TAG],
    description='The inputs by their names: `{"prompt": "a fox"}`. With options of the job: `{"inputs": {…}, '
    '"metadata": {…}, "webhook_url": …, "webhook_secret": …, "extra_data": {…}, "deadline_s": …}`. All that does not '
    "fit is said at once, before anything is queued. The same Idempotency-Key with the same request is the same job.",
    responses={
        200: documented("`wait_s`: the job has ended. Or the Idempotency-Key has made this job already.", Job),
        201: documented("The job, queued.", Job),
        202: documented("`wait_s`: the job has not ended yet: poll `urls.self`.", Job),
        **NOT_FOUND,
        **UNREADABLE,
        **INVALID,
        **REFUSALS,
    },
    status_code=201,
)
def run_workflow(
    name: Name,
    body: Annotated[dict[str, Any], Body(description="Inputs by name; or `inputs`, and options beside it.")],
    alias: AliasQuery = None,
    version: VersionQuery = None,
    source: SourceQuery = None,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="How long to wait for the end.")] = 0,
    sticky: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_STICKY_CHARACTERS, description="Of two versions, the same one each time."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[str]:
    """Check the inputs, and take the job, durably."""
    until = moment_in(wait_s)
    run = NamedRun(
        reference=_reference(name, alias, version, source),
        is_shared=source == "operator",
        asked=read_run(body),
        caller=caller(router),
        idempotency_key=idempotency_key,
        sticky=sticky,
    )
    state, is_new = start(run, services(router))
    if wait_s > 0:
        return answer_at_end(state, until=until)
    return answer_job(HTTPStatus.CREATED if is_new else HTTPStatus.OK, state)


def body_of(method: str, path: str) -> type[BaseModel] | None:
    """What the body of a request may have, to guess what was meant by a field that it does not have."""
    if not path.startswith(f"{LIST}/"):
        return None
    return PushBody if method == "PUT" else AliasBody if path.endswith("/alias") else None


def _reference(name: str, alias: str | None, version: int | None, source: str | None = None) -> Reference:
    """The reference of a path and its query. Raises NotFound for a name that nothing can have."""
    if alias is not None and version is not None:
        raise InvalidRequest("`alias` and `version` are both given: an alias leads to a version, so send one of them.")
    _check_known(name)
    if source == "image":
        if alias is not None or version:
            raise InvalidRequest("`source=image` is the file in the image: it has version 0 alone, and no alias.")
        return Reference(name, None, 0)
    if alias is not None:
        return Reference(name, check_alias(alias))
    return Reference(name) if version is None else Reference(name, None, version)


def _check_known(name: str) -> None:
    try:
        check_name(name)
    except InvalidRequest as error:
        plain, at, which = name.partition("@")
        hint = f": say which version in the query, {plain}?alias={which}" if at else ""
        raise NotFound(f"there is no workflow {name[:100]!r}{hint}.") from error


def _own_head(name: str) -> Head:
    """A head that the caller may change. Raises NotFound."""
    _check_known(name)
    return own_head(services(router), name, owner=caller(router).owner)


def _shown(
    document: BaseModel, *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response[str]:
    response = answer(status, document.model_dump(exclude_none=True), headers)
    if (size_bytes := len(response.body or "")) > REPLY_LIMIT_BYTES:  # a push that was made stays made
        raise PayloadTooLarge(
            f"the answer would have {size_bytes:,} bytes, and at most {REPLY_LIMIT_BYTES:,} can be sent: long choices, "
            f"defaults or graphs are not shown here; GET {LIST}/NAME/versions lists which versions there are."
        )
    return response
