"""PrimitiveNode writes its value into its targets, and vanishes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import host, node, prompt, subgraph, warnings, workflow


def primitive(values: Any, kind: str = "INT", **more: Any) -> dict[str, Any]:
    return node(9, "PrimitiveNode", values, outputs=(kind,), **more)


def widths(values: Any, *more: dict[str, Any], **options: Any) -> Any:
    document = workflow(primitive(values, **options), node(1, "EmptyLatentImage", [64, 32, 1], width=(9, 0)), *more)
    assert "9" not in prompt(document)
    return prompt(document)["1"]["width"]


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_a_value_is_written_also_by_one_that_is_muted_or_bypassed(mode: int) -> None:
    assert widths([96, "fixed"], mode=mode) == 96


@pytest.mark.parametrize("values", [None, []])
def test_without_a_value_it_has_that_of_its_first_target(values: Any) -> None:
    assert widths(values, node(2, "EmptyImage", [8, 8, 1, 0], width=(9, 0))) == 64


def test_several_targets_get_a_value_that_fits_all() -> None:
    document = workflow(
        primitive([77, "randomize"]),
        node(1, "KSampler", [1, "fixed", 2], steps=(9, 0)),
        node(2, "EmptyLatentImage", [64, 32, 1], width=(9, 0)),
    )
    assert prompt(document)["1"]["steps"] == 80
    assert prompt(document)["2"]["width"] == 80
    assert "77 is made 80" in warnings(document)


@pytest.mark.parametrize(
    ("value", "kind", "target", "name", "expected"),
    [
        (13, "INT", "EmptyLatentImage", "width", 16),
        (7, "INT", "EmptyLatentImage", "width", 16),
        (10**9, "INT", "EmptyLatentImage", "width", 16384),
        ("21", "INT", "EmptyLatentImage", "width", 24),
        ("text", "INT", "EmptyLatentImage", "width", None),
        (20.7, "INT", "KSampler", "steps", 21),
        (2**64 - 1, "INT", "KSampler", "seed", 2**64 - 1),
        (0.35, "FLOAT", "KSampler", "cfg", 0.4),
        (0.357, "FLOAT", "KSampler", "denoise", 0.36),
        (5, "FLOAT", "KSampler", "denoise", 1.0),
    ],
)
def test_a_number_is_made_to_fit_its_target(value: Any, kind: str, target: str, name: str, expected: Any) -> None:
    source: dict[str, Any] = {name: (9, 0)}
    document = workflow(primitive([value], kind), node(1, target, **source))
    assert prompt(document)["1"][name] == expected


@pytest.mark.parametrize("value", [5000, 99_999])
def test_what_is_rounded_to_a_step_may_be_beyond_the_limits_again(value: int) -> None:
    """As in the editor, which clamps first."""
    document = workflow(
        primitive([value]),
        node(1, "PlainSteps", [1], steps=(9, 0)),
        node(2, "PlainOverlap", [8], overlap=(9, 0)),
    )
    assert (prompt(document)["1"]["steps"], prompt(document)["2"]["overlap"]) == (1025, 1024)


def test_a_number_that_fits_not_all_its_targets_is_rounded_for_each_and_not_clamped() -> None:
    document = workflow(
        primitive([5000]), node(1, "PlainSteps", [1], steps=(9, 0)), node(2, "Fenced", [8], overlap=(9, 0))
    )
    assert (prompt(document)["1"]["steps"], prompt(document)["2"]["overlap"]) == (5000, 4992)


def test_nothing_is_written_if_the_first_target_takes_no_value() -> None:
    for first in (node(1, "PreviewAny", source=(9, 0)), node(1, "Reroute", outputs=("*",), _=(9, 0))):
        document = workflow(primitive([96]), first, node(2, "EmptyLatentImage", [64, 32, 1], width=(9, 0)))
        assert prompt(document)["2"]["width"] == 64
        assert "what it is linked to first takes no value" in warnings(document)


def test_a_number_that_is_forced_to_be_a_socket_may_be_the_first_target() -> None:
    document = workflow(
        primitive([96]),
        node(1, "Forced", [7], types={"first": "INT"}, first=(9, 0)),
        node(2, "EmptyLatentImage", [64, 32, 1], width=(9, 0)),
    )
    assert prompt(document)["2"]["width"] == 96


def test_texts_and_choices_are_written_as_they_are() -> None:
    document = workflow(
        primitive(["heun", "fixed", ""], "COMBO"),
        node(1, "KSampler", [1, "fixed"], sampler_name=(9, 0), scheduler=(9, 0)),
    )
    assert (prompt(document)["1"]["sampler_name"], prompt(document)["1"]["scheduler"]) == ("heun", "heun")


def test_dynamic_prompts_of_the_target_apply() -> None:
    document = workflow(primitive(["a {x|y}"], "STRING"), node(1, "CLIPTextEncode", ["own"], text=(9, 0)))
    assert prompt(document)["1"]["text"] == "a x"


def test_a_socket_gets_nothing_and_nothing_arrives_through_a_reroute() -> None:
    document = workflow(
        primitive([5]),
        node(1, "Forced", [7], types={"first": "INT"}, first=(9, 0)),
        node(2, "Reroute", outputs=("*",), _=(9, 0)),
        node(3, "EmptyLatentImage", [64, 32, 1], width=(2, 0)),
    )
    assert prompt(document) == {"1": {"kept": 7}, "3": {"width": 64, "height": 32, "batch_size": 1}}


@pytest.mark.parametrize(("asked", "expected"), [(True, "seed 42"), (False, "seed %KSampler.seed%")])
def test_names_of_widgets_are_replaced_if_it_asks_for_that(asked: bool, expected: str) -> None:
    document = workflow(
        primitive(["seed %KSampler.seed%"], "STRING", properties={"Run widget replace on values": asked}),
        node(1, "CLIPTextEncode", ["own"], text=(9, 0)),
        node(2, "KSampler", [42, "fixed"]),
    )
    assert prompt(document)["1"]["text"] == expected


def test_targets_are_those_that_the_output_names() -> None:
    document = workflow(primitive([96]), node(1, "EmptyLatentImage", [64, 32, 1], width=(9, 0), height=(9, 0)))
    document["nodes"][0]["outputs"][0]["links"] = [2, 77]
    assert prompt(document)["1"] == {"width": 64, "height": 96, "batch_size": 1}
    document["nodes"][0]["outputs"][0]["links"] = [77, 2]
    assert prompt(document)["1"] == {"width": 64, "height": 32, "batch_size": 1}
    document["nodes"][0]["outputs"][0]["links"] = [2]
    assert prompt(document)["1"] == {"width": 64, "height": 96, "batch_size": 1}


def test_a_promoted_widget_of_a_host_gets_no_value_from_outside() -> None:
    inner = subgraph("s", node(101, "ImageScaleBy", ["area", 2]), inputs={"by": [(101, "scale_by")]})
    document = workflow(primitive([3.5], "FLOAT"), host(1, inner, [5], by=(9, 0)), subgraphs=[inner])
    assert prompt(document)["1:101"]["scale_by"] == 2


def test_an_input_of_a_dynamic_combo_is_a_target_like_any_other() -> None:
    document = workflow(
        primitive([333]), node(1, "Resize", ["to size", 64, 32, "area"], types={"how.width": "INT"}, how__width=(9, 0))
    )
    assert prompt(document)["1"]["how.width"] == 336
