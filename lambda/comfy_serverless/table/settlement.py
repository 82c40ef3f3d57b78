"""What SageMaker says of an invocation, and what that means for its job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from comfy_serverless.errors import EngineCrashed, JobExpired
from comfy_serverless.jobs.document import JobStatus, clean
from comfy_serverless.observability import log
from comfy_serverless.table.care import Care, is_too_old
from comfy_serverless.table.job_state import JobState

_MAX_REASON_CHARACTERS = 2000


class Unreadable(ValueError):
    """A notification that is none of SageMaker's; the message says what it was."""


class Ended(StrEnum):
    """How SageMaker says that an invocation ended."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What SageMaker tells of one invocation.

    Attributes:
        job_id: the inference id.
        reason: why it failed, as far as SageMaker knows.
    """

    job_id: str
    status: Ended
    reason: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a message; the place of the failure's fields differs between versions of the service.

        Raises:
            Unreadable: it has no id, or no status that we know.
        """
        try:
            message = json.loads(text)
            response = message.get("responseParameters") or {}
            reason = message.get("failureReason") or response.get("failureReason") or ""
            status, job_id = Ended(message["invocationStatus"]), str(message["inferenceId"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable(f"not a notification of SageMaker ({error!r}): {text[:500]}") from error
        return cls(job_id=job_id, status=status, reason=clean(str(reason)[:_MAX_REASON_CHARACTERS]))


@dataclass(frozen=True, slots=True)
class Settlement:
    """Brings jobs to their end that no worker has."""

    care: Care

    def hear(self, message: str) -> bool:
        """Do what a message of SageMaker asks for; returns False where it cannot be read, and never could be."""
        try:
            told = Notification.parse(message)
        except Unreadable:
            log.exception("a notification cannot be read")
            return False
        self.settle(told)
        return True

    def settle(self, told: Notification) -> None:
        """Do what a notification asks for. The same one again, or an old one, changes nothing."""
        state = self.care.jobs.read(told.job_id)
        if state is None:
            log.info("an invocation that is no job of the API has ended", job_id=told.job_id, status=told.status.value)
        elif state.is_parked:
            log.info("a job that waits for its batch to go on has ended nowhere", job_id=told.job_id)
        elif state.status is JobStatus.QUEUED and state.runs == 0:
            # Whatever its lease says: the message that this is about is gone.
            self._settle_unbegun(state, told)
        elif state.lease_ended:
            self.care.attend(state)
        # Else a worker has it, or it waits for another run: its lease tells if that comes to nothing.

    def _settle_unbegun(self, state: JobState, told: Notification) -> None:
        match told.status:
            case Ended.EXPIRED if state.is_of_batch and not is_too_old(state):
                self.care.send_again(state)  # nobody waits for it: it goes to the end of the batch's own queue
            case Ended.EXPIRED:
                error = JobExpired("the endpoint has had no room for the job in all the time it keeps one.")
                self.care.end(state, error, status=JobStatus.EXPIRED)
            case Ended.FAILED:
                self.care.send_undelivered(state, EngineCrashed(_unbegun(told), details={"reason": told.reason}))
            case Ended.COMPLETED:
                log.warning("an invocation has succeeded without its job having begun", job_id=state.id)


def _unbegun(told: Notification) -> str:
    reason = f": {told.reason}" if told.reason else ", and SageMaker does not say why"
    return (
        f"the endpoint could not hand the job to a container{reason}. Its log in /aws/sagemaker/Endpoints tells more."
    )
