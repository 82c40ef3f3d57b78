"""`GET /api/v2/workflows/doctor`: which of the caller's named workflows would fail, and why (ours).

Every version that an alias leads to is held against what the live workers declare, or those of another release; and so
are the files in the image, version 0, against the live ones. Nothing is run, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, documented
from comfy_serverless.api.paging import Cursor, checked_cursor
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.api.workflow_bodies import Finding
from comfy_serverless.api.workflow_lookup import own_head
from comfy_serverless.errors import NotFound
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.workflows.items import Head
from comfy_serverless.workflows.reference import NAME, check_name

if TYPE_CHECKING:
    from comfy_serverless.workflows.deployed import Deployed

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

PATH = "/api/v2/workflows/doctor"
#: Names on a page: each may have several versions, and each of those is read.
_MAX_PAGE, _DEFAULT_PAGE = 100, 20


class ExaminedVersion(BaseModel):
    """A version that an alias leads to; `aliases` says with which share of its runs, from 0 to 1."""

    name: str
    version: int
    aliases: dict[str, float]
    breaks: bool
    findings: list[Finding]


class BrokenVersion(BaseModel):
    """A version that would fail, with the first reason."""

    name: str
    version: int
    aliases: list[str]
    message: str


class LastCheck(BaseModel):
    """What was found of the caller's workflows when they were checked by themselves: whenever what workers declare has
    changed, each day, and each hour while something would fail.

    Attributes:
        at: when it was written.
        release_version: what the workers' image was built from; absent if that is not known.
        is_over: whether all were looked at by then.
        versions: how many were looked at; `breaks` would fail, and `broken` has the first 50 of those.
    """

    at: str
    release_version: str | None = None
    is_over: bool
    versions: int
    breaks: int
    broken: list[BrokenVersion]


class Diagnosis(BaseModel):
    """What is wrong with a page of the caller's workflows.

    Attributes:
        release: whose workers they were held against.
        release_version: what those were built from; absent if that is not known.
        is_known: whether anybody has told what these workers have; if not, nothing could be checked.
        breaks: how many versions on this page would fail.
        last_check: what was found without anybody asking; absent before the first time.
    """

    release: str
    release_version: str | None = None
    is_known: bool
    breaks: int
    versions: list[ExaminedVersion]
    last_check: LastCheck | None = None
    next_cursor: str | None = None


@router.get(
    PATH,
    summary="Which named workflows would fail on the workers, and why (ours)",
    tags=["named workflows"],
    description="Every version of yours that an alias leads to, and the files of the image (version 0), held against "
    "what the live workers declare; or yours against those of another release. `?name=` looks at one workflow alone. "
    "Nothing is run.",
    responses={200: documented("What is wrong.", Diagnosis), **NOT_FOUND, **INVALID, **REFUSALS},
)
def get_diagnosis(
    release: Annotated[str | None, Query(max_length=100, description="A release, as `release ls` shows it.")] = None,
    name: Annotated[str | None, Query(max_length=100, description="One workflow alone.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _DEFAULT_PAGE,
    cursor: Cursor = None,
) -> Response[str]:
    """Examine a page of the caller's workflows."""
    # And what looks at graphs: no other start waits for it.
    from comfy_serverless.workflows.doctor import examined, examined_file, name_of
    from comfy_serverless.workflows.recheck import Found

    behind, owner = services(router), caller(router).owner
    called, deployed = _deployed(behind, release)
    named = _named(behind, owner, name, with_files=release is None, after=checked_cursor(cursor, NAME) or "")
    page = list(islice(named, limit + 1))
    heads = [one for one in page[:limit] if isinstance(one, Head)]
    files = [examined_file(behind.named, one, deployed) for one in page[:limit] if isinstance(one, str)]
    others = examined(heads, behind.workflows, deployed, each=behind.beside.map)
    found = [one.to_json() for one in sorted((*others, *files), key=lambda one: one.name)]
    last = Found.of(behind.table, owner)
    document: dict[str, Any] = {
        "release": called,
        "release_version": (deployed.release if deployed is not None else "") or None,
        "is_known": deployed is not None,
        "breaks": sum(one["breaks"] for one in found),
        "versions": found,
        "last_check": last and last.to_json(),
        "next_cursor": name_of(page[limit - 1]) if len(page) > limit else None,
    }
    return answer(HTTPStatus.OK, Diagnosis(**document).model_dump(exclude_none=True))


def _named(behind: Services, owner: str, name: str | None, *, with_files: bool, after: str) -> Iterator[Head | str]:
    """What is examined, by name: the owner's, and files in the image that none of those hides. Raises NotFound.

    Args:
        with_files: whether the files that are known here are those of the workers.
    """
    from comfy_serverless.workflows.doctor import heads_and_files

    if name is not None:
        is_file = with_files and check_name(name) in behind.named.files()
        if is_file and behind.workflows.head(owner, name) is None:
            return iter([name])
        return iter([own_head(behind, check_name(name), owner=owner)])
    files = behind.named.files() if with_files else []
    return heads_and_files(behind.workflows.heads(owner, after=after), files, after=after)


def _deployed(behind: Services, release: str | None) -> tuple[str, Deployed | None]:
    """The name of a release, and what its workers have told; without a name that of those which are live."""
    from comfy_serverless.workflows.deployed import Deployed

    if release is None:
        return behind.workers.release()[0], Deployed.told(behind.declarations, behind.node_list.not_imported)
    build = behind.workers.build_of(release)
    if build is None:
        raise NotFound(f"there is no release {release!r}: `comfy-serverless release ls` shows those there are.")
    return release, Deployed.of_build(behind.s3, behind.assets_bucket, Build(*build))
