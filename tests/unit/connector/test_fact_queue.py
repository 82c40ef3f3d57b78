"""What wakes the thread that follows a prompt, and in which order it gets what has been seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from comfy_serverless.connector.fact_queue import ON_THE_WAY, FactQueue
from comfy_serverless.connector.facts import CancelAsked, EventSeen, Fact, SocketLost
from tests.patience import PATIENCE_S


def event(kind: str, data: Mapping[str, Any] | None = None) -> EventSeen:
    return EventSeen(kind, data or {})


def test_the_order_stays_but_for_a_cancel() -> None:
    facts = FactQueue(ON_THE_WAY)
    seen: list[Fact] = [event("executing", {"node": "1"}), event("progress"), SocketLost(), CancelAsked()]
    for fact in seen:
        facts.put(fact)
    assert [facts.get(0) for _ in range(5)] == [CancelAsked(), *seen[:3], None]


@pytest.mark.parametrize(
    "waking", [event("executing", {"node": "1"}), event("executed"), event("execution_error"), SocketLost()]
)
def test_the_beginning_and_the_end_of_a_node_wake_its_reader(waking: EventSeen | SocketLost) -> None:
    facts = FactQueue(ON_THE_WAY)
    quiet = event("progress_state")
    facts.put(quiet)
    assert facts.get(0) == quiet
    threading.Timer(0.05, facts.put, [waking]).start()
    assert facts.get(PATIENCE_S) == waking


def test_what_is_on_the_way_waits_for_what_wakes() -> None:
    facts = FactQueue(ON_THE_WAY)
    threading.Timer(0.02, facts.put, [event("progress")]).start()
    began = time.monotonic()
    assert facts.get(0.2) is not None, "it is there when the time is over"
    assert time.monotonic() - began >= 0.2


def test_many_facts_that_were_taken_at_once_wake_no_more_than_once_after() -> None:
    facts = FactQueue(frozenset())
    for _ in range(5):
        facts.put(event("executed"))
    while facts.get(0) is not None:
        pass
    began = time.monotonic()
    assert facts.get(0.05) is None
    assert time.monotonic() - began >= 0.05
