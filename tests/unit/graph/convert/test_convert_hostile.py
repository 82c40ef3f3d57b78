"""No file makes the converter hang, grow without bound or fail otherwise than by a refusal."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.convert.stand_ins import stand_ins
from comfy_serverless.workflows.proposal import propose
from tests.unit.graph.convert.editor_files import CLASSES, host, node, prompt, reasons, subgraph, workflow


def rich() -> dict[str, Any]:
    """A file with something of everything."""
    inner = subgraph(
        "in",
        node(101, "ImageScaleBy", ["area", 2], scale_by=(104, 0)),
        node(104, "PrimitiveNode", [8, "fixed"], outputs=("FLOAT",)),
        inputs={"image": [(101, "image")], "how": [(101, "upscale_method")]},
        outputs={"IMAGE": (101, 0)},
    )
    outer = subgraph(
        "out",
        host(101, inner, ["bilinear"], properties={"proxyWidgets": [["104", "value"], ["101", "scale_by"]]}),
        inputs={"image": [(101, "image")], "how": [(101, "how")]},
        outputs={"IMAGE": (101, 0)},
        definitions={"subgraphs": []},
    )
    group = {
        "nodes": [
            {
                "type": "ImageInvert",
                "inputs": [{"name": "image", "type": "IMAGE"}],
                "outputs": [{"name": "I", "type": "I"}],
            },
            {"type": "ImageScaleBy", "widgets_values": ["area", 1], "inputs": [{"name": "image", "type": "IMAGE"}]},
        ],
        "links": [[0, 0, 1, 0, 1, "IMAGE"]],
        "external": [[1, 0, "IMAGE"], [{"index": 0}, 0]],
        "config": {"0": {"input": {"image": {"visible": True}}, "output": {"0": {"visible": False}}}},
    }
    quarantine = [{"originalEntry": ["-1", "how"], "hostValue": "area"}]
    return workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        host(2, outer, ["area", 3], image=(1, 0), properties={"proxyWidgetErrorQuarantine": quarantine}),
        node(3, "workflow>mine", ["lanczos", 2], outputs=("IMAGE",), image=(2, 0)),
        node(
            4,
            "Resize",
            ["to size", 64, 32, "area"],
            mode=4,
            input=(3, 0),
            types={"how.width": "INT"},
            how__width=(9, 0),
        ),
        node(5, "Batch", images__image0=(4, 0), images__image1=(1, 0)),
        node(6, "SaveImage", ["%date:yyyy%_%KSampler.seed%"], images=(5, 0), properties={"Node name for S&R": "S"}),
        node(7, "CLIPTextEncode", ["a {b|c} // d"], title="text"),
        node(8, "KSampler", [1, "fixed", 2, 3, "heun", "simple", 1], steps=(9, 0)),
        node(9, "PrimitiveNode", [5, "fixed"], outputs=("INT",)),
        node(10, "SetNode", ["x"], v=(1, 0)),
        node(11, "GetNode", ["x"], outputs=("IMAGE",)),
        node(12, "PreviewImage", images=(11, 0)),
        node(13, "VHS_VideoCombine", {"format": "video/h264", "crf": 3}),
        node(14, "Power Lora Loader (rgthree)", [{"lora": "x"}]),
        node(15, "CustomCombo", ["a", 0, "a"]),
        node(16, "Reroute", outputs=("*",), _=(17, 0)),
        node(17, "Reroute", outputs=("*",), _=(16, 0)),
        node(18, "CurveEditor", [[[0, 1]]]),
        subgraphs=[inner, outer],
        extra={"groupNodes": {"mine": group}},
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], other: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = other


PLACES = [*places(rich())]
#: Values of every kind, and some that mean something elsewhere in such a file.
OTHERS: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 2, 4, 1.5, -10, -20, 10**30, -(10**400), math.nan, math.inf, 1e308, 2**53),
        *("", "x", "-10", "1", "9" * 400, "a" * 3000, "in", "out", "workflow>mine", "GetNode", "Reroute", "Load3D"),
        *([], {}, [[]], [None], [1], ["in"], {"a": 1}, [{}], {"x": [1, 2]}, [[1, "2", 3.0]]),
    ]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def outcome(document: Any, classes: Any, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
    """The graph, or the reasons against it. Nothing else may come of any file."""
    try:
        return convert(document, classes, **arguments).graph, []
    except UiFormatWorkflow as refusal:
        return {}, refusal.details["reasons"]


def test_the_file_with_something_of_everything_is_converted() -> None:
    found = prompt(rich())
    assert found["2:105:101"]["upscale_method"] == "area"
    assert found["3:1"] == {"image": ["3:0", 0], "upscale_method": "lanczos", "scale_by": 2}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), OTHERS), min_size=1, max_size=4), st.none() | st.text(max_size=3))
def test_whatever_stands_anywhere_in_a_file_it_is_converted_or_refused(changes: Any, seed: str | None) -> None:
    document = rich()
    for path, other in changes:
        try:
            put(document, path, copy.deepcopy(other))
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    graph, why = outcome(document, CLASSES, seed=seed)
    assert why or all(isinstance(each["inputs"], dict) for each in graph.values())
    json.dumps([graph, why], allow_nan=False)


def named() -> dict[str, Any]:
    """The same, where every node names its values, as current editors do."""
    document = rich()
    for each in document["nodes"]:
        if isinstance(values := each.get("widgets_values"), list):
            names = ["text", "seed", "control_after_generate", "cfg", "how", "upload", "x#1"]
            each["widgets_values_named"] = dict.fromkeys(names[: len(values)])
    return document


NAMED_PLACES = [*places(named())]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(NAMED_PLACES), OTHERS), max_size=4),
    st.sets(st.sampled_from(sorted(CLASSES))) | st.just(set(CLASSES)),
)
def test_whatever_stands_in_a_file_is_looked_at_without_declarations_or_refused(changes: Any, gone: set[str]) -> None:
    document = named()
    for path, other in changes:
        try:
            put(document, path, copy.deepcopy(other))
        except (KeyError, IndexError, TypeError):
            continue
    declared = {name: one for name, one in CLASSES.items() if name not in gone}
    try:
        instead = stand_ins(document, declared)
        graph = convert(document, instead.object_info).graph
    except UiFormatWorkflow:
        return
    proposal = propose(graph, instead.object_info, editors=document)
    proposed = [[one.to_json() for one in proposal.inputs], [one.to_json() for one in proposal.outputs]]
    said = [graph, instead.notes, proposal.notes, proposed]
    json.dumps(said, allow_nan=False)


CLASS_PLACES = [*places(CLASSES)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(CLASS_PLACES), OTHERS), min_size=1, max_size=4))
def test_whatever_stands_in_the_declarations_of_an_engine(changes: Any) -> None:
    classes = copy.deepcopy(CLASSES)
    for path, other in changes:
        try:
            put(classes, path, copy.deepcopy(other))
        except (KeyError, IndexError, TypeError):
            continue
    graph, why = outcome(rich(), classes)
    assert graph or why


def test_a_group_with_things_that_are_no_numbers_where_numbers_belong() -> None:
    document = rich()
    group = document["extra"]["groupNodes"]["mine"]
    group["external"] = [[0, {}], [{}, 0], [[], []], [None, 0], 5, [1, 0]]
    group["links"] += [
        [0, {}, 1, 0],
        [0, 0, [], 0],
        [{}, 0, 1, 0],
        [0, 0, 1, -5],
        [0, 10**30, 1, 0],
        [0, 0, 99, 0],
        5,
        [],
    ]
    assert prompt(document)["3:1"]["upscale_method"] == "lanczos"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("nodes", 0), 5, "an entry of the nodes of the workflow should be an object and is a number"),
        (("nodes", 0, "id"), None, "the id of a node of the workflow should be a number or a text and is null"),
        (("nodes", 0, "type"), 5, "the type of node 1 in the workflow should be a text and is a number"),
        (("nodes", 0, "mode"), "x", "the mode of node 1"),
        (("nodes", 0, "inputs"), "x", "the inputs of node 1"),
        (("nodes", 0, "widgets_values"), "x", "`widgets_values` of node 1"),
        (("links",), {}, "the links of the workflow should be a list and is an object"),
        (("links", 0), "x", "a link of the workflow should be a list or an object"),
        (("links", 0, 1), {}, "an id or a slot of a link of the workflow"),
        (("definitions",), 5, "`definitions` should be an object"),
        (("definitions", "subgraphs", 0, "id"), 5, "the id of a subgraph"),
        (("definitions", "subgraphs", 0, "inputs", 0, "name"), 5, "a name in the inputs of the subgraph 'in'"),
        (("extra", "groupNodes", "mine", "nodes", 0), 5, "a node of a group should be an object"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_its_place(path: Any, value: Any, told: str) -> None:
    document = rich()
    put(document, path, value)
    found = reasons(document)
    assert "malformed" in {reason["reason"] for reason in found}
    assert any(told in reason["message"] for reason in found)


def refused_as(document: dict[str, Any]) -> set[str]:
    return {reason["reason"] for reason in reasons(document)}


def test_a_subgraph_that_contains_itself_is_refused() -> None:
    first = subgraph("a", node(1, "ImageInvert"))
    second = subgraph("b", host(1, first))
    first["nodes"].append(host(2, second))
    assert refused_as(workflow(host(1, first), subgraphs=[first, second])) == {"contains_itself"}


def test_subgraphs_that_double_with_every_level_are_refused() -> None:
    levels = [subgraph("0", node(1, "ImageInvert"))]
    for number in range(1, 25):
        levels.append(subgraph(str(number), host(1, levels[-1]), host(2, levels[-1])))
    assert refused_as(workflow(host(1, levels[-1]), subgraphs=levels)) == {"too_large"}


def test_subgraphs_that_stand_too_deep_are_refused() -> None:
    levels = [subgraph("0", node(1, "ImageInvert"))]
    for number in range(1, 300):
        levels.append(subgraph(str(number), host(1, levels[-1])))
    assert refused_as(workflow(host(1, levels[-1]), subgraphs=levels)) == {"too_deep"}


def test_definitions_within_definitions_end_somewhere() -> None:
    inner: dict[str, Any] = {"id": "0", "nodes": [], "links": []}
    for number in range(1, 300):
        inner = {"id": str(number), "nodes": [], "links": [], "definitions": {"subgraphs": [inner]}}
    assert refused_as(workflow(subgraphs=[inner])) == {"too_deep"}


def test_values_that_are_nested_too_deep_are_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    assert refused_as(workflow(node(1, "CurveEditor", [value]))) == {"too_deep"}


def test_a_long_value_in_many_hosts_is_refused() -> None:
    inner = subgraph("s", node(101, "PrimitiveString", ["x" * 1_000_000]))
    assert refused_as(workflow(*[host(number, inner) for number in range(100)], subgraphs=[inner])) == {"too_large"}


def test_a_node_with_too_many_inputs_is_refused() -> None:
    inputs: dict[str, Any] = {f"in{number}": None for number in range(1001)}
    each = node(1, "PreviewImage", **inputs)
    assert refused_as(workflow(each)) == {"too_large"}


@pytest.mark.parametrize("mode", [0, 4])
def test_a_long_chain_is_followed(mode: int) -> None:
    kind = "ImageInvert" if mode else "Reroute"
    chain = [
        node(number, kind, mode=mode, outputs=("IMAGE",), image=(number - 1, 0), types={"image": "IMAGE"})
        for number in range(2, 2000)
    ]
    document = workflow(node(1, "EmptyImage", [8, 8, 1, 0]), *chain, node(9999, "PreviewImage", images=(1999, 0)))
    assert prompt(document)["9999"] == {"images": ["1", 0]}


@pytest.mark.parametrize("text", ["/*" * 50_000, "{" * 50_000, "{a|" * 30_000, "/*//\n" * 30_000, "%a.b" * 30_000])
def test_texts_are_read_in_one_pass(text: str) -> None:
    document = workflow(node(1, "CLIPTextEncode", [text]), node(2, "SaveImage", [text]))
    assert prompt(document, seed="s")["2"]["filename_prefix"] == text
