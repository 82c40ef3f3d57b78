"""A run of a named workflow: from its name and values to a job. `POST …/runs` and the tools of agents begin it here.

    name, values ──► the version (one read) ──► all problems of the values ──► a submit like any other

The same Idempotency-Key with the same request is the same job, whatever its alias leads to by then: the job's id is
made of the key and of what was asked. With another request, the key is refused.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from comfy_serverless.api.auth import Caller
from comfy_serverless.api.run_bodies import IS_INPUT, Asked, hint_at_options, problems_in
from comfy_serverless.api.services import Services
from comfy_serverless.api.submission import Submission, submit
from comfy_serverless.errors import ComfyError, InvalidRequest, UpstreamError
from comfy_serverless.jobs.document import MAX_ERROR_TEXT
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.table.job_state import JobExists, JobState
from comfy_serverless.table.jobs import check_idempotency_key
from comfy_serverless.workflows.meant import SHARED
from comfy_serverless.workflows.reference import Reference
from comfy_serverless.workflows.request import expand
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run that somebody asks for.

    Attributes:
        asked: the values by the names of the inputs, and the options of the job.
        is_shared: whether the operator's is meant, whatever the caller has of that name.
        sticky: the same text gets the same version, as long as the weights of the alias are the same.
    """

    reference: Reference
    asked: Asked
    caller: Caller
    idempotency_key: str | None = None
    is_shared: bool = False
    sticky: str | None = None

    @property
    def workflow(self) -> str:
        """What is run, as every door names it."""
        return f"{SHARED if self.is_shared else ''}{self.reference.to_text()}"


class Started(NamedTuple):
    """The job of a run, and whether this call has made it."""

    state: JobState
    is_new: bool


def start(run: NamedRun, services: Services) -> Started:
    """Submit a run.

    Raises:
        NotFound: there is no such workflow, version or alias.
        ComfyError: it is refused, as `submit` does; the values that do not fit are all in `details.errors`.
    """
    check_idempotency_key(run.idempotency_key)
    job_id = str(uuid.uuid4()) if run.idempotency_key is None else _id_of(run, run.idempotency_key)
    try:
        return Started(submit(_submission(run, job_id, services), services), is_new=True)
    except (ComfyError, JobExists) as refusal:
        standing = None if run.idempotency_key is None else services.jobs.read_alone(job_id)
        if standing is not None and standing.owner == run.caller.owner:
            return Started(standing, is_new=False)
        if isinstance(refusal, JobExists):
            raise UpstreamError("there is a job of the id that was drawn for this one: send it again.") from refusal
        raise


def _submission(run: NamedRun, job_id: str, services: Services) -> Submission:
    key = run.sticky or run.idempotency_key or job_id
    version = services.named.find(run.workflow, owner=run.caller.owner, key=key)
    request = _request(run, job_id)
    return Submission(
        request=_expanded(request, version, run.asked, check=services.named.check_of(version)),
        caller=run.caller,
        idempotency_key=run.idempotency_key,
        webhook_url=run.asked.options.webhook_url,
        webhook_secret=run.asked.options.webhook_secret,
    )


def _request(run: NamedRun, job_id: str) -> JobRequest:
    """What is asked for, as any door would say it. Raises InvalidRequest for what no request may have."""
    options = run.asked.options
    fields = {
        "job_id": job_id,
        "workflow": run.workflow,
        # As at every door, null leaves an input as the version has it.
        "inputs": {name: value for name, value in run.asked.inputs.items() if value is not None},
        "deadline_s": options.deadline_s,
        "metadata": options.metadata,
        "extra_data": options.extra_data.model_dump(exclude_none=True) if options.extra_data else None,
    }
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        raise _refusal(run.reference.name, (*problems_in(error), *run.asked.problems)) from None


def _expanded(request: JobRequest, version: Version, asked: Asked, *, check: InputCheck) -> JobRequest:
    """The request with its graph. Raises InvalidRequest with all problems at once, of inputs and of options."""
    named = {one.name for one in version.inputs}
    problems = [(field, IS_INPUT if field in named else problem) for field, problem in asked.problems]
    try:
        expanded = expand(request, version, check=check, strict=True)
    except InvalidRequest as refusal:
        found = refusal.details.get("errors")
        if not isinstance(found, list):
            raise
        problems = [*(_with_hint(one["field"], one["problem"], asked) for one in found), *problems]
    else:
        if not problems:
            return expanded
    raise _refusal(version.name, problems)


def _refusal(name: str, problems: Sequence[tuple[str, str]]) -> InvalidRequest:
    listing = "; ".join(f"{field}: {problem}" for field, problem in problems[:20])
    return InvalidRequest(
        f"The workflow {name!r} cannot be run so: {listing}."[:MAX_ERROR_TEXT],
        details={"errors": [{"field": field, "problem": problem} for field, problem in problems]},
    )


def _with_hint(field: str, problem: str, asked: Asked) -> tuple[str, str]:
    """A problem; that of an option's name among flat inputs says where options stand."""
    hint = hint_at_options(field.removeprefix("inputs.")) if asked.is_flat else ""
    return field, hint or problem


def _id_of(run: NamedRun, key: str) -> str:
    """The id of the job that this key makes of this request, and of no other; nobody else's key makes it."""
    options = run.asked.options.model_dump(mode="json", exclude_none=True)
    asked = [run.caller.owner, key, run.workflow, dict(run.asked.inputs), options, run.asked.problems]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
