"""A job that checks a release before jobs go to it: sent to that release alone, and followed to its end.

It is a job like any other, in the same table and buckets; its owner is of no key. Nobody sends it to other workers: if
its own lose it, the check has failed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import ComfyError, DeadlineExceeded, EngineCrashed, all_errors
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest, OutputTarget
from comfy_serverless.jobs.reserved import owner_prefix
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.settings import Settings
from comfy_serverless.table.job_state import JobState, NewJob

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.table.jobs import JobStore
    from comfy_serverless.table.workers import Workers

#: Whose jobs checks are. Keys may not be made for it by accident: it is no name that a person has.
OWNER = "release-check"
#: Nodes of ComfyUI itself, no model: it says that ComfyUI starts, runs and delivers.
CHECK: Mapping[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 3368601},
        "_meta": {"title": "A small picture"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "release-check"}},
}
_ASK_EVERY_S = 0.5
#: How much longer than it is waited for the caretaker leaves it alone, in seconds.
_LONGER_S = 300

Show = Callable[[float, str], None]


class Workflow(NamedTuple):
    """What a check runs: a graph, or what the editor saved, and values to be set in it."""

    graph: Mapping[str, Any]
    values: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """Runs checks.

    Attributes:
        workers: those of the release.
        timeout_s: how long it may take, from no instance to the end of the job.
    """

    jobs: JobStore
    s3: S3Client
    assets_bucket: str
    output_bucket: str
    workers: Workers
    release: str
    timeout_s: float

    def run(self, workflow: Workflow, inputs: Sequence[tuple[str, Path]], show: Show) -> dict[str, Any]:
        """Run a workflow with these files, and return the job as it ended, as the API shows jobs.

        Raises:
            DeadlineExceeded: it has not ended in time. It is asked to end.
        """
        state, message = self._submitted(workflow, inputs)
        until = time.monotonic() + self.timeout_s
        try:
            self.workers.send(message)
            self.jobs.dispatched(state.id, for_s=int(self.timeout_s) + _LONGER_S)
            while not state.is_over:
                if time.monotonic() > until:
                    self._give_up(state)
                show(*_how_far(state))
                time.sleep(_ASK_EVERY_S)
                state = self.jobs.read(state.id) or state
        except BaseException:
            self.jobs.cancel(state)
            raise
        return state.document().to_json()

    def _give_up(self, state: JobState) -> NoReturn:
        raise DeadlineExceeded(
            f"{self.release!r} was not promoted, and nothing was moved: the check (job {state.id}) has not ended "
            f"within {self.timeout_s:g} s, and was {state.status.value} then. `--timeout` gives more: a first "
            "instance takes minutes.",
            details={"job_id": state.id, "release": self.release},
        )

    def _submitted(self, workflow: Workflow, inputs: Sequence[tuple[str, Path]]) -> tuple[JobState, JobMessage]:
        """Write the job, and what is to be sent to its workers."""
        job_id = f"check-{self.release}-{uuid.uuid4().hex[:12]}"
        folder = f"requests/{OWNER}/{job_id}"
        place = OutputTarget(bucket=self.output_bucket, prefix=owner_prefix(OWNER, Settings()))
        request = JobRequest(
            job_id=job_id,
            workflow=dict(workflow.graph),
            set=dict(workflow.values),
            inputs=self._uploaded(inputs, folder),
            output=place,
            reply="links",
            deadline_s=self.timeout_s,
            metadata={"release": self.release},
        )
        stored = StoredRequest(request, dict(workflow.graph))
        address = S3Address(self.assets_bucket, f"{folder}.json")
        stored.write(self.s3, address)
        job = NewJob(
            job_id=job_id,
            owner=OWNER,
            request_uri=str(address),
            result_uri=str(result_address(job_id, place, Settings())),
            labels=request.metadata,
            is_rerunnable=False,
            release=self.release,
        )
        message = JobMessage(
            job_id=job_id,
            address=address,
            owner=OWNER,
            content=stored.in_message(),
            result=S3Address.parse(job.result_uri),
        )
        return self.jobs.submit(job), message

    def _uploaded(self, inputs: Sequence[tuple[str, Path]], folder: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, (name, path) in enumerate(inputs):
            key = f"{folder}/{number}/{path.name}"
            self.s3.upload_file(str(path), self.assets_bucket, key)
            found[name] = f"s3://{self.assets_bucket}/{key}"
        return found


def failure_of(job: Mapping[str, Any]) -> ComfyError | None:
    """What the end of a check means: None if it has succeeded."""
    if job["status"] == "succeeded":
        return None
    error: Mapping[str, Any] = job.get("error") or {}
    classes = {kind.code: kind for kind in all_errors() if vars(kind).get("code")}
    kind = classes.get(str(error.get("code")), EngineCrashed)
    return kind(str(error.get("message") or f"it ended as {job['status']}"), details=error.get("details"))


def failed_check(failure: ComfyError, release: str, *, job: Mapping[str, Any], stack: str) -> ComfyError:
    """What a failed check means, with the node, the job and where to look."""
    error: Mapping[str, Any] = job.get("error") or {}
    node = " ".join(str(error[name]) for name in ("node_id", "class_type") if error.get(name))
    at = f" at node {node}" if node else ""
    return type(failure)(
        f"{release!r} was not promoted, and nothing was moved: its check failed{at}: {failure.message.rstrip('.')}. "
        f"Job {job['id']}; what its workers logged: comfy-serverless logs {job['id']} --stack {stack}. "
        "Mend the image and deploy the release again, or give a workflow that it is meant for: --check FILE.",
        details={**failure.details, "job_id": job["id"], "release": release},
    )


def _how_far(state: JobState) -> tuple[float, str]:
    progress = state.document().progress
    if progress is None or state.run is None:
        return 0.0, f"check: {state.status.value}"
    return progress.value, f"check: {progress.message or state.status.value}"
