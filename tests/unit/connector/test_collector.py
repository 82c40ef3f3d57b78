"""What a prompt made, put together while it runs and at its end."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_serverless.connector.collector import OutputCollector
from comfy_serverless.connector.facts import EventSeen, FrameSeen, Outcome, Timings
from comfy_serverless.connector.outputs import FileLocator, Output
from comfy_serverless.connector.progress import Progress

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
    locator = FileLocator({}, lambda *_: io.BytesIO())
    collector = OutputCollector(GRAPH, locator, on_progress=None, on_output=told.append)
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
    collector = OutputCollector(
        GRAPH, FileLocator({}, lambda *_: io.BytesIO()), on_progress=previews.append, on_output=None
    )
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
    graph = {"b": {"class_type": "Show"}, "a.x": {"class_type": "Show"}, "a": {"class_type": "Show"}}
    shown = {node: {"text": [node]} for node in ("gone", "a", "a.x.0.0.1", "b")}
    collector = OutputCollector(graph, FileLocator({}, lambda *_: io.BytesIO()), on_progress=None, on_output=None)
    outputs = collector.collect(replace(ENDED, shown=shown, display_nodes={}))
    assert [output.node_id for output in outputs] == ["b", "a.x", "a", "gone"]


def test_files_that_a_node_has_written_without_a_word_are_its_outputs(tmp_path: Path) -> None:
    def node(class_type: str, prefix: object) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": {"filename_prefix": prefix}}

    for folder in ("vae", "2026/deep", "2027", "sub"):
        (tmp_path / folder).mkdir(parents=True)
    graph = {
        "1": node("VAESave", "vae/mine"),
        "2": node("SaveImage", "a"),
        "3": node("CheckpointSave", "%date:yyyy%/x"),
        "4": node("LoraSave", "lora_%year%"),
        "5": node("Escapes", "../a"),
        "6": node("Linked", ["1", 0]),
        "7": node("DidNotRun", "a"),
        "8": node("Windows", "sub\\w"),
    }
    collector = OutputCollector(
        graph, FileLocator({"output": [tmp_path]}, lambda *_: io.BytesIO()), on_progress=None, on_output=None
    )
    collector.see(EventSeen("execution_start", {"timestamp": 2_000_000}))
    collector.see(EventSeen("execution_success", {"timestamp": 2_010_000}))
    names = ("vae/mine_00001_.safetensors", "vae/other.safetensors", "a_1.png", "lora_2026_1.safetensors")
    names += ("2026/x_1.safetensors", "2026/deep/x_1.safetensors", "2026/y", "sub/w_1.safetensors")
    for name, written_at in (*((name, 2005) for name in names), ("vae/mine_old", 1999), ("vae/mine_next", 2011)):
        (tmp_path / name).write_bytes(b"something")
        os.utime(tmp_path / name, (written_at, written_at))
    shown = {"2": {"images": [{"filename": "a_1.png", "subfolder": "", "type": "output"}]}}
    outputs = collector.collect(replace(ENDED, shown=shown, display_nodes={}))
    assert [(output.node_id, output.class_type, output.subfolder, output.name) for output in outputs] == [
        ("1", "VAESave", "vae", "mine_00001_.safetensors"),
        ("2", "SaveImage", "", "a_1.png"),
        ("3", "CheckpointSave", "2026", "x_1.safetensors"),
        ("4", "LoraSave", "", "lora_2026_1.safetensors"),
        ("8", "Windows", "sub", "w_1.safetensors"),
    ]


def test_a_file_that_a_node_has_written_without_a_word_is_told_of_although_it_has_shown_nothing(tmp_path: Path) -> None:
    graph = {"1": {"class_type": "VAESave", "inputs": {"filename_prefix": "mine"}}}
    told: list[Output] = []
    locator = FileLocator({"output": [tmp_path]}, lambda *_: io.BytesIO())
    collector = OutputCollector(graph, locator, on_progress=None, on_output=told.append)
    collector.see(EventSeen("execution_start", {"timestamp": 2_000_000}))
    collector.see(EventSeen("executed", {"node": "1", "display_node": "1", "output": {}}))
    collector.see(EventSeen("execution_success", {"timestamp": 2_010_000}))
    (tmp_path / "mine_1.safetensors").write_bytes(b"something")
    os.utime(tmp_path / "mine_1.safetensors", (2005, 2005))
    outputs = collector.collect(replace(ENDED, shown={"1": {}}, display_nodes={}))
    collector.announce_rest()
    assert told == list(outputs)
    assert len(told) == 1


def test_progress_that_is_no_number_is_no_progress() -> None:
    told: list[Progress] = []
    collector = OutputCollector(
        GRAPH, FileLocator({}, lambda *_: io.BytesIO()), on_progress=told.append, on_output=None
    )
    for value in (float("nan"), float("inf"), "many", None, -3):
        collector.see(EventSeen("progress", {"node": "7", "value": value, "max": value}))
        collector.see(EventSeen("progress_state", {"nodes": {"7": {"state": "running", "value": value, "max": value}}}))
    assert {(progress.value, progress.step) for progress in told} == {(0.0, 0)}
