"""What Lambda's event source mapping does: takes messages from a queue, invokes a function, deletes what is done."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)

#: The longest that SQS lets a request wait, as Lambda does: each costs the same, whether a message comes or not.
_WAIT_S = 20
_PAUSE_AFTER_FAILURE_S = 0.5


class QueuePoller:
    """Feeds one function from one queue, in a thread, from `start` to `stop`.

    Args:
        invoke: invokes the function with an SQS event; returns its partial batch response, raises if it failed.
        workers: how many invocations at once.
    """

    def __init__(
        self,
        sqs: SQSClient,
        url: str,
        invoke: Callable[[Any], Any],
        *,
        name: str,
        batch_size: int = 1,
        workers: int = 1,
    ) -> None:
        self._sqs = sqs
        self._url = url
        self._invoke = invoke
        self._batch_size = batch_size
        account, name = url.rsplit("/", 2)[1:]
        self._arn = f"arn:aws:sqs:eu-central-1:{account}:{name}"
        self._is_over = threading.Event()
        self._in_hand = 0
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._poll, name=f"{name} {number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to take messages."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Take no more messages. Invocations that run are waited for, for a while; requests for messages are not."""
        self._is_over.set()
        with self._changed:
            self._changed.wait_for(lambda: self._in_hand == 0, timeout_s)

    def _poll(self) -> None:
        while not self._is_over.is_set():
            try:
                self._take()
            except Exception as error:  # noqa: BLE001  (as Lambda: the messages come again, and the mapping goes on)
                if not self._is_over.is_set():
                    logger.warning("%s: %s", threading.current_thread().name, error)
                    self._is_over.wait(_PAUSE_AFTER_FAILURE_S)

    def _take(self) -> None:
        answer: Any = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=self._batch_size,
            WaitTimeSeconds=_WAIT_S,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        with self._changed:
            if not messages or self._is_over.is_set():
                return
            self._in_hand += 1
        try:
            self._hand_over(messages)
        finally:
            with self._changed:
                self._in_hand -= 1
                self._changed.notify_all()

    def _hand_over(self, messages: list[Any]) -> None:
        response = self._invoke({"Records": [self._record(message) for message in messages]})
        failures = (response or {}).get("batchItemFailures", []) if isinstance(response, dict) else []
        failed = {failure["itemIdentifier"] for failure in failures}
        for message in messages:
            if message["MessageId"] not in failed:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": {name: str(value) for name, value in message.get("Attributes", {}).items()},
            "messageAttributes": {},
            "md5OfBody": hashlib.md5(message["Body"].encode(), usedforsecurity=False).hexdigest(),
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": "eu-central-1",
        }
