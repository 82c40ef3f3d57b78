"""What a prompt made, put together while it runs and at its end."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector import collector as collector_module
from comfy_serverless.connector.collector import OutputCollector
from comfy_serverless.connector.facts import EventSeen, FrameSeen, Outcome, Timings
from comfy_serverless.connector.local_files import LocalFiles
from comfy_serverless.connector.made_files import Place, Remembered
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.progress import Progress
from comfy_serverless.connector.remote_files import RemoteFiles
from tests.patience import PATIENCE_S, wait_until


def nothing_to_view(*_: str) -> Any:
    raise AssertionError


ELSEWHERE = RemoteFiles(lambda _: None, Remembered(), view=nothing_to_view, is_apart=False)
GRAPH = {"7": {"class_type": "Subgraph", "inputs": {}}}
SHOWN = {"7.0.0.1": {"text": ["first"]}, "7.0.0.2": {"text": ["second"]}}
ENDED = Outcome(
    error=None,
    shown=SHOWN,
    display_nodes=dict.fromkeys(SHOWN, "7"),
    frames=(),
    cached_nodes=(),
    warnings=(),
    timings=Timings(0, 0, 0),
    events_missed=False,
    engine_is_broken=False,
)


def test_outputs_of_nodes_shown_as_one_are_told_apart_and_keep_their_names() -> None:
    told: list[Output] = []
    collector = OutputCollector(GRAPH, ELSEWHERE, on_progress=None, on_output=told.append)
    for node in reversed(SHOWN):
        collector.see(EventSeen("executed", {"node": node, "display_node": "7", "output": SHOWN[node]}))
    outputs = collector.collect(ENDED)
    collector.announce_rest()
    assert {(output.node_id, output.index, output.name) for output in outputs} == {
        ("7", 0, "text_0.txt"),
        ("7", 1, "text_1.txt"),
    }
    assert sorted(told, key=lambda output: output.index) == sorted(outputs, key=lambda output: output.index)


def frame(node_id: str, content: bytes, content_type: str = "image/png") -> FrameSeen:
    return FrameSeen(node_id, content_type, content)


def test_frames_of_a_node_that_an_expansion_made_are_results_of_the_node_that_was_submitted() -> None:
    previews: list[Progress] = []
    collector = OutputCollector(GRAPH, ELSEWHERE, on_progress=previews.append, on_output=None)
    frames = (frame("7.0.0.3", b"one"), frame("7.0.0.3", b"two"))
    for seen in (*frames, frame("7.0.0.4", b"a step", "image/jpeg")):
        collector.see(seen)
    assert [progress.preview for progress in previews] == [b"a step"], "a PNG is a result, a JPEG a preview"
    outputs = collector.collect(replace(ENDED, frames=frames))
    assert [(output.node_id, output.class_type, output.index, output.read()) for output in outputs] == [
        ("7", "Subgraph", 0, b"first"),
        ("7", "Subgraph", 1, b"second"),
        ("7", "Subgraph", 2, b"one"),
        ("7", "Subgraph", 3, b"two"),
    ]


def test_outputs_come_in_the_order_of_the_graph_whoever_was_first() -> None:
    graph = {"b": node("Show"), "a.x": node("Show"), "a": node("Show")}
    shown = {node: {"text": [node]} for node in ("gone", "a", "a.x.0.0.1", "b")}
    collector = OutputCollector(graph, ELSEWHERE, on_progress=None, on_output=None)
    outputs = collector.collect(replace(ENDED, shown=shown, display_nodes={}))
    assert [output.node_id for output in outputs] == ["b", "a.x", "a", "gone"]


class World:
    """A run on an engine of this machine: its folders, what its nodes do, and what comes of it."""

    def __init__(self, tmp_path: Path, graph: dict[str, Any], *, remembered: Remembered | None = None) -> None:
        self.output = tmp_path / "output"
        self.output.mkdir(exist_ok=True)
        kept = tmp_path / "kept"
        self.files = LocalFiles({"output": self.output}, remembered or Remembered(), view=nothing_to_view, keep_in=kept)
        self.told: list[Output] = []
        self.collector = OutputCollector(graph, self.files, on_progress=None, on_output=self.told.append)
        self.began_s = time.time() - 100
        self.collector.see(EventSeen("execution_start", {"timestamp": self.began_s * 1000}))

    def runs(self, node: str, *, at_s: float, writes: str = "") -> None:
        """A node begins, in seconds after the run's beginning, and writes a file a second later."""
        self.collector.see(EventSeen("executing", {"node": node}, at_s=self.began_s + at_s))
        if writes:
            path = self.output / writes
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"something")
            os.utime(path, (self.began_s + at_s + 1,) * 2)

    def end(self, **outcome: Any) -> list[tuple[str, str]]:
        outputs = self.collector.collect(replace(ENDED, **{"shown": {}, "display_nodes": {}, **outcome}))
        self.collector.announce_rest()
        self.files.leave()
        return [(output.node_id, f"{output.subfolder}/{output.name}".lstrip("/")) for output in outputs]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def file_named(name: str, subfolder: str = "") -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": "output"}


