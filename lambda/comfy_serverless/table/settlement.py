"""SageMaker's notifications of ended invocations, and what they mean for jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from comfy_serverless.errors import EngineCrashed, JobExpired
from comfy_serverless.jobs.document import JobStatus, clean
from comfy_serverless.observability import about, log
from comfy_serverless.table.care import Care, is_too_old
from comfy_serverless.table.job_state import JobState

_MAX_REASON_CHARACTERS = 2000


class Unreadable(ValueError):
    """A message that is no notification of SageMaker; the error's text has its beginning."""


class Ended(StrEnum):
    """How an invocation ended, in SageMaker's words."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """SageMaker's notification of one ended invocation: the inference id is the job's id."""

    job_id: str
    status: Ended
    reason: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a message. Raises Unreadable if it has no id or no known status.

        The place of the failure's fields differs between versions of the service.
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
    """Ends jobs that no worker has."""

    care: Care

    def hear(self, message: str) -> bool:
        """Do what a message of SageMaker asks for; returns False if it cannot be read, and never could be.

        A repeated or old message changes nothing.
        """
        try:
            notification = Notification.parse(message)
        except Unreadable:
            log.exception("a notification cannot be read")
            return False
        with about(notification.job_id):
            self._settle(notification)
        return True

    def _settle(self, notification: Notification) -> None:
        log.info("SageMaker tells how an invocation ended", status=notification.status.value)
        state = self.care.jobs.read(notification.job_id)
        if state is None or state.is_parked:
            return  # it is no job of the API, or waits for its batch to be resumed and has not ended
        if state.status is JobStatus.QUEUED and state.runs == 0:
            # Whatever its lease says: the job's message is gone.
            self._settle_unbegun(state, notification)
        elif state.lease_ended:
            self.care.attend(state)
        # Else a worker has it, or it waits for another run: its lease ends if that comes to nothing.

    def _settle_unbegun(self, state: JobState, notification: Notification) -> None:
        match notification.status:
            case Ended.EXPIRED if state.is_rerunnable and not is_too_old(state):
                self.care.send_again(state)  # jobs that are still in its queue go on waiting, too
            case Ended.EXPIRED:
                expired = JobExpired("the endpoint has had no room for the job in all the time it keeps one.")
                self.care.end(state, expired, status=JobStatus.EXPIRED)
            case Ended.FAILED:
                reason = notification.reason
                why = f": {reason}" if reason else ", and SageMaker does not say why"
                error = EngineCrashed(
                    f"the endpoint could not hand the job to a container{why}. Its log in /aws/sagemaker/Endpoints "
                    "tells more.",
                    details={"reason": reason},
                )
                self.care.send_undelivered(state, error)
            case Ended.COMPLETED:
                log.warning("an invocation has succeeded without its job having begun")
