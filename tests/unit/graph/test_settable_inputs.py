"""What of a workflow can be set: kinds, ranges, choices and roles, by what ComfyUI declares."""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.inputs import InputKind, Role, inputs_of
from comfy_serverless.graph.needs import needs_of
from tests.unit.editor_samples import node, saved
from tests.unit.needs_samples import OBJECT_INFO

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"model": ["4", 0], "seed": 42, "steps": 20, "sampler_name": "euler"},
        "_meta": {"title": "My sampler"},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "there.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "8": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "scale": 1.5, "on": True, "list": [1, 2, 3]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "fox"}},
}


def by_address(graph: dict[str, Any], object_info: dict[str, Any] | None = OBJECT_INFO) -> dict[str, dict[str, Any]]:
    return {one.address: one.to_json() for one in inputs_of(graph, object_info)}


def test_what_is_connected_cannot_be_set() -> None:
    assert not {"3.model", "6.clip", "9.images"} & set(by_address(GRAPH))


def test_a_number_has_its_range_and_the_authors_title() -> None:
    assert by_address(GRAPH)["3.steps"] == {
        "address": "3.steps",
        "node_id": "3",
        "class_type": "KSampler",
        "title": "My sampler",
        "name": "steps",
        "kind": "integer",
        "role": None,
        "value": 20,
        "default": 20,
        "minimum": 1,
        "maximum": 10000,
    }


def test_each_input_has_its_kind_and_its_role() -> None:
    told = {one.address: (one.kind, one.role) for one in inputs_of(GRAPH, OBJECT_INFO)}
    assert told == {
        "3.seed": (InputKind.INTEGER, Role.SEED),
        "3.steps": (InputKind.INTEGER, Role.NONE),
        "3.sampler_name": (InputKind.CHOICE, Role.NONE),
        "4.ckpt_name": (InputKind.CHOICE, Role.MODEL),
        "6.text": (InputKind.TEXT, Role.PROMPT),
        "7.image": (InputKind.FILE, Role.IMAGE),
        "8.width": (InputKind.INTEGER, Role.SIZE),
        "8.scale": (InputKind.NUMBER, Role.NONE),
        "8.on": (InputKind.BOOLEAN, Role.NONE),
        "8.list": (InputKind.OTHER, Role.NONE),
        "9.filename_prefix": (InputKind.TEXT, Role.NAME),
    }
    assert by_address(GRAPH)["3.sampler_name"]["choices"] == ["euler", "heun"]


def test_names_of_files_in_comfyuis_folders_are_no_choices() -> None:
    assert "choices" not in by_address(GRAPH)["7.image"]


def test_an_input_of_a_chosen_option_is_declared_there() -> None:
    spec = [
        "COMFY_DYNAMICCOMBO_V3",
        {
            "options": [
                {"key": "small", "inputs": {"required": {"steps": ["INT", {"max": 4}]}}},
                {"key": "large", "inputs": {"required": {"steps": ["INT", {"max": 50}]}}},
            ]
        },
    ]
    info = {"Dynamic": {"input": {"required": {"model": spec}}}}
    graph: dict[str, Any] = {"1": {"class_type": "Dynamic", "inputs": {"model": "large", "model.steps": 20}}}
    told = by_address(graph, info)
    assert told["1.model"]["choices"] == ["small", "large"]
    assert told["1.model.steps"]["maximum"] == 50
    graph["1"]["inputs"]["model"] = "gone"
    assert "maximum" not in by_address(graph, info)["1.model.steps"]


def test_without_declarations_the_value_says_the_kind() -> None:
    told = by_address(GRAPH, None)
    assert (told["3.seed"]["kind"], told["3.seed"]["role"]) == ("integer", "seed")
    assert told["6.text"]["kind"] == "text"


def test_the_editors_file_has_the_addresses_that_set_takes() -> None:
    sampler = node(3, "KSampler", [7, "randomize", 30, "heun"], title="Mine")
    found = needs_of(saved([sampler], []), OBJECT_INFO).inputs
    assert {one.address: one.value for one in found} == {"3.seed": 7, "3.steps": 30, "3.sampler_name": "heun"}
    assert {one.title for one in found} == {"Mine"}


def test_values_of_a_primitive_are_those_of_its_target() -> None:
    primitive = node(
        1,
        "PrimitiveNode",
        [99, "fixed"],
        outputs=[{"name": "INT", "type": "INT", "links": [1], "widget": {"name": "steps"}}],
    )
    slot = {"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": 1}
    sampler = node(3, "KSampler", [7, "randomize", 30, "heun"], [slot])
    found = needs_of(saved([primitive, sampler], [[1, 1, 0, 3, 0, "INT"]]), OBJECT_INFO).inputs
    assert {one.address: one.value for one in found}["3.steps"] == 99


def test_a_long_text_is_not_repeated() -> None:
    graph = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "x" * 20_000}}}
    assert by_address(graph)["6.text"]["value"] is None
