"""A graph held against declarations recorded from ComfyUI 0.3.64 and 0.33.0."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.connector.preflight import choice_hint, find_problems, nearest
from comfy_serverless.connector.refusals import explained, refusal

RECORDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "object_info.json").read_text())
UNKNOWN_NODE = {
    "type": "invalid_prompt",
    "message": "Cannot execute because node Nope does not exist.",
    "details": "Node ID '#1'",
    "extra_info": {},
}
VALIDATION = {
    "type": "prompt_outputs_failed_validation",
    "message": "Prompt outputs failed validation",
    "details": "",
    "extra_info": {},
}


@pytest.fixture(params=sorted(RECORDED))
def nodes(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the recorded version declares."""
    return copy.deepcopy(RECORDED[request.param])


def declared(nodes: dict[str, Any], graph: dict[str, Any]) -> dict[str, Any]:
    return {node["class_type"]: nodes.get(node["class_type"]) for node in graph.values()}


def text_to_image() -> dict[str, Any]:
    """What ComfyUI accepts."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0],
                "seed": 1,
                "steps": 4,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["6", 0],
                "negative": ["6", 0],
                "latent_image": ["5", 0],
                "denoise": 1.0,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }


def told(problems: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(node_id, found["type"], found["details"]) for node_id in problems for found in problems[node_id]]


def test_nothing_is_wrong_with_what_comfyui_accepts(nodes: dict[str, Any]) -> None:
    assert find_problems(text_to_image(), declared(nodes, text_to_image())) == {}


def test_everything_is_told_at_once(nodes: dict[str, Any]) -> None:
    graph = text_to_image()
    graph["1"] = {"class_type": "FaceDetailer", "inputs": {"image": ["8", 0]}}
    graph["2"] = {"class_type": "SaveImagee", "inputs": {"images": ["8", 0]}}
    graph["4"]["inputs"]["ckpt_name"] = "v1-5-pruned.safetensors"
    graph["3"]["inputs"] |= {"sampler_name": "eular", "steps": 0, "cfg": "high"}
    del graph["5"]["inputs"]["batch_size"]
    error = explained(refusal(UNKNOWN_NODE, {}), graph, declared(nodes, graph), list(nodes))
    assert error.details["error"] == UNKNOWN_NODE
    assert error.details["unknown_nodes"] == [
        {"node_id": "1", "class_type": "FaceDetailer"},
        {"node_id": "2", "class_type": "SaveImagee"},
    ]
    [model] = error.details["missing_models"]
    assert (model["node_id"], model["input_name"], model["name"]) == ("4", "ckpt_name", "v1-5-pruned.safetensors")
    for part in (
        "Cannot execute because node Nope does not exist: Node ID '#1'",
        "Node 1 (FaceDetailer): ComfyUI has no such node",
        "Node 2 (SaveImagee): ComfyUI has no such node (did you mean 'SaveImage'?)",
        "this model file is missing, 1 is there: 'v1-5-pruned-emaonly.safetensors'; did you mean",
        'or when the job brings it: "models": [{',
        "sampler_name: 'eular' not in (list of length ",
        "(did you mean 'euler'?)",
        "Node 3 (KSampler): Value 0 smaller than min of 1: steps",
        "Node 3 (KSampler): Failed to convert an input value to a FLOAT value: cfg, high",
        "Node 5 (EmptyLatentImage): Required input is missing: batch_size",
    ):
        assert part in error.message
    for node in error.details["node_errors"].values():
        assert set(node) == {"errors", "dependent_outputs", "class_type"}, "as ComfyUI writes it"
        assert all({"type", "message", "details", "extra_info"} <= set(found) for found in node["errors"])


def test_nodes_that_no_output_needs_are_not_judged(nodes: dict[str, Any]) -> None:
    graph = text_to_image()
    graph["10"] = {"class_type": "EmptyLatentImage", "inputs": {}}
    assert find_problems(graph, declared(nodes, graph)) == {}


def test_what_an_unknown_node_needs_is_judged_too(nodes: dict[str, Any]) -> None:
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
        "2": {"class_type": "Nope", "inputs": {"latent": ["1", 0]}},
    }
    assert told(find_problems(graph, declared(nodes, graph))) == [
        ("1", "required_input_missing", "batch_size"),
        ("2", "missing_node_type", ""),
    ]


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (["1", 0], "received_type(STRING) mismatch"),
        (["5", 0], "received_type(LATENT) mismatch"),
    ],
)
def test_a_list_of_choices_takes_no_output_of_another_type(nodes: dict[str, Any], link: list[Any], says: str) -> None:
    graph = text_to_image()
    graph["1"] = {"class_type": "Says", "inputs": {}}
    graph["3"]["inputs"]["scheduler"] = link
    says_text = {"input": {}, "output": ["STRING"], "output_node": False}
    [(node_id, kind, details)] = told(find_problems(graph, declared(nodes, graph) | {"Says": says_text}))
    assert (node_id, kind) == ("3", "return_type_mismatch")
    assert says in details


@pytest.mark.parametrize(
    "node",
    [
        {"class_type": "LoadImage", "inputs": {"image": "not-listed.png"}},
        {"class_type": "LoadImageOutput", "inputs": {"image": "made.png [output]"}},
        {"class_type": "LoadVideo", "inputs": {"file": "not-listed.mp4"}},
        {"class_type": "LoadLatent", "inputs": {"latent": "sub/folder.latent"}},
        {"class_type": "Load3D", "inputs": {"model_file": "x.glb", "image": {}, "width": 1, "height": 1}},
        {"class_type": "SaveVideo", "inputs": {"video": ["0", 0], "filename_prefix": "x", "format": "mp4"}},
        {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["0", 0]}},
        {"class_type": "ModelAttentionBackend", "inputs": {"model": ["0", 0], "attention": "of another machine"}},
        {"class_type": "NothingIsKnownOfThisOne", "inputs": {}},
    ],
    ids=lambda node: node["class_type"],
)
def test_what_a_declaration_cannot_tell_is_not_called_wrong(node: dict[str, Any]) -> None:
    nodes = copy.deepcopy(RECORDED["0.33.0"])
    declarations = {node["class_type"]: nodes[node["class_type"]]} if node["class_type"] in nodes else {}
    graph = {"1": node, "0": {"class_type": "Loads", "inputs": {}}}
    end = {"class_type": "AnOutput", "inputs": {"anything": ["1", 0]}}
    ends = {"input": {"required": {"anything": ["*"]}}, "output": [], "output_node": True}
    graph["2"] = end
    assert find_problems(graph, {**declarations, "AnOutput": ends}) == {}


@pytest.mark.parametrize(
    ("link", "kind", "details"),
    [
        (["77", 0], "bad_linked_input", "images: '77'"),
        ([8, 0], "bad_linked_input", "images: 8"),
        (["8"], "bad_linked_input", "images"),
        (["8", 1], "bad_linked_input", "images: node 8 (VAEDecode) has 1 outputs, counted from 0, not 1"),
        (["8", "0"], "bad_linked_input", "images: node 8 (VAEDecode) has 1 outputs, counted from 0, not '0'"),
        (["5", 0], "return_type_mismatch", "images, received_type(LATENT) mismatch input_type(IMAGE)"),
    ],
)
def test_a_link_that_leads_nowhere_is_told(nodes: dict[str, Any], link: list[Any], kind: str, details: str) -> None:
    graph = text_to_image()
    graph["9"]["inputs"]["images"] = link
    assert told(find_problems(graph, declared(nodes, graph))) == [("9", kind, details)]


def test_a_cycle_is_told_once(nodes: dict[str, Any]) -> None:
    graph = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    [(_, kind, details)] = told(find_problems(graph, declared(nodes, graph)))
    assert kind == "dependency_cycle"
    assert details.count("->") == 2


def test_of_many_long_cycles_some_are_shown_and_cut(nodes: dict[str, Any]) -> None:
    count = 400
    graph = {
        str(number): {
            "class_type": "ImageBlend",
            "inputs": {
                "image1": [str((number + 1) % count), 0],
                "image2": ["0", 0],
                "blend_factor": 0.5,
                "blend_mode": "normal",
            },
        }
        for number in range(count)
    } | {"save": {"class_type": "SaveImage", "inputs": {"images": ["0", 0], "filename_prefix": "x"}}}
    cycles = [
        problem
        for problems in find_problems(graph, declared(nodes, graph)).values()
        for problem in problems
        if problem["type"] == "dependency_cycle"
    ]
    assert 1 < len(cycles) <= 20
    assert max(len(problem["details"]) for problem in cycles) < 2000
    assert any("…" in problem["details"] for problem in cycles)


def test_a_graph_of_any_depth_is_gone_through(nodes: dict[str, Any]) -> None:
    graph: dict[str, Any] = {
        str(number): {"class_type": "ImageInvert", "inputs": {"image": [str(number - 1), 0]}}
        for number in range(1, 5000)
    }
    graph["0"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": -1}}
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["4999", 0]}}
    assert told(find_problems(graph, declared(nodes, graph))) == [("0", "value_smaller_than_min", "color")]


def test_an_input_of_nearly_the_right_name_is_pointed_at(nodes: dict[str, Any]) -> None:
    graph = text_to_image()
    graph["9"]["inputs"]["image"] = graph["9"]["inputs"].pop("images")
    [problem] = find_problems(graph, declared(nodes, graph))["9"]
    assert problem["hint"] == "it has 'image', which the node does not know"


def test_what_comfyui_has_looked_at_is_not_called_wrong_by_us() -> None:
    # A custom node that judges its input by itself: the list is not the law, and ComfyUI knows.
    nodes = {
        "Picky": {"input": {"required": {"mode": [["a", "b"]]}}, "output": ["IMAGE"], "output_node": False},
        "SaveImage": RECORDED["0.3.64"]["SaveImage"],
    }
    graph = {
        "1": {"class_type": "Picky", "inputs": {"mode": "its own"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    missing = {
        "type": "required_input_missing",
        "message": "Required input is missing",
        "details": "filename_prefix",
        "extra_info": {"input_name": "filename_prefix"},
    }
    said = {"2": {"errors": [missing], "dependent_outputs": ["2"], "class_type": "SaveImage"}}
    assert explained(refusal(VALIDATION, said), graph, nodes, ()).details["node_errors"] == said
    # An exception kept it from looking.
    dangling = {**missing, "type": "exception_during_validation", "extra_info": {}}
    said = {"2": {"errors": [dangling], "dependent_outputs": ["2"], "class_type": "SaveImage"}}
    errors = explained(refusal(VALIDATION, said), graph, nodes, ()).details["node_errors"]
    assert [found["type"] for found in errors["1"]["errors"]] == ["value_not_in_list"]
    assert errors["2"]["errors"][0] == dangling, "ComfyUI's own words come first, and unchanged"


def test_comfyuis_own_errors_get_what_was_meant(nodes: dict[str, Any]) -> None:
    graph = text_to_image()
    graph["3"]["inputs"]["scheduler"] = "Karas"
    theirs = {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": "scheduler: 'Karas' not in [...]",
        "extra_info": {"input_name": "scheduler", "received_value": "Karas"},
    }
    said = {"3": {"errors": [theirs], "dependent_outputs": ["9"], "class_type": "KSampler"}}
    error = explained(refusal(VALIDATION, said), graph, declared(nodes, graph), ())
    assert error.message == (
        "Node 3 (KSampler): Value not in list: scheduler: 'Karas' not in [...] (did you mean 'karras'?)"
    )
    assert error.details["node_errors"]["3"]["errors"] == [theirs | {"hint": "did you mean 'karras'?"}]


def test_without_declarations_comfyuis_refusal_is_what_it_was(nodes: dict[str, Any]) -> None:
    before = refusal(UNKNOWN_NODE, {})
    after = explained(before, text_to_image(), {}, ())
    assert after.message == before.message
    assert after.details == before.details | {"unknown_nodes": [], "missing_models": []}


def test_a_message_stays_readable_whatever_is_wrong() -> None:
    graph = {str(number): {"class_type": "x" * 5000, "inputs": {}} for number in range(500)}
    error = explained(refusal(UNKNOWN_NODE, {}), graph, {"x" * 5000: None}, ["SaveImage"] * 9000)
    assert len(error.message) < 25_000
    assert "; and 471 more" in error.message
    assert len(error.details["unknown_nodes"]) == 500, "programs are told of all"


def test_missing_models_are_told_with_those_that_are_there() -> None:
    there = ["sdxl/base.safetensors", *(f"other-{number}.ckpt" for number in range(8))]
    assert choice_hint("ckpt_name", "sdxl/bose.safetensors", there) == (
        "this model file is missing, 9 are there: 'sdxl/base.safetensors', 'other-0.ckpt', 'other-1.ckpt', "
        "'other-2.ckpt', 'other-3.ckpt' and 4 more; did you mean 'sdxl/base.safetensors'?"
    )
    assert choice_hint("lora_name", "detail", []) == "this model file is missing, none is there"
    assert choice_hint("mode", "zzz", ["a", "b"]) == ""


def test_the_nearest_name_is_found_in_any_case() -> None:
    assert nearest("ksampler", ["SaveImage", "KSampler"]) == "KSampler"
    assert nearest("nothing like it", ["SaveImage"]) is None


def test_a_model_is_found_by_its_name_not_by_its_folder_or_suffix() -> None:
    there = ["other.safetensors", "SDXL/base_1.0.safetensors", "v1-5-pruned-emaonly.safetensors"]
    assert nearest("XL\\Base_1.0.ckpt", there) == "SDXL/base_1.0.safetensors"
    assert nearest("v1-5-pruned.safetensors", there) == "v1-5-pruned-emaonly.safetensors"
    assert nearest("nothing.safetensors", there) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LINKS = st.tuples(st.sampled_from(["1", "2", "3", 1, None]), st.sampled_from([0, 1, -1, 5, "0", 0.5])).map(list)
SPECS = JSON | st.tuples(
    st.sampled_from(["INT", "FLOAT", "COMBO", "IMAGE", "A,B", "*", ["a"], [1, {}], "COMFY_AUTOGROW_V3", None, 3]),
    st.dictionaries(st.sampled_from(["min", "max", "options", "default", "remote"]), JSON, max_size=3) | JSON,
).map(list)
NODE = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(["A", "B", "C"]),
        "inputs": st.dictionaries(st.sampled_from(["a", "b", "c", "c.d"]), JSON | LINKS, max_size=4),
    }
)
DECLARATION = st.none() | st.fixed_dictionaries(
    {
        "input": st.dictionaries(
            st.sampled_from(["required", "optional", "hidden"]),
            st.dictionaries(st.sampled_from(["a", "b", "c"]), SPECS, max_size=3) | JSON,
        )
        | JSON,
        "output": st.lists(st.sampled_from(["IMAGE", "A", "*", ["x"], None]), max_size=2) | JSON,
        "output_node": st.booleans() | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(
    graph=st.dictionaries(st.sampled_from(["1", "2", "3"]), NODE, max_size=3),
    declarations=st.dictionaries(st.sampled_from(["A", "B", "C"]), DECLARATION | st.just({}), max_size=3),
)
def test_whatever_custom_nodes_declare_the_refusal_is_told(graph: dict[str, Any], declarations: dict[str, Any]) -> None:
    error = explained(refusal(UNKNOWN_NODE, {}), graph, declarations, ["A", "B"])
    assert error.message.startswith("Cannot execute because node Nope does not exist")
