"""Where a job is sent to be run, and where its end is sent to be told: two queues of SQS."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: How long a queue's depth is taken for known, in seconds.
DEPTH_KNOWN_S = 5.0
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _ATTEMPTS = 2, 5, 4


def create_client() -> SQSClient:
    """The client of the queues, with standard retries."""
    return boto3.client(
        "sqs",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
        ),
    )


@dataclass(slots=True)
class JobQueue:
    """The queue that workers take jobs from."""

    sqs: SQSClient
    url: str
    _depth: int = 0
    _depth_at: float = field(default=-DEPTH_KNOWN_S)

    @classmethod
    def at(cls, url: str) -> Self:
        """The queue with this address."""
        return cls(create_client(), url)

    def send(
        self, job_id: str, request_uri: str, *, extra_data: Mapping[str, Any] | None = None, delay_s: int = 0
    ) -> None:
        """Send a job to the workers.

        Args:
            extra_data: given to ComfyUI, and kept nowhere but in the message.
            delay_s: how long nobody sees it yet.
        """
        message: dict[str, Any] = {"job": job_id, "request": request_uri}
        if extra_data:
            message["extra_data"] = dict(extra_data)
        self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(message), DelaySeconds=delay_s)

    def depth(self) -> int:
        """How many jobs wait, about: SQS's own figure, some seconds old."""
        if time.monotonic() - self._depth_at >= DEPTH_KNOWN_S:
            answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"])
            self._depth = int(answer["Attributes"]["ApproximateNumberOfMessages"])
            self._depth_at = time.monotonic()
        return self._depth


@dataclass(frozen=True, slots=True)
class WebhookQueue:
    """The queue of ended jobs whose webhooks are to be called. Without an address there are no webhooks."""

    sqs: SQSClient | None
    url: str | None

    @classmethod
    def at(cls, url: str | None) -> Self:
        """The queue with this address."""
        return cls(create_client() if url else None, url)

    def send(self, job_id: str) -> None:
        """Have a job's webhook called."""
        if self.sqs is not None and self.url is not None:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps({"job": job_id}))