def test_files_that_nodes_have_written_without_a_word_are_theirs(tmp_path: Path) -> None:
    graph = {
        "1": node("VAESave", filename_prefix="vae/mine"),
        "2": node("SaveImage", filename_prefix="a"),
        "3": node("SavesInItsOwnFolder", output_path="was", images=["4", 0]),
        "4": node("WritesAlongTheWay", seed=3),
        "5": node("SavesUnderAnyName", images=["4", 0]),
    }
    world = World(tmp_path, graph)
    world.runs("4", at_s=10, writes="log/steps.txt")
    world.runs("1", at_s=20, writes="vae/mine_00001_.safetensors")
    world.runs("2", at_s=30, writes="a_1.png")
    world.runs("3", at_s=40, writes="was/out_1.png")
    world.runs("5", at_s=50, writes="2026.exr")
    assert world.end(shown={"2": {"images": [file_named("a_1.png")]}}) == [
        ("1", "vae/mine_00001_.safetensors"),
        ("2", "a_1.png"),
        ("3", "was/out_1.png"),
        ("4", "log/steps.txt"),
        ("5", "2026.exr"),
    ]
    assert len(world.told) == 5
    assert world.collector.warnings == ()


def test_what_a_node_shows_is_taken_when_it_ends_though_nobody_listens(tmp_path: Path) -> None:
    graph = {"2": node("SaveImage", filename_prefix="a"), "3": node("CleansUp")}
    world = World(tmp_path, graph)
    world.collector = OutputCollector(graph, world.files, on_progress=None, on_output=None)
    world.runs("2", at_s=1, writes="a_1.png")
    shown = {"images": [file_named("a_1.png")]}
    world.collector.see(EventSeen("executed", {"node": "2", "output": shown}))
    (world.output / "a_1.png").unlink()
    world.runs("3", at_s=2, writes="b.txt")
    assert world.end(shown={"2": shown}) == [("2", "a_1.png"), ("3", "b.txt")]


def test_a_file_written_beside_the_one_that_is_shown_is_an_output_too(tmp_path: Path) -> None:
    world = World(tmp_path, {"2": node("SaveWithCaption", filename_prefix="a")})
    world.runs("2", at_s=1, writes="a_1.png")
    world.runs("2", at_s=1, writes="a_1.txt")
    assert world.end(shown={"2": {"images": [file_named("a_1.png")]}}) == [("2", "a_1.png"), ("2", "a_1.txt")]


def test_a_file_that_comes_after_the_end_of_its_node_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, {"2": node("WritesInAThread", name="late")})
    world.runs("2", at_s=1)
    writes = threading.Timer(0.2, lambda: (world.output / "late.png").write_bytes(b"here"))
    writes.start()
    assert world.end() == [("2", "late.png")]
    writes.join()


