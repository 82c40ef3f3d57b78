"""How long each node ran, by the events of ComfyUI 0.3.64 and 0.33.0 as they were recorded, and by any others."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.connector.node_times import NodeTimes

GRAPH = {node: {"class_type": "X", "inputs": {}} for node in ("1", "2", "3", "7")}


class Told:
    """Tells events at chosen times."""

    def __init__(self) -> None:
        self.times = NodeTimes(GRAPH)
        self.states: dict[str, dict[str, str]] = {}

    def runs(self, node: str, at_s: float, shown: str = "") -> None:
        self.states[node] = {"state": "running"}
        self._tell(at_s)
        self.times.see("executing", {"node": node, "display_node": shown or node}, at_s)

    def ends(self, node: str, at_s: float) -> None:
        self.states[node] = {"state": "finished"}
        self._tell(at_s)

    def _tell(self, at_s: float) -> None:
        self.times.see("progress_state", {"nodes": dict(self.states)}, at_s)


def test_nodes_one_after_the_other_and_what_is_cached_is_absent() -> None:
    told = Told()
    told.times.see("execution_cached", {"nodes": ["3"]}, 0.0)
    told.runs("1", 0.0)
    told.ends("1", 0.3)
    told.runs("2", 0.5)
    told.times.see("executed", {"node": "2"}, 0.9)
    told.ends("2", 1.0)
    told.times.see("executed", {"node": "3"}, 1.0)
    told.times.see("execution_success", {}, 2.0)
    assert told.times.in_ms() == {"1": 300, "2": 400}


def test_asynchronous_nodes_have_their_own_times_each() -> None:
    told = Told()
    told.runs("1", 0.0)
    told.runs("2", 0.1)
    told.ends("2", 0.4)
    told.runs("3", 0.4)
    told.ends("1", 0.5)
    told.ends("3", 0.6)
    assert told.times.in_ms() == {"2": 300, "1": 500, "3": 200}


def test_a_node_that_waits_for_lazy_inputs_does_not_run_meanwhile() -> None:
    told = Told()
    told.runs("3", 0.0)
    told.runs("2", 0.2)
    told.ends("2", 0.8)
    told.runs("3", 0.9)
    told.ends("3", 1.0)
    assert told.times.in_ms() == {"2": 600, "3": 300}


def test_nodes_made_by_expansion_count_once_to_the_node_they_are_shown_as() -> None:
    told = Told()
    told.runs("7", 0.0)
    told.runs("7.0.0.1", 0.1, "7")
    told.runs("7.0.0.2", 0.2, "7")
    told.ends("7.0.0.1", 0.3)
    told.ends("7.0.0.2", 0.5)
    told.ends("7", 0.6)
    told.runs("7.0.0.9", 0.8)  # an engine that does not say what it is shown as
    told.ends("7.0.0.9", 0.9)
    assert told.times.in_ms() == {"7": 700}


def test_without_states_a_node_ends_when_the_next_begins() -> None:
    times = NodeTimes(GRAPH)
    for at_s, node in enumerate("123"):
        times.see("executing", {"node": node}, float(at_s))
    times.see("executing", {"node": None}, 3.0)
    assert times.in_ms() == {"1": 1000, "2": 1000}, "nobody has said how long the last one ran"
    times.see("execution_error", {"node_id": "3"}, 5.0)
    assert times.in_ms()["3"] == 3000


def test_a_blocked_node_ends_alone_and_a_failure_ends_all() -> None:
    told = Told()
    told.runs("1", 0.0)
    told.runs("2", 0.0)
    told.times.see("execution_error", {"node_id": "2", "exception_type": "ExecutionBlocked"}, 1.0)
    assert told.times.in_ms() == {"2": 1000}
    told.times.see("execution_interrupted", {"node_id": "1"}, 2.0)
    assert told.times.in_ms() == {"2": 1000, "1": 2000}


EVENTS = st.one_of(
    st.tuples(st.just("executing"), st.fixed_dictionaries({"node": st.sampled_from([*GRAPH, "7.0.1", "x", None])})),
    st.tuples(
        st.just("progress_state"),
        st.fixed_dictionaries(
            {
                "nodes": st.dictionaries(
                    st.sampled_from([*GRAPH, "7.0.1", "x"]),
                    st.sampled_from([{"state": "running"}, {"state": "finished"}, {}, None]),
                )
            }
        ),
    ),
    st.tuples(st.just("executed"), st.fixed_dictionaries({"node": st.sampled_from([*GRAPH, "x"])})),
    st.tuples(
        st.sampled_from(["execution_success", "execution_error", "progress"]), st.just(dict[str, Any]({"node_id": "1"}))
    ),
)


@given(st.lists(st.tuples(EVENTS, st.floats(-1, 5))))
def test_any_order_loss_and_repetition_does_no_harm(told: list[tuple[tuple[str, dict[str, Any]], float]]) -> None:
    """No node has run for longer than the whole, whatever is missing, late or said twice, and clocks may step back."""
    times, now, most = NodeTimes(GRAPH), 10.0, 10.0
    for (kind, data), passed in told:
        now += passed
        most = max(most, now)
        times.see(kind, data, now)
    times.end_all(now)
    went_back = sum(-passed for _, passed in told if passed < 0)
    assert all(0 <= took <= round((most - 10.0 + went_back) * 1000) + 1 for took in times.in_ms().values())
