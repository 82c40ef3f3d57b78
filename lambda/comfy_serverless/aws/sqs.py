"""Queues of SQS, as small as we need them."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config

from comfy_serverless.observability import log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: How long a queue's depth counts as known, in seconds.
DEPTH_KNOWN_S = 5.0
#: SQS's own limit for one call.
MAX_MESSAGES = 10
#: What SQS takes as a message group: ASCII letters, digits and punctuation. Source: its API, SendMessage.
_GROUP = re.compile(r"[!-~]{1,128}")
#: How groups begin that are made of other names.
_HASHED = "sha256:"
#: The pauses before a message that was given back comes for the second, third, … time, in seconds; the last counts for
#: all further ones.
AGAIN_AFTER_S = (30, 60, 120, 240, 480, 960, 1920, 3600)
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=2, read_timeout=5)


class NotSent(TimeoutError):
    """A queue has not taken all messages: they must be sent again."""


def sqs_client() -> SQSClient:
    """The client of the queues, with standard retries."""
    return boto3.client("sqs", config=CONFIG)


def come_again(message_ids: Iterable[str]) -> dict[str, Any]:
    """Lambda's partial batch response: these messages are delivered again, the others are done."""
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in message_ids]}


def take_each(
    messages: Iterable[Mapping[str, Any]],
    take: Callable[[Mapping[str, Any]], bool],
    *,
    failing: str,
    keys: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda _message: {},
) -> dict[str, Any]:
    """Deal with each message of an event in turn, and return which must come again.

    `take` returns whether a message is done. One that fails comes again, logged as `failing` with `keys` of it; the
    others go on.
    """
    again = []
    for message in messages:
        try:
            is_done = take(message)
        except Exception:  # noqa: BLE001  (whatever it is, the others must not pay for it)
            log.exception(failing, extra={"message_id": message["messageId"], **keys(message)})
            is_done = False
        if not is_done:
            again.append(message["messageId"])
    return come_again(again)


def pause_s(received: int, pauses_s: Sequence[int] = AGAIN_AFTER_S) -> int:
    """How long a message that has been received this often, and was given back, stays hidden, in seconds.

    A tenth more or less, so that messages that have failed together do not come together again.
    """
    pause = pauses_s[min(max(received, 1), len(pauses_s)) - 1]
    return round(pause * random.uniform(0.9, 1.1))  # noqa: S311  (spreads messages only)


def receive_count(message: Mapping[str, Any]) -> int:
    """How often a message of an event has been delivered, this time included; 1 if it does not say."""
    attributes = message.get("attributes")
    count = str(attributes.get("ApproximateReceiveCount")) if isinstance(attributes, Mapping) else ""
    return int(count) if count.isdecimal() else 1


def queue_url(sqs: SQSClient, arn: str) -> str:
    """The address of a queue in this region, by the ARN that events of SQS name it with."""
    account, name = arn.split(":")[4:6]
    return f"{sqs.meta.endpoint_url.rstrip('/')}/{account}/{name}"


def group_of(tenant: str) -> str:
    """The message group of a tenant of any name: the name itself, or its hash if SQS does not take it.

    Two names never share a group, and a name has the same one for ever.
    """
    if _GROUP.fullmatch(tenant) and not tenant.startswith(_HASHED):
        return tenant
    return _HASHED + hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class JobQueue:
    """A queue of SQS that Lambda functions take jobs from, fair between tenants.

    It is a standard queue. While one tenant takes a large share of what its consumers can do, SQS delivers the messages
    of the others first. Source: "Amazon SQS fair queues" in its developer guide.
    """

    sqs: SQSClient
    url: str
    _known: tuple[int, int] = (0, 0)
    _known_at: float = -DEPTH_KNOWN_S

    def send(self, message: str, *, tenant: str, delay_s: int = 0) -> None:
        """Send one message of a tenant."""
        self.sqs.send_message(
            QueueUrl=self.url, MessageBody=message, MessageGroupId=group_of(tenant), DelaySeconds=delay_s
        )

    def send_many(self, messages: Sequence[tuple[str, str]]) -> None:
        """Send many, each with its tenant before it, ten at a time.

        Raises NotSent if SQS has not taken all; those it has taken are sent.
        """
        for first in range(0, len(messages), MAX_MESSAGES):
            entries: Any = [
                {"Id": str(number), "MessageBody": message, "MessageGroupId": group_of(tenant)}
                for number, (tenant, message) in enumerate(messages[first : first + MAX_MESSAGES])
            ]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            if failed := answer.get("Failed"):
                raise NotSent(f"{len(failed)} messages were not taken: {failed[0].get('Message') or failed[0]['Code']}")

    def depth(self) -> int:
        """About how many messages wait: SQS's own figure, some seconds old."""
        return self._counts()[0]

    def hidden(self) -> int:
        """About how many messages have been taken and not yet dealt with."""
        return self._counts()[1]

    def _counts(self) -> tuple[int, int]:
        if time.monotonic() - self._known_at >= DEPTH_KNOWN_S:
            waiting: Final = "ApproximateNumberOfMessages"
            hidden: Final = "ApproximateNumberOfMessagesNotVisible"
            answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=[waiting, hidden])["Attributes"]
            self._known, self._known_at = (int(answer[waiting]), int(answer[hidden])), time.monotonic()
        return self._known


@dataclass(frozen=True, slots=True)
class WebhookQueue:
    """The queue of ended jobs whose webhooks must be called. Without an address there are no webhooks."""

    sqs: SQSClient | None
    url: str | None

    @staticmethod
    def job_of(message: str) -> str:
        """The job that a message is about. Raises ValueError, KeyError or TypeError if it is not one of ours."""
        return str(json.loads(message)["job"])

    def send(self, job_id: str) -> None:
        """Have a job's webhook called."""
        if self.sqs is not None and self.url is not None:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps({"job": job_id}))