@pytest.fixture
def _none_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are not there never come: what waits for them looks a few times."""
    monkeypatch.setattr(collector_module, "_LATE_S", 0.05)


@pytest.mark.usefixtures("_none_comes_late")
def test_what_a_node_names_and_has_not_made_is_a_warning_and_no_output(tmp_path: Path) -> None:
    remembered = Remembered()
    world = World(tmp_path, {"2": node("UploadsItself"), "3": node("SaveImage")}, remembered=remembered)
    (world.output / "old.png").write_bytes(b"of another run")
    world.began_s = time.time() + 100
    world.collector.see(EventSeen("execution_start", {"timestamp": world.began_s * 1000}))
    shown = {
        "2": {"images": [file_named("there.png", "out"), file_named("old.png"), file_named("x.png", "/elsewhere")]},
        "3": {"text": ["said"]},
    }
    assert world.end(shown=shown) == [("3", "text_0.txt")]
    [warning] = world.collector.warnings
    assert warning.startswith("Node 2 (UploadsItself) names 'out/there.png' (output), 'old.png' (output), ")
    assert "not delivered" in warning


def test_a_class_whose_files_never_come_late_is_not_waited_for_again_and_one_that_does_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = Remembered()
    waits: list[float] = []
    monkeypatch.setattr(collector_module, "_LATE_S", 0.05)
    monkeypatch.setattr(time, "sleep", waits.append)

    def waits_for(class_type: str, shown: dict[str, Any]) -> bool:
        waits.clear()
        world = World(tmp_path, {"2": node(class_type, text=str(len(remembered.vain)))}, remembered=remembered)
        world.runs("2", at_s=1)
        assert world.end(shown=shown) == []
        assert len(world.collector.warnings) == 1, "it is told all the same"
        return bool(waits)

    elsewhere = {"2": {"images": [file_named("there.png", "out")]}}
    for class_type, shown in (("SaysNothing", {}), ("UploadsItself", elsewhere)):
        assert [waits_for(class_type, shown) for _ in range(4)] == [True, True, True, False]
    remembered.vain["SaysNothing"] = 0
    assert waits_for("SaysNothing", {}), "a file of it has come late since"


def test_a_file_that_comes_late_makes_its_class_worth_waiting_for(tmp_path: Path) -> None:
    remembered = Remembered()
    remembered.vain["WritesInAThread"] = 2
    world = World(tmp_path, {"2": node("WritesInAThread", name="late")}, remembered=remembered)
    world.runs("2", at_s=1)
    writes = threading.Timer(0.1, lambda: (world.output / "late.png").write_bytes(b"here"))
    writes.start()
    assert world.end() == [("2", "late.png")]
    writes.join()
    assert remembered.vain["WritesInAThread"] == 0


@pytest.mark.parametrize("where", ["elsewhere", "the machine's owner's"])
def test_where_no_late_file_would_be_found_none_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the engine stands still"))
    files = (
        LocalFiles({"output": tmp_path}, Remembered(), view=nothing_to_view)
        if where != "elsewhere"
        else RemoteFiles(lambda _: None, Remembered(), view=nothing_to_view, is_apart=True)
    )
    collector = OutputCollector({"2": node("SaysNothing")}, files, on_progress=None, on_output=None)
    collector.see(EventSeen("executing", {"node": "2"}))
    assert collector.collect(replace(ENDED, shown={}, display_nodes={})) == ()
    assert len(collector.warnings) == 1


@pytest.mark.usefixtures("_none_comes_late")
def test_a_cached_node_is_not_believed_once_it_was_not_when_it_ran(tmp_path: Path) -> None:
    remembered = Remembered()
    for cached in ((), ("2",)):
        world = World(tmp_path, {"2": node("Echo")}, remembered=remembered)
        (world.output / "old.png").write_bytes(b"of another run")
        world.files.begin(time.time() + 100)
        assert world.end(shown={"2": {"images": [file_named("old.png")]}}, cached_nodes=cached) == []
        assert not world.collector.are_files_gone, "to run it again would not help"


@pytest.mark.usefixtures("_none_comes_late")
def test_a_node_that_ran_for_what_it_leaves_and_left_nothing_is_named(tmp_path: Path) -> None:
    remembered = Remembered()
    graph = {"1": node("KSampler"), "2": node("SaysNothing", images=["1", 0]), "3": node("NeverRan")}
    world = World(tmp_path, graph, remembered=remembered)
    world.runs("1", at_s=1)
    world.runs("2", at_s=2)
    assert world.end(shown={"2": {"images": []}}) == []
    [warning] = world.collector.warnings
    assert warning.startswith("Node 2 (SaysNothing) has run and left nothing: it has shown nothing, and no file")


def test_the_files_of_cached_nodes_that_are_gone_must_be_made_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"2": node("SaveImage")})
    world.end(shown={"2": {"images": [file_named("gone.png")]}}, cached_nodes=("2",))
    assert world.collector.are_files_gone


def test_an_engine_elsewhere_is_asked_for_files_while_events_go_on_and_they_are_told_in_their_order() -> None:
    asked, may_answer, told = list[str](), {name: threading.Event() for name in "ab"}, list[Output]()

    def changed_at(place: Place) -> float | None:
        assert threading.current_thread() is not threading.main_thread(), "events would wait"
        asked.append(place.name)
        assert may_answer[place.name].wait(PATIENCE_S)
        return 2000.0

    files = RemoteFiles(changed_at, Remembered(), view=nothing_to_view, is_apart=True)
    collector = OutputCollector({}, files, on_progress=None, on_output=told.append)
    collector.see(EventSeen("execution_start", {"timestamp": 1_000_000}))
    for name in "ab":
        collector.see(EventSeen("executed", {"node": name, "output": {"images": [file_named(name)], "text": ["x"]}}))
    assert wait_until(lambda: sorted(asked) == ["a", "b"])
    may_answer["b"].set()
    assert wait_until(files.ask({"images": [file_named("b")]}))
    collector.see(EventSeen("executing", {"node": "c"}))
    assert told == [], "the first of them is not known"
    may_answer["a"].set()
    assert wait_until(files.ask({"images": [file_named("a")]}))
    collector.see(EventSeen("executing", {"node": "d"}))
    assert [(output.node_id, output.name) for output in told if output.folder_type] == [("a", "a"), ("b", "b")]
    assert sorted(asked) == ["a", "b"], "once each"
    files.leave()


def test_a_file_elsewhere_that_is_not_there_yet_is_asked_for_again() -> None:
    answers = [None, 2000.0]

    def changed_at(_: Place) -> float | None:
        return answers.pop(0)

    files = RemoteFiles(changed_at, Remembered(), view=nothing_to_view, is_apart=True)
    shown = {"2": {"images": [file_named("a.png")]}}
    collector = OutputCollector({"2": node("Saves")}, files, on_progress=None, on_output=None)
    collector.see(EventSeen("execution_start", {"timestamp": 1_000_000}))
    collector.see(EventSeen("executed", {"node": "2", "output": shown["2"]}))
    outputs = collector.collect(replace(ENDED, shown=shown, display_nodes={}))
    assert ([output.name for output in outputs], answers) == (["a.png"], [])
    files.leave()


def test_progress_that_is_no_number_is_no_progress() -> None:
    told: list[Progress] = []
    collector = OutputCollector(GRAPH, ELSEWHERE, on_progress=told.append, on_output=None)
    for value in (float("nan"), float("inf"), "many", None, -3):
        collector.see(EventSeen("progress", {"node": "7", "value": value, "max": value}))
        collector.see(EventSeen("progress_state", {"nodes": {"7": {"state": "running", "value": value, "max": value}}}))
    assert {(progress.value, progress.step) for progress in told} == {(0.0, 0)}


def test_progress_is_told_of_the_graph_that_was_given_without_nodes_of_ours() -> None:
    told: list[Progress] = []
    given = {"2": node("EmptyImage"), "3": node("SaveImage")}
    submitted = {**given, "3.name": node("RegexReplace"), "3.folder": node("StringConcatenate")}
    collector = OutputCollector(submitted, ELSEWHERE, on_progress=told.append, on_output=None, given=given)
    collector.see(EventSeen("execution_cached", {"nodes": ["2", "3.name"]}))
    for name in ("3.folder", "3"):
        collector.see(EventSeen("executing", {"node": name}))
        collector.see(EventSeen("progress_state", {"nodes": {name: {"state": "finished", "value": 1, "max": 1}}}))
    assert [(one.value, one.nodes_done, one.current_node, one.message) for one in told] == [
        (0.5, 1, None, None),
        (0.5, 1, "3", "SaveImage"),
        (1.0, 2, "3", "SaveImage"),
    ]
    assert {one.nodes_total for one in told} == {2}
    assert told[-1].done == {"2", "3"}
