"""Small files that would cost very much: each ends within bounds, converted or refused.

What is asked for here took minutes or gigabytes once. For those that are converted it is enough that the test ends.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from comfy_serverless.graph.convert import convert, limits, sources
from tests.patience import PATIENCE_S
from tests.unit.graph.convert.editor_files import CLASSES, host, node, prompt, reasons, subgraph, workflow


def told(document: dict[str, Any]) -> set[str]:
    return {reason["reason"] for reason in reasons(document)}


def sockets(count: int, link: int | None, *, kind: str = "*") -> list[dict[str, Any]]:
    return [{"name": f"in{number}", "type": f"{kind}{number}", "link": link} for number in range(count)]


def group(*nodes: dict[str, Any], links: list[Any] | None = None) -> dict[str, Any]:
    return {"groupNodes": {"g": {"nodes": [*nodes], "links": links or [], "external": []}}}


def test_a_long_way_that_is_wanted_as_many_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_STEPS", 50_000)
    chain = [node(number, "Reroute", outputs=("*",), _=(number - 1, 0)) for number in range(2, 1002)]
    askers = [node(10_000 + number, "PreviewImage") for number in range(5)]
    for number, each in enumerate(askers):
        each["inputs"] = sockets(100, 99_999, kind=f"T{number}_")
    document = workflow(node(1, "EmptyImage", [8, 8, 1, 0]), *chain, *askers)
    document["links"].append([99_999, 1001, 0, 10_000, 0, "*"])
    assert told(document) == {"too_large"}


def test_a_node_with_more_values_than_any_has_is_refused() -> None:
    assert told(workflow(node(1, "CustomCombo", ["a", 0, *map(str, range(limits.MOST_VALUES))]))) == {"too_large"}


def test_a_bypassed_node_that_is_asked_for_many_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_COMPARISONS", 50_000)
    handing = node(1, "ImageInvert", mode=4)
    handing["inputs"] = sockets(900, None, kind="A")
    handing["outputs"] = [{"name": "x", "type": "Z", "links": []} for _ in range(900)]
    asking = node(2, "PreviewImage")
    asking["inputs"] = [{"name": f"p{at}", "type": f"Q{at}", "link": at} for at in range(900)]
    document = workflow(handing, asking)
    document["links"] = [[at, 1, at, 2, 0, "*"] for at in range(900)]
    assert told(document) == {"too_large"}


@pytest.mark.parametrize("text", ["{a" * 60_000 + "x" * 500_000 + "}" * 60_000, "{a|" * 60_000 + "}" * 60_000])
def test_choices_within_choices_are_not_copied_at_each_level(text: str) -> None:
    started = time.process_time()
    found = prompt(workflow(node(1, "CLIPTextEncode", [text])), seed="s")["1"]["text"]
    assert time.process_time() - started < PATIENCE_S
    assert set(found) <= {"a", "x"}


def test_a_long_text_that_is_named_very_often_is_refused() -> None:
    saver = node(2, "SaveImage", ["%A.text%" * 1000])
    assert told(workflow(node(1, "CLIPTextEncode", ["y" * 1_000_000], title="A"), saver)) == {"too_large"}


def test_ids_deep_in_subgraphs_do_not_grow_beyond_bounds() -> None:
    long = "z" * 60
    leaves = node("leaf", "EmptyImage", [8, 8, 1, 0])
    savers = [node(f"{'s' * 50}{number}", "SaveImage", ["x"]) for number in range(2000)]
    for saver in savers:
        saver["inputs"] = sockets(20, 7)
    inner = subgraph("0", leaves, *savers)
    inner["links"] = [{"id": 7, "origin_id": "leaf", "origin_slot": 0, "target_id": "x", "target_slot": 0, "type": "*"}]
    levels = [inner]
    for number in range(1, 29):
        levels.append(subgraph(str(number), host(long, levels[-1])))
    assert told(workflow(host(long, levels[-1]), subgraphs=levels)) == {"too_large"}


def test_a_large_group_in_many_instances_is_refused() -> None:
    inner = {"type": "EmptyImage", "widgets_values": [1] * 20_000}
    instances = [node(number, "workflow>g") for number in range(1, 101)]
    assert told(workflow(*instances, extra=group(inner))) == {"too_large"}


def test_many_instances_among_many_links_are_converted() -> None:
    made = [{"name": "IMAGE", "type": "IMAGE", "links": []}]
    inner = {"type": "EmptyImage", "widgets_values": [8, 8, 1, 0], "outputs": made}
    instances = [node(number, "workflow>g", outputs=("IMAGE",)) for number in range(1, 1001)]
    viewer = node(9000, "PreviewImage", images=(1000, 0))
    document = workflow(*instances, viewer, extra=group(inner))
    document["links"] += [[100_000 + number, 5, 9, 6, 0, "*"] for number in range(50_000)]
    found = convert(document, CLASSES).graph
    assert len(found) == 1001
    assert found["9000"]["inputs"] == {"images": ["1000:0", 0]}


def test_a_link_that_an_output_names_many_times_is_one() -> None:
    value = node(1, "PrimitiveNode", [640, "fixed"], outputs=("INT",))
    document = workflow(value, node(2, "EmptyImage", [8, 8, 1, 0], width=(1, 0)))
    value["outputs"][0]["links"] *= 200_000
    assert prompt(document)["2"]["width"] == 641, "made to fit"


def test_definitions_with_the_same_ids_get_others_and_hosts_follow() -> None:
    inner = [subgraph(f"s{number}", node(1, "CLIPTextEncode", ["t"])) for number in range(3000)]
    named = host(2, inner[-1], ["hello"], properties={"proxyWidgets": [["1", "text"]]})
    others = [node(number, "EmptyImage", [8, 8, 1, 0]) for number in range(10, 3000)]
    found = prompt(workflow(node(1, "EmptyImage", [8, 8, 1, 0]), named, *others, subgraphs=inner))
    assert [inputs["text"] for node_id, inputs in found.items() if node_id.startswith("2:")] == ["hello"]


def test_entries_for_inputs_that_a_host_does_not_have_cost_a_look_each() -> None:
    inner = subgraph("s", node(1, "EmptyImage", [8, 8, 1, 0]))
    inner["inputs"] = [{"id": str(at), "name": f"i{at}", "type": "X", "linkIds": []} for at in range(1000)]
    entries = {"proxyWidgets": [["-1", "nobody"]] * 1000}
    hosts = [node(number, "s", properties=entries) for number in range(10, 110)]
    assert len(prompt(workflow(*hosts, subgraphs=[inner]))) == 100
