"""What a prompt made, put together while it runs and at its end."""

from __future__ import annotations

import io

from comfy_serverless.connector.collector import OutputCollector
from comfy_serverless.connector.facts import EventSeen, Outcome, Timings
from comfy_serverless.connector.outputs import FileLocator, Output

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
