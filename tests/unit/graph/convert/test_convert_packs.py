"""Nodes of packs whose editor code is known, and the editor's own CustomCombo."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.graph.convert.virtual import VIRTUAL
from tests.unit.graph.convert.editor_files import host, inputs, node, prompt, reasons, subgraph, warnings, workflow


def test_get_takes_what_set_was_given() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "SetNode", ["img"], outputs=("*",), types={"IMAGE": "IMAGE"}, IMAGE=(1, 0)),
        node(3, "GetNode", ["img"], outputs=("IMAGE",)),
        node(4, "PreviewImage", images=(3, 0)),
        node(5, "GetNode", ["nosuch"], outputs=("IMAGE",)),
        node(6, "PreviewImage", images=(5, 0)),
        node(7, "PreviewImage", images=(2, 0)),
    )
    found = prompt(document)
    assert (found["4"], found["6"], found["7"]) == ({"images": ["1", 0]}, {}, {"images": ["1", 0]})
    assert "'nosuch'" in warnings(document)


def test_get_looks_in_the_graphs_around_its_own() -> None:
    inner = subgraph(
        "s",
        node(101, "GetNode", ["img"], outputs=("IMAGE",)),
        node(102, "ImageInvert", image=(101, 0)),
        outputs={"IMAGE": (102, 0)},
    )
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "SetNode", ["img"], IMAGE=(1, 0)),
        host(3, inner),
        subgraphs=[inner],
    )
    assert prompt(document)["3:102"] == {"image": ["1", 0]}


def test_a_circle_of_set_and_get_leads_nowhere() -> None:
    document = workflow(
        node(1, "SetNode", ["a"], v=(2, 0)),
        node(2, "GetNode", ["a"], outputs=("*",)),
        node(3, "PreviewAny", source=(2, 0)),
    )
    assert prompt(document) == {"3": {}}


def test_virtual_nodes_are_in_no_prompt() -> None:
    assert prompt(workflow(*[node(number, kind) for number, kind in enumerate(sorted(VIRTUAL))])) == {}


def test_the_reroute_of_rgthree_is_one() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "Reroute (rgthree)", outputs=("*",), _=(1, 0)),
        node(3, "PreviewImage", images=(2, 0)),
    )
    assert prompt(document)["3"] == {"images": ["1", 0]}


def test_the_seed_of_rgthree_stays_as_it_is() -> None:
    assert inputs("Seed (rgthree)", [-1, "", "", ""]) == {"seed": -1}
    assert not warnings(workflow(node(1, "Seed (rgthree)", [-1, "", "", ""])))


@pytest.mark.parametrize(
    ("properties", "second"), [({}, {}), ({"Show Strengths": "Separate Model & Clip"}, {"strengthTwo": 1})]
)
def test_loras_of_rgthrees_loader_are_the_objects_with_a_lora(properties: Any, second: Any) -> None:
    values = [
        {},
        {"type": "PowerLoraLoaderHeaderWidget"},
        {"on": True, "lora": "x", "strength": 1, "strengthTwo": None},
        {"on": False, "lora": None, "strength": 0.5, "strengthTwo": None},
        {},
        "",
    ]
    assert inputs("Power Lora Loader (rgthree)", values, properties=properties) == {
        "PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"},
        "lora_1": {"on": True, "lora": "x", "strength": 1} | second,
        "lora_2": {"on": False, "lora": None, "strength": 0.5} | second,
        "➕ Add Lora": "",
    }


def test_a_text_that_was_shown_stands_beside_the_input() -> None:
    document = workflow(node(1, "PrimitiveString", ["x"]), node(2, "ShowText|pysssss", [["a", "b"]], text=(1, 0)))
    assert prompt(document)["2"] == {"text": ["1", 0], "text_0": "a", "text_1": "b"}


def test_videohelpersuite_saves_values_by_name_and_describes_those_of_formats() -> None:
    values = {"frame_rate": 12, "format": "video/h264", "crf": 20, "start": 3, "videopreview": {"hidden": False}}
    assert inputs("VHS_VideoCombine", values) == {
        "frame_rate": 12,
        "format": "video/h264",
        "pix_fmt": "yuv420p",
        "crf": 20,
        "start": 3,
    }
    assert inputs("VHS_VideoCombine", {"format": "image/gif"}) == {"frame_rate": 8, "format": "image/gif"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", 7, "a", "b", "c", ""], {"choice": "b", "index": 1, "option1": "a", "option2": "b", "option3": "c"}),
        (["zzz", 0, "a", "b"], {"choice": "zzz", "index": -1, "option1": "a", "option2": "b"}),
        (["a", 0, "a", "", "lost"], {"choice": "a", "index": 0, "option1": "a"}),
        ([None, 0, "a"], {"choice": "a", "index": 0, "option1": "a"}),
        (["", 0, ""], {"choice": "", "index": 0}),
        (None, {"index": -1}),
    ],
)
def test_the_options_of_a_custom_combo_grow_and_its_index_is_counted(values: Any, expected: dict[str, Any]) -> None:
    last = f"option{len([name for name in expected if name.startswith('option')]) + 1}"
    assert inputs("CustomCombo", values) == expected | {last: ""}


@pytest.mark.parametrize(
    "kind", ["Anything Everywhere", "Anything Everywhere3", "Prompts Everywhere", "Seed Everywhere"]
)
def test_nodes_that_link_in_the_editor_only_are_refused(kind: str) -> None:
    (reason,) = reasons(workflow(node(2, kind)))
    assert (reason["reason"], reason["node_id"], reason["class_type"]) == ("use_everywhere", "2", kind)
    assert prompt(workflow(node(2, kind, mode=2))) == {}
