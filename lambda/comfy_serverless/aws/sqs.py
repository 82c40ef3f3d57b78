"""Queues of SQS, as small as we need them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from comfy_serverless.observability import log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: How long a queue's depth is taken for known, in seconds.
DEPTH_KNOWN_S = 5.0
#: SQS's own limit for one call.
MAX_MESSAGES = 10
CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=2,
    read_timeout=5,
)


class NotSent(TimeoutError):
    """A queue has not taken all messages: they must be sent again."""


def sqs_client() -> SQSClient:
    """The client of the queues, with standard retries."""
    return boto3.client("sqs", config=CONFIG)


def come_again(message_ids: Iterable[str]) -> dict[str, Any]:
    """Lambda's partial batch response: these messages are delivered again, the others are done."""
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in message_ids]}


def take_each(
    messages: Iterable[Mapping[str, Any]], take: Callable[[Mapping[str, Any]], bool], *, failing: str
) -> dict[str, Any]:
    """Deal with each message of an event in turn, and return which are to come again.

    Args:
        take: returns whether the message is done. One that fails comes again, and the others do not pay for it.
        failing: what is logged of it then.
    """
    again = []
    for message in messages:
        try:
            is_done = take(message)
        except Exception:  # noqa: BLE001  (whatever it is, the others must not pay for it)
            log.exception(failing, message_id=message["messageId"])
            is_done = False
        if not is_done:
            again.append(message["messageId"])
    return come_again(again)


@dataclass(slots=True)
class JobQueue:
    """A queue of SQS that Lambda functions take jobs from."""

    sqs: SQSClient
    url: str
    _depth: int = 0
    _hidden: int = 0
    _depth_at: float = field(default=-DEPTH_KNOWN_S)

    def send(self, message: str, *, delay_s: int = 0) -> None:
        """Send one message."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=message, DelaySeconds=delay_s)

    def send_many(self, messages: Sequence[str]) -> None:
        """Send many, ten at a time.

        Raises:
            NotSent: SQS has not taken all of them; those it has taken are sent.
        """
        for first in range(0, len(messages), MAX_MESSAGES):
            entries: Any = [
                {"Id": str(number), "MessageBody": message}
                for number, message in enumerate(messages[first : first + MAX_MESSAGES])
            ]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            if failed := answer.get("Failed"):
                raise NotSent(f"{len(failed)} messages were not taken: {failed[0].get('Message') or failed[0]['Code']}")

    def depth(self) -> int:
        """How many messages wait, about: SQS's own figure, some seconds old."""
        self._look()
        return self._depth

    def hidden(self) -> int:
        """How many messages somebody has taken and not yet dealt with, about."""
        self._look()
        return self._hidden

    def _look(self) -> None:
        if time.monotonic() - self._depth_at < DEPTH_KNOWN_S:
            return
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        self._depth = int(answer["ApproximateNumberOfMessages"])
        self._hidden = int(answer["ApproximateNumberOfMessagesNotVisible"])
        self._depth_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class WebhookQueue:
    """The queue of ended jobs whose webhooks are to be called. Without an address there are no webhooks."""

    sqs: SQSClient | None
    url: str | None

    @staticmethod
    def job_of(message: str) -> str:
        """The job that a message is about.

        Raises:
            ValueError, KeyError, TypeError: it is none of ours.
        """
        return str(json.loads(message)["job"])

    def send(self, job_id: str) -> None:
        """Have a job's webhook called."""
        if self.sqs is not None and self.url is not None:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps({"job": job_id}))
