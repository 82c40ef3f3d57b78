"""What feeds a function from a queue ends at once where it only waits, and with its work where it has some."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from local.aws.queue_poller import QueuePoller
from tests.patience import PATIENCE_S, QuietClock, wait_until

MESSAGE = {"MessageId": "1", "ReceiptHandle": "r", "Body": "{}", "Attributes": {"ApproximateReceiveCount": "1"}}
URL = "http://127.0.0.1:1/000000000000/jobs"


class Queue:
    """One message comes when the test says so; until then a request for messages lasts."""

    def __init__(self) -> None:
        self.asked, self.comes = threading.Event(), threading.Event()
        self.deleted: list[str] = []

    def receive_message(self, **_: Any) -> dict[str, Any]:
        self.asked.set()
        assert self.comes.wait(PATIENCE_S)
        self.comes.clear()
        return {"Messages": [MESSAGE]}

    def delete_message(self, **named: str) -> None:
        self.deleted.append(named["ReceiptHandle"])


def test_a_request_for_messages_holds_up_no_end_and_what_comes_later_is_left_in_the_queue() -> None:
    queue, invoked = Queue(), threading.Event()
    poller = QueuePoller(queue, URL, lambda _: invoked.set(), name="jobs")  # type: ignore[arg-type]
    poller.start()
    assert queue.asked.wait(PATIENCE_S)
    with QuietClock() as clock:
        begun = clock()
        poller.stop()
        assert clock() - begun < 5
    queue.comes.set()
    (thread,) = poller._threads
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert (invoked.is_set(), queue.deleted) == (False, [])


def test_an_invocation_that_runs_is_waited_for_and_its_message_is_deleted() -> None:
    queue, begun, may_end = Queue(), threading.Event(), threading.Event()

    def invoke(_: object) -> None:
        begun.set()
        assert may_end.wait(PATIENCE_S)

    poller = QueuePoller(queue, URL, invoke, name="jobs")  # type: ignore[arg-type]
    poller.start()
    queue.comes.set()
    assert begun.wait(PATIENCE_S)
    poller.stop(timeout_s=0.0)
    assert queue.deleted == [], "it is not waited for for ever"
    stopping = threading.Thread(target=poller.stop, kwargs={"timeout_s": PATIENCE_S})
    stopping.start()
    may_end.set()
    stopping.join(PATIENCE_S)
    assert queue.deleted == ["r"]


def test_a_failed_invocation_leaves_its_message_and_the_next_is_taken() -> None:
    queue, times = Queue(), list[int]()

    def has_tried(number: int) -> bool:
        return len(times) == number

    def invoke(_: object) -> dict[str, Any]:
        times.append(1)
        if len(times) == 1:
            raise RuntimeError("no")
        return {"batchItemFailures": [{"itemIdentifier": "1"}] if len(times) == 2 else []}

    poller = QueuePoller(queue, URL, invoke, name="jobs")  # type: ignore[arg-type]
    poller.start()
    for number in (1, 2, 3):
        assert queue.deleted == []
        assert wait_until(queue.asked.is_set)
        queue.asked.clear()
        queue.comes.set()
        assert wait_until(partial(has_tried, number))
    assert wait_until(lambda: queue.deleted == ["r"])
    poller.stop()
    queue.comes.set()
