"""The widgets of a node, and which values of the file they get."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import inputs, node, prompt, warnings, workflow

LATENT = {"width": 512, "height": 512, "batch_size": 1}
SAMPLED = {
    "seed": 7,
    "steps": 20,
    "cfg": 8.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "denoise": 1.0,
}


@pytest.mark.parametrize("control", ["randomize", "fixed", True, False, None, 5])
def test_the_control_after_a_seed_takes_a_place_whatever_it_holds(control: Any) -> None:
    assert inputs("KSampler", [7, control, 30]) == SAMPLED | {"steps": 30}


@pytest.mark.parametrize("values", [None, [], {}])
def test_without_values_the_defaults_are_taken(values: Any) -> None:
    assert inputs("EmptyLatentImage", values) == LATENT


def test_a_default_that_is_taken_is_told() -> None:
    told = warnings(workflow(node(4, "EmptyLatentImage", [8])))
    assert "node 4 ('EmptyLatentImage')" in told
    assert "height, batch_size" in told


def test_surplus_values_are_left_out_and_told() -> None:
    document = workflow(node(1, "EmptyLatentImage", [8, 8, 1, "x"]))
    assert prompt(document)["1"] == {"width": 8, "height": 8, "batch_size": 1}
    assert "belong to no widget" in warnings(document)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("OldNoise", [5, "increment"], {"noise_seed": 5}),
        ("PlainSeed", [5, "surplus"], {"seed": 5}),
        ("LoadImage", ["a.png", "image"], {"image": "a.png"}),
        ("LoadAudio", ["a.wav", None, ""], {"audio": "a.wav"}),
        ("SaveGLB", ["3d/x", ""], {"filename_prefix": "3d/x", "image": ""}),
        ("ImageCrop", [{"x": 1}, 1, 2, 3, 4], {"region": {"x": 1}}),
        ("ImageCrop", [], {"region": {"x": 0, "y": 0, "width": 512, "height": 512}}),
        ("ImageCompare", [], {"view": {"__value__": ["", ""]}}),
        ("CurveEditor", [[[0, 0], [1, 1]]], {"curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]}}),
        ("CurveEditor", [{"points": [[0, 0]]}], {"curve": {"points": [[0, 0]]}}),
        ("Painter", ["", "#ff0000"], {"mask": "", "bg": "#ff0000"}),
        ("PickMany", [["A", "B"]], {"picks": {"__value__": ["A", "B"]}}),
        ("PickMany", [], {"picks": {"__value__": []}}),
        ("PickRolled", ["B", "fixed", "", 9], {"pick": "B", "count": 9}),
        ("PickRemote", ["x", False, "refresh", 9], {"pick": "x", "refresh": "refresh", "n": 9}),
        ("PickRemote", [], {"pick": "Loading...", "refresh": "refresh", "n": 0}),
        ("PickMany", [None], {"picks": ""}),
        ("Marked", [None], {"text": ""}),
        ("Marked", [12], {"text": "12"}),
        ("LoadImage", [], {"image": "example.png"}),
        ("LoadAudio", [], {}),
        ("DefaultInput", [3], {"first": 3}),
        ("PreviewAny", ["shown before", "", False], {}),
    ],
)
def test_each_widget_takes_its_places(kind: str, values: Any, expected: Any) -> None:
    assert inputs(kind, values) == expected


def test_values_are_neither_checked_nor_rounded_nor_cast() -> None:
    assert inputs("EmptyLatentImage", [513, -8, "2"]) == {"width": 513, "height": -8, "batch_size": "2"}
    assert inputs("CheckpointLoaderSimple", ["none/such"]) == {"ckpt_name": "none/such"}
    assert inputs("PrimitiveInt", [2**64 - 1, "fixed"]) == {"value": 2**64 - 1}


def test_null_becomes_the_first_choice_or_an_empty_text_and_else_stays() -> None:
    found = inputs("KSampler", [None, "fixed", None, 7, None, "karras", 1])
    assert found == SAMPLED | {"seed": None, "steps": None, "cfg": 7, "scheduler": "karras"}
    assert inputs("CLIPTextEncode", [None]) == {"text": ""}
    assert inputs("PrimitiveString", [None]) == {"value": None}


def test_the_oldest_names_of_samplers_are_mended() -> None:
    assert inputs("KSampler", [7, True, 20, 8.0, "sample_heun", "simple", 1])["sampler_name"] == "heun"


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert inputs("EmptyLatentImage", [math.nan, math.inf, 1]) == {"width": None, "height": None, "batch_size": 1}


def test_old_values_of_inputs_that_became_sockets_are_dropped_when_the_count_shows_them() -> None:
    assert inputs("Forced", [0, 7, 0.5]) == {"kept": 7}
    assert inputs("Forced", [7]) == {"kept": 7}
    assert inputs("Forced", [3, 7]) == {"kept": 3}


def test_values_by_name_go_to_their_inputs() -> None:
    values = {"steps": 5, "seed": 3, "sampler_name": "heun", "unknown": 1}
    assert inputs("KSampler", values) == SAMPLED | {"steps": 5, "seed": 3, "sampler_name": "heun"}


def test_named_values_beside_the_list_do_not_count() -> None:
    each = node(1, "EmptyLatentImage", [64, 32, 2])
    each["widgets_values_named"] = {"width": 1}
    assert prompt(workflow(each))["1"] == {"width": 64, "height": 32, "batch_size": 2}


def test_a_linked_widget_keeps_its_place() -> None:
    document = workflow(node(1, "EmptyLatentImage", [64, 32, 2], width=(2, 0)), node(2, "PrimitiveInt", [9, "fixed"]))
    assert prompt(document)["1"] == {"width": ["2", 0], "height": 32, "batch_size": 2}


def test_a_linked_seed_keeps_the_place_of_its_control() -> None:
    document = workflow(node(1, "KSampler", [7, "fixed", 3], seed=(2, 0)), node(2, "PrimitiveInt", [9, "fixed"]))
    assert prompt(document)["1"] == SAMPLED | {"seed": ["2", 0], "steps": 3}
