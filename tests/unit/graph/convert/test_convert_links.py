"""Where inputs come from: reroutes, muted and bypassed nodes."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.graph.convert.sources import fits
from tests.unit.graph.convert.editor_files import node, prompt, warnings, workflow


def image() -> dict[str, Any]:
    return node(1, "EmptyImage", [8, 8, 1, 0])


def reroute(node_id: int, source: Any, **more: Any) -> dict[str, Any]:
    return node(node_id, "Reroute", outputs=("*",), _=source, **more)


def test_reroutes_vanish_also_in_chains() -> None:
    document = workflow(image(), reroute(2, (1, 0)), reroute(3, (2, 0)), node(4, "PreviewImage", images=(3, 0)))
    assert prompt(document) == {"1": {"width": 8, "height": 8, "batch_size": 1, "color": 0}, "4": {"images": ["1", 0]}}


def test_a_reroute_without_a_source_gives_nothing() -> None:
    assert prompt(workflow(reroute(2, None), node(4, "PreviewImage", images=(2, 0)))) == {"4": {}}


def test_a_circle_of_reroutes_gives_nothing_and_is_told() -> None:
    document = workflow(reroute(2, (3, 0)), reroute(3, (2, 0)), node(4, "PreviewImage", images=(3, 0)))
    assert prompt(document) == {"4": {}}
    assert "circle" in warnings(document)


def test_a_muted_node_is_left_out_and_so_is_what_came_from_it() -> None:
    document = workflow(node(1, "EmptyImage", mode=2), node(2, "PreviewImage", images=(1, 0)))
    assert prompt(document) == {"2": {}}


def test_a_widget_that_was_linked_to_a_muted_node_keeps_its_value() -> None:
    document = workflow(
        node(1, "PrimitiveInt", [9, "fixed"], mode=2), node(2, "EmptyLatentImage", [64, 32, 2], width=(1, 0))
    )
    assert prompt(document) == {"2": {"width": 64, "height": 32, "batch_size": 2}}


@pytest.mark.parametrize("mode", [0, 1, 3, None, 0.0])
def test_other_modes_are_active(mode: Any) -> None:
    document = workflow(image())
    document["nodes"][0]["mode"] = mode
    assert "1" in prompt(document)


def test_notes_are_in_no_prompt() -> None:
    assert prompt(workflow(node(1, "Note", ["x"]), node(2, "MarkdownNote", ["x"]))) == {}


def test_a_bypassed_node_hands_on_what_fits() -> None:
    document = workflow(
        node(1, "CheckpointLoaderSimple", ["a"]),
        node(2, "LoraLoader", ["x", 1], mode=4, model=(1, 0), clip=(1, 1)),
        node(3, "CLIPTextEncode", ["t"], clip=(2, 1)),
        node(4, "KSampler", model=(2, 0)),
    )
    found = prompt(document)
    assert "2" not in found
    assert (found["3"]["clip"], found["4"]["model"]) == (["1", 1], ["1", 0])


def test_the_first_input_of_exactly_the_type_is_next() -> None:
    document = workflow(
        image(),
        node(2, "MaskToImage", mode=4, mask=None),
        node(3, "PreviewImage", images=(2, 0)),
        node(4, "ImageComposite", [0], mode=4, destination=None, source=(1, 0)),
        node(5, "PreviewImage", images=(4, 0)),
    )
    assert prompt(document)["3"] == {}
    assert prompt(document)["5"] == {}  # `destination` fits, and nothing is linked to it


def test_a_target_of_any_type_gets_the_input_with_the_number_of_the_output_else_the_first() -> None:
    document = workflow(
        node(1, "CheckpointLoaderSimple", ["a"]),
        node(2, "LoraLoader", ["x", 1], mode=4, model=(1, 0), clip=(1, 1)),
        node(3, "PreviewAny", source=(2, 1)),
        node(4, "VAEDecode", mode=4, samples=(5, 0), vae=(1, 2)),
        node(5, "EmptyLatentImage", [8, 8, 1]),
        node(6, "PreviewAny", source=(4, 0)),
    )
    assert prompt(document)["3"] == {"source": ["1", 1]}
    assert prompt(document)["6"] == {"source": ["5", 0]}


def test_a_bypassed_node_hands_on_links_but_no_values() -> None:
    document = workflow(
        node(1, "PrimitiveInt", [5, "fixed"]),
        node(2, "PrimitiveInt", [9, "fixed"], mode=4, value=(1, 0)),
        node(3, "PrimitiveInt", [9, "fixed"], mode=4),
        node(4, "EmptyLatentImage", [64, 64, 1], width=(2, 0), height=(3, 0)),
    )
    assert prompt(document)["4"] == {"width": ["1", 0], "height": 64, "batch_size": 1}


def test_a_chain_of_bypassed_nodes_and_reroutes() -> None:
    document = workflow(
        image(),
        node(2, "ImageInvert", mode=4, image=(1, 0)),
        reroute(3, (2, 0)),
        node(4, "ImageScaleBy", ["area", 2], mode=4, image=(3, 0)),
        node(5, "PreviewImage", images=(4, 0)),
    )
    assert prompt(document)["5"] == {"images": ["1", 0]}


def test_an_unknown_class_that_is_bypassed_or_muted_is_no_error() -> None:
    document = workflow(
        image(),
        node(2, "NoSuchNode", ["t"], mode=4, outputs=("IMAGE",), types={"m": "MODEL", "i": "IMAGE"}, m=None, i=(1, 0)),
        node(3, "PreviewImage", images=(2, 0)),
        node(4, "NoSuchNode", mode=2, outputs=("IMAGE",)),
        node(5, "PreviewImage", images=(4, 0)),
    )
    found = prompt(document)
    assert (found["3"], found["5"]) == ({"images": ["1", 0]}, {})


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ("IMAGE", "image", True),
        ("IMAGE", "MASK", False),
        ("*", "MASK", True),
        ("IMAGE", "", True),
        ("IMAGE,MASK", "MASK", True),
        ("IMAGE,MASK", "LATENT,mask", True),
        ("IMAGE,MASK", "LATENT", False),
    ],
)
def test_types_that_fit(one: str, other: str, do: bool) -> None:
    assert fits(one, other) is do
    assert fits(other, one) is do
