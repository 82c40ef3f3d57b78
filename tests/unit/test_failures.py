"""One of many that fails costs the others nothing: in a loop, and among the messages of an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from comfy_serverless.aws.sqs import take_each
from comfy_serverless.observability import Failures


def test_all_have_their_turn_and_the_last_failure_is_raised() -> None:
    seen: list[int] = []

    def look_after_all() -> None:
        with Failures() as failures:
            for number in range(4):
                with failures.logged("it failed", number=number):
                    seen.append(number)
                    if number in (1, 2):
                        raise ValueError(number)

    with pytest.raises(ValueError, match="2"):
        look_after_all()
    assert seen == [0, 1, 2, 3]


def test_without_a_failure_nothing_is_raised() -> None:
    with Failures() as failures, failures.logged("it failed"):
        pass


def test_what_breaks_the_loop_itself_is_raised_as_it_is() -> None:
    def break_off() -> None:
        with Failures() as failures:
            with failures.logged("it failed"):
                raise ValueError
            raise KeyError

    with pytest.raises(KeyError):
        break_off()


def test_messages_that_fail_or_are_not_done_come_again_and_the_others_do_not() -> None:
    def take(message: Mapping[str, Any]) -> bool:
        if message["body"] == "fails":
            raise ValueError
        return bool(message["body"] == "done")

    messages = [{"messageId": str(n), "body": body} for n, body in enumerate(["done", "fails", "later", "done"])]
    assert take_each(messages, take, failing="it failed") == {
        "batchItemFailures": [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]
    }
