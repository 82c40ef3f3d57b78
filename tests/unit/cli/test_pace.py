"""How far a run is and how long it will still take: steps count, the last run teaches, and nothing runs backwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.cli.pace import Memory, Pace
from comfy_serverless.connector.progress import Progress, ProgressTracker, weights_of
from tests.unit.workflow_samples import text_to_image


def graph(steps: int = 20) -> dict[str, Any]:
    result = text_to_image()
    result["3"]["inputs"] |= {"steps": steps, "latent_image": ["5", 0]}
    result["5"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}
    return result


ORDER = ["4", "5", "6", "7", "3", "8", "9"]
#: What each node takes, in seconds; the sampler for each of its steps.
COSTS = {"4": 4.0, "5": 0.0, "6": 0.5, "7": 0.5, "3": 1.0, "8": 2.0, "9": 0.1}


def story(
    pace: Pace, workflow: dict[str, Any], costs: dict[str, float], *, cached: tuple[str, ...] = ()
) -> list[tuple[float, float | None, float]]:
    """Play a run: the estimates on the way, each with the time that is really left."""
    tracker, now = ProgressTracker(workflow), 100.0
    weights = weights_of(workflow)
    end = now + sum(costs[node] * weights[node] for node in ORDER if node not in cached)
    seen: list[tuple[float, float | None, float]] = []

    def see(snapshot: Progress | None) -> None:
        assert snapshot is not None
        estimate = pace.see(snapshot, now)
        seen.append((estimate.fraction, estimate.left_s, end - now))

    see(tracker.see_event("execution_cached", {"nodes": list(cached)}))
    done: dict[str, dict[str, Any]] = {}
    for node in (node for node in ORDER if node not in cached):
        see(tracker.see_event("executing", {"node": node}))
        steps = int(weights[node])
        for step in range(1, steps + 1):
            now += costs[node]
            if steps > 1:
                done[node] = {"value": step, "max": steps, "state": "running"}
                tracker.see_event("progress_state", {"nodes": dict(done)})
                see(tracker.see_event("progress", {"node": node, "value": step, "max": steps}))
        done[node] = {"value": steps, "max": steps, "state": "finished"}
        see(tracker.see_event("progress_state", {"nodes": dict(done)}))
    see(tracker.see_event("execution_success", {}))
    return seen


def test_a_sampler_counts_as_much_as_it_has_steps() -> None:
    assert weights_of(graph(150))["3"] == 150
    assert set(weights_of(graph(150)).values()) == {1, 150}


@pytest.mark.parametrize(
    ("changed", "weight"),
    [
        ({"3": {"steps": ["12", 0]}, "12": {"value": 30}}, 30),
        ({"3": {"sigmas": ["12", 0], "steps": None}, "12": {"steps": 25, "model": ["4", 0]}}, 25),
        ({"3": {"sigmas": ["13", 1], "steps": None}, "13": {"sigmas": ["12", 0], "step": 5}, "12": {"steps": 25}}, 25),
        ({"3": {"steps": ["99", 0]}}, 1),
        ({"3": {"steps": ["3", 0], "sigmas": ["3", 0]}}, 1),
        ({"3": {"steps": "many"}}, 1),
        ({"3": {"steps": True}}, 1),
        ({"3": {"steps": -5}}, 1),
        ({"3": {"steps": 10**30}}, 10_000),
    ],
)
def test_steps_are_found_where_they_stand(changed: dict[str, dict[str, Any]], weight: int) -> None:
    workflow = graph()
    for node_id, inputs in changed.items():
        workflow.setdefault(node_id, {"class_type": "X", "inputs": {}})["inputs"].update(inputs)
    assert weights_of(workflow)["3"] == weight
    assert weights_of(workflow).get("12", 1) == 1


def test_the_first_run_goes_by_steps_and_the_rate_so_far() -> None:
    seen = story(Pace(graph(150)), graph(150), COSTS)
    half = next(entry for entry in seen if entry[2] <= 75)
    assert 0.4 < half[0] < 0.6
    assert half[1] is not None
    assert abs(half[1] - half[2]) < 15


def test_the_second_run_knows_what_each_node_takes() -> None:
    first = Pace(graph())
    story(first, graph(), COSTS)
    learned = first.end(100 + 27.1)
    for fraction, left_s, really_left in story(Pace(graph(), learned), graph(), COSTS)[1:]:
        assert left_s is not None
        assert abs(left_s - really_left) < 0.5
        assert abs(fraction - (1 - really_left / 27.1)) < 0.05


def test_it_knows_it_of_more_steps_and_of_cached_nodes_too() -> None:
    first = Pace(graph())
    story(first, graph(), COSTS)
    learned = first.end(127.1)
    second = story(Pace(graph(40), learned), graph(40), COSTS, cached=("4", "5", "6", "7"))
    for _, left_s, really_left in second[1:]:
        assert left_s is not None
        assert abs(left_s - really_left) < 0.5


def test_what_was_cached_keeps_what_it_took_before() -> None:
    first = Pace(graph())
    story(first, graph(), COSTS)
    learned = first.end(127.1)
    again = Pace(graph(), learned)
    story(again, graph(), COSTS, cached=("4",))
    assert again.end(127.1)["4"] == pytest.approx(4.0)


def test_an_engine_that_has_become_slower_is_believed_step_by_step() -> None:
    first = Pace(graph())
    story(first, graph(), COSTS)
    slower = COSTS | {"3": 3.0}
    seen = story(Pace(graph(), first.end(127.1)), graph(), slower)
    last = next(entry for entry in seen if entry[2] < 30)
    assert last[1] is not None
    assert abs(last[1] - last[2]) < 3


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from([*ORDER, None, "stranger"]),
            st.integers(0, 30) | st.none(),
            st.integers(0, 30) | st.none(),
            st.frozensets(st.sampled_from(ORDER)),
            st.floats(0, 100),
        )
    ),
    st.dictionaries(st.sampled_from(ORDER), st.floats(0, 1e6)),
)
def test_nothing_runs_backwards_whatever_comes(snapshots: list[Any], learned: dict[str, float]) -> None:
    pace, now, last = Pace(graph(), learned), 0.0, 0.0
    for value, node, step, steps, done, later in snapshots:
        now += later
        snapshot = Progress(value, len(done), 7, current_node=node, step=step, steps=steps, done=done)
        estimate = pace.see(snapshot, now)
        assert last <= estimate.fraction <= 1
        assert estimate.left_s is None or estimate.left_s >= 0
        last = estimate.fraction
    assert all(seconds >= 0 for seconds in pace.end(now).values())


class TestMemory:
    def test_a_run_is_remembered_for_the_same_nodes_and_links(self, tmp_path: Path) -> None:
        Memory(graph(), engine="ComfyUI 1", folder=tmp_path / "times").write({"3": 1.5})
        assert Memory(graph(50), engine="ComfyUI 1", folder=tmp_path / "times").read() == {"3": 1.5}
        assert Memory(graph(), engine="ComfyUI 2", folder=tmp_path / "times").read() == {}
        other = graph()
        other["3"]["inputs"]["model"] = ["8", 0]
        assert Memory(other, engine="ComfyUI 1", folder=tmp_path / "times").read() == {}

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"3": "x", "4": NaN, "5": -1, "stranger": 2}'])
    def test_a_file_of_any_kind_costs_no_run(self, tmp_path: Path, text: str) -> None:
        memory = Memory(graph(), engine="e", folder=tmp_path)
        memory.write({"3": 1})
        next(tmp_path.iterdir()).write_text(text)
        assert memory.read() == {}

    def test_a_folder_that_cannot_be_written_costs_no_run(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        memory = Memory(graph(), engine="e", folder=tmp_path / "file")
        memory.write({"3": 1})
        assert memory.read() == {}

    def test_the_oldest_are_forgotten(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("comfy_serverless.cli.pace._MOST_REMEMBERED", 3)
        for number in range(6):
            Memory(graph(), engine=str(number), folder=tmp_path).write({"3": number})
        assert len(list(tmp_path.iterdir())) == 3
        assert Memory(graph(), engine="5", folder=tmp_path).read() == {"3": 5}

    def test_it_is_in_the_folder_for_caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        Memory(graph(), engine="e").write({"3": 1})
        [file] = tmp_path.rglob("*.json")
        assert file.parent == tmp_path / "comfy-serverless" / "times"
        assert json.loads(file.read_text()) == {"3": 1}
