"""Which cached nodes have nothing to show, by what the engine has run so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from comfy_serverless.connector.facts import Outcome, Timings
from comfy_serverless.connector.silent_classes import SilentClasses
from comfy_serverless.errors import Canceled, ComfyError, NodeExecutionError

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {}},
    "2": {"class_type": "Compare", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}


def outcome(
    *,
    ran: tuple[str, ...] = ("1", "2", "3"),
    cached: tuple[str, ...] = (),
    shown: tuple[str, ...] = ("3",),
    shown_as: Mapping[str, str] | None = None,
    error: ComfyError | None = None,
    events_missed: bool = False,
) -> Outcome:
    return Outcome(
        error=error,
        shown={node: {"text": ["x"]} for node in shown},
        display_nodes=shown_as or {},
        frames=(),
        cached_nodes=cached,
        warnings=(),
        timings=Timings(0, 1, 1, node_ms=dict.fromkeys(ran, 1)),
        events_missed=events_missed,
        engine_is_broken=False,
    )


def silent_after(*outcomes: Outcome) -> frozenset[str]:
    classes = SilentClasses()
    for one in outcomes:
        learn(classes, one)
    return silent_in(classes)


def learn(classes: SilentClasses, ended: Outcome, graph: Mapping[str, Any] = GRAPH) -> None:
    with classes.run(graph):
        classes.learn(graph, ended)


def silent_in(classes: SilentClasses) -> frozenset[str]:
    with classes.run(GRAPH) as silent:
        return silent()


def test_nothing_is_silent_before_it_has_run() -> None:
    assert silent_after() == frozenset()


def test_what_has_run_and_shown_nothing_is_silent() -> None:
    assert silent_after(outcome()) == {"1", "2"}


def test_what_was_cached_and_is_shown_by_no_history_is_silent() -> None:
    assert silent_after(outcome(ran=("3",), cached=("1", "2"))) == {"1", "2"}


def test_a_node_that_nothing_needed_says_nothing_of_its_class() -> None:
    assert silent_after(outcome(ran=("1", "3"))) == {"1"}


def test_a_class_that_shows_something_at_times_is_never_silent_again() -> None:
    assert silent_after(outcome(), outcome(shown=("2", "3")), outcome()) == {"1"}


def test_what_the_nodes_show_that_a_node_was_expanded_to_it_has_shown() -> None:
    assert silent_after(outcome(), outcome(shown=("3", "2.0.0.1"), shown_as={"2.0.0.1": "2"})) == {"1"}


def test_a_failed_run_tells_what_it_has_shown_but_not_what_it_would_have() -> None:
    failed = NodeExecutionError("boom")
    assert silent_after(outcome(error=failed)) == frozenset()
    assert silent_after(outcome(), outcome(shown=("2",), error=failed)) == {"1"}


def test_what_a_run_showed_that_was_not_heard_and_has_failed_may_be_anything() -> None:
    assert silent_after(outcome(), outcome(error=Canceled("no"), events_missed=True)) == frozenset()


def test_what_is_submitted_and_not_followed_may_show_anything() -> None:
    classes = SilentClasses()
    learn(classes, outcome())
    classes.doubt({"1": {"class_type": "Compare"}, "2": "no node"})
    assert silent_in(classes) == {"1"}


def test_while_another_run_is_in_the_engine_nothing_is_believed() -> None:
    classes = SilentClasses()
    learn(classes, outcome())
    with classes.run(GRAPH) as first:
        assert first() == {"1", "2"}
        with classes.run(GRAPH) as second:
            assert second() == frozenset()
        assert first() == frozenset(), "the other one may have shown something since"


def test_what_is_followed_no_further_may_show_what_nobody_hears() -> None:
    classes = SilentClasses()
    learn(classes, outcome())
    with pytest.raises(KeyboardInterrupt), classes.run(GRAPH):
        raise KeyboardInterrupt
    assert silent_in(classes) == frozenset()
