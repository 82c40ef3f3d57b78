"""What is proposed as the inputs and outputs of a workflow."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.input_nodes import declared_input, output_name
from comfy_serverless.workflows.naming import NAME, name_of
from comfy_serverless.workflows.proposal import MOST_PROPOSED, Proposal, propose
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import NamedInput
from tests.patience import QuietClock
from tests.unit.editor_samples import link_in, link_out, node, saved
from tests.unit.workflows.named_samples import GRAPH, OBJECT_INFO, version
from tools import app_mode


def by_name(proposal: Proposal) -> dict[str, NamedInput]:
    return {one.name: one for one in proposal.inputs}


def graph(**changes: Any) -> dict[str, Any]:
    """The graph of the samples, with nodes put in."""
    return {**copy.deepcopy(GRAPH), **changes}


# The official templates


def test_the_table_of_templates_is_as_it_is_proposed() -> None:
    assert app_mode.TABLE.read_text(encoding="utf-8") == app_mode.table()


def test_what_authors_chose_is_proposed_wherever_it_is_there() -> None:
    """88 of 98 choices: ten are of nodes that are not in the files any more."""
    found = [one for one in app_mode.templates() if one.chosen]
    chosen = sum(len(one.chosen) for one in found)
    missed = [note for one in found for note in one.missed]
    assert (len(found), chosen, len(missed)) == (26, 98, 10)
    assert all("muted, bypassed or gone" in note for note in missed)


def test_one_template_has_a_class_that_nobody_could_be_asked_about() -> None:
    found = {one.name: one.undeclared for one in app_mode.templates() if one.undeclared}
    assert found == {"template_seedance2_0_viral_videos_character_swap": ("GeminiNodeV3",)}


def test_most_of_what_authors_chose_would_be_found_without_them() -> None:
    found = [one for one in app_mode.templates() if one.chosen]
    inputs = sum(len(one.proposal.inputs) for one in found)
    assert sum(one.found_unaided for one in found) >= 0.95 * inputs


def test_every_proposal_is_one_that_can_be_pushed() -> None:
    for one in app_mode.templates():
        for proposal in (one.proposal, one.unaided):
            names = [each.name for each in proposal.inputs]
            assert len(set(names)) == len(names)
            assert all(NAME.fullmatch(name) and name != "inputs" for name in names)
            targets = [target for each in proposal.inputs for target in each.targets]
            assert len(set(targets)) == len(targets)
            assert proposal.outputs
            values = {each.name: each.default for each in proposal.inputs if each.default is not None}
            # What stands in an old file may be none of the choices of a new class, or the value of another input.
            numbers = (InputKind.INTEGER, InputKind.NUMBER)
            old = [each for each in proposal.inputs if each.choices and each.default not in each.choices]
            old += [each for each in proposal.inputs if each.kind in numbers and isinstance(each.default, str)]
            values = {name: value for name, value in values.items() if name not in {each.name for each in old}}
            values |= {each.name: "s3://b/k" for each in proposal.inputs if each.is_required}
            models = tuple(replace(each, is_open=True) if each.role is Role.MODEL else each for each in proposal.inputs)
            assert InputCheck.of(version(*models)).problems(values) == []


# What a person would call an input


def test_prompts_are_told_apart_by_where_they_lead() -> None:
    found = by_name(propose(graph(), OBJECT_INFO))
    assert found["prompt"].targets == ("6.text",)
    assert found["negative_prompt"].targets == ("7.text",)
    swapped = graph()
    inputs = swapped["3"]["inputs"]
    inputs["positive"], inputs["negative"] = inputs["negative"], inputs["positive"]
    found = by_name(propose(swapped, OBJECT_INFO))
    assert found["prompt"].targets == ("7.text",)


def test_prompts_are_told_apart_through_nodes_that_carry_both() -> None:
    carrying = graph(
        c={
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {"positive": ["6", 0], "negative": ["7", 0], "strength": 1.0},
        }
    )
    carrying["3"]["inputs"] |= {"positive": ["c", 0], "negative": ["c", 1]}
    found = by_name(propose(carrying, OBJECT_INFO))
    assert (found["prompt"].targets, found["negative_prompt"].targets) == (("6.text",), ("7.text",))


def test_a_person_finds_files_seeds_models_and_well_known_numbers() -> None:
    found = by_name(propose(graph(), OBJECT_INFO))
    assert list(found) == ["prompt", "negative_prompt", "product_image", "steps", "cfg", "seed", "checkpoint"]
    assert (found["product_image"].kind, found["product_image"].media) == (InputKind.FILE, "image")
    assert (found["product_image"].is_required, found["product_image"].default) == (True, None)
    assert (found["seed"].role, found["seed"].maximum) == (Role.SEED, 2**64 - 1)
    assert found["checkpoint"].choices == ("a.safetensors", "b.safetensors")


def test_it_works_without_declarations() -> None:
    assert {"prompt", "negative_prompt", "product_image", "steps", "cfg", "seed"} <= by_name(
        propose(graph(), None)
    ).keys()


def test_a_file_at_an_address_need_not_be_given() -> None:
    there = graph()
    there["10"]["inputs"]["image"] = "s3://bucket/product.png"
    photo = by_name(propose(there, OBJECT_INFO))["product_image"]
    assert (photo.is_required, photo.default) == (False, "s3://bucket/product.png")


def test_what_leads_to_no_output_is_left_out() -> None:
    found = propose(graph(x={"class_type": "LoadImage", "inputs": {"image": "x.png"}}), OBJECT_INFO)
    assert not any("x.image" in one.targets for one in found.inputs)


def test_two_texts_of_one_node_that_say_the_same_are_one_prompt() -> None:
    both = graph()
    both["6"] = {"class_type": "CLIPTextEncodeFlux", "inputs": {"clip_l": "a fox", "t5xxl": "a fox", "guidance": 3.5}}
    info = {
        **OBJECT_INFO,
        "CLIPTextEncodeFlux": {
            "input": {"required": {name: ["STRING", {"multiline": True}] for name in ("clip_l", "t5xxl")}},
            "output": ["CONDITIONING"],
        },
    }
    assert by_name(propose(both, info))["prompt"].targets == ("6.clip_l", "6.t5xxl")


def test_a_constant_that_seeds_get_their_value_from_is_a_seed() -> None:
    linked = graph(n={"class_type": "PrimitiveInt", "inputs": {"value": 5}})
    linked["3"]["inputs"]["seed"] = ["n", 0]
    info = {
        **OBJECT_INFO,
        "PrimitiveInt": {
            "input": {"required": {"value": ["INT", {"min": -(2**63), "max": 2**63 - 1}]}},
            "output": ["INT"],
        },
    }
    seed = by_name(propose(linked, info))["seed"]
    assert (seed.targets, seed.role) == (("n.value",), Role.SEED)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Load Character Image", "character_image"),
        ("Größe der Øl", "grosse_der_ol"),
        ("正面 Prompt", "prompt"),
        ("CLIP Text Encode (Positive)", "clip_text_encode_positive"),
        ("3D model", "model_3d"),
        ("inputs", "inputs_value"),
        ("class", "class_value"),
        ("Negative", "negative_prompt"),
        ("Load Image 2", "image_2"),
        ("videoSeed", "video_seed"),
        ("提示词", ""),
        ("42", ""),
        ("🎨", ""),
        ("", ""),
        ("x" * 41, ""),
    ],
)
def test_a_title_becomes_a_short_name(title: str, name: str) -> None:
    assert name_of(title) == name


@pytest.mark.parametrize("title", ["Sampler", "My sampler", "Final pass", "Base", "sampling 1"])
@pytest.mark.parametrize("info", [OBJECT_INFO, None])
def test_the_title_of_a_node_names_no_seed_among_its_other_inputs(title: str, info: dict[str, Any] | None) -> None:
    titled = graph()
    titled["3"]["_meta"] = {"title": title}
    found = by_name(propose(titled, info))
    assert (found["seed"].targets, found["seed"].title) == (("3.seed",), "")
    assert {"steps", "cfg"} <= set(found)


def test_of_several_nodes_the_titles_say_whose_seed_it_is() -> None:
    two = graph()
    two["30"] = copy.deepcopy(two["3"])
    two["90"] = copy.deepcopy(two["9"])
    two["90"]["inputs"]["images"] = ["30", 0]
    two["3"]["_meta"], two["30"]["_meta"] = {"title": "First pass"}, {"title": "Second pass"}
    assert {"first_pass_seed", "second_pass_seed"} <= set(by_name(propose(two, OBJECT_INFO)))


def test_a_title_names_what_is_alone_on_its_node() -> None:
    """Though there is a word for it: a seed that a node of its own holds, a checkpoint of a loader."""
    titled = graph(s={"class_type": "Seed (rgthree)", "inputs": {"seed": 5}, "_meta": {"title": "Luck"}})
    titled["3"]["inputs"]["seed"] = ["s", 0]
    titled["4"]["_meta"] = {"title": "Painter"}
    names = by_name(propose(titled, None))
    assert {"luck", "painter"} <= set(names), names


def test_a_title_in_another_script_gets_a_name_that_can_be_typed_and_stays_as_title() -> None:
    titled = graph()
    titled["10"]["_meta"] = {"title": "商品の写真"}
    titled["6"]["_meta"] = {"title": "提示词"}
    found = by_name(propose(titled, OBJECT_INFO))
    assert found["image"].targets == ("10.image",)
    assert found["prompt"].targets == ("6.text",)


def test_names_are_the_same_again_whatever_order_a_file_has() -> None:
    turned = dict(reversed(graph().items()))
    assert by_name(propose(turned, OBJECT_INFO)) == by_name(propose(graph(), OBJECT_INFO))


# Input nodes of packs


def test_the_nodes_of_comfy_deploy_name_and_describe_their_inputs() -> None:
    deployed = graph(
        t={
            "class_type": "ComfyUIDeployExternalText",
            "inputs": {
                "input_id": "positivePrompt",
                "default_value": "a fox",
                "display_name": "Prompt",
                "description": "What to paint",
            },
        },
        n={
            "class_type": "ComfyUIDeployExternalNumberSlider",
            "inputs": {"input_id": "strength of it", "default_value": 0.5, "min_value": 0.1, "max_value": 0.9},
        },
        e={
            "class_type": "ComfyUIDeployExternalEnum",
            "inputs": {"input_id": "style", "default_value": "oil", "options": '["oil", "ink"]'},
        },
        i={
            "class_type": "ComfyUIDeployExternalImage",
            "inputs": {"input_id": "photo", "default_value": ["10", 0], "display_name": ""},
        },
        dead={"class_type": "ComfyUIDeployExternalText", "inputs": {"input_id": "dead", "default_value": "x"}},
    )
    deployed["6"]["inputs"] |= {"text": ["t", 0]}
    deployed["3"]["inputs"] |= {"cfg": ["n", 0], "sampler_name": ["e", 0]}
    deployed["5"]["inputs"] |= {"pixels": ["i", 0]}
    proposal = propose(deployed, OBJECT_INFO)
    found = by_name(proposal)
    assert set(found) == {"positivePrompt", "strength_of_it", "style", "photo"}
    assert (found["positivePrompt"].title, found["positivePrompt"].description) == ("Prompt", "What to paint")
    assert (found["strength_of_it"].minimum, found["strength_of_it"].maximum) == (0.1, 0.9)
    assert (found["style"].kind, found["style"].choices) == (InputKind.CHOICE, ("oil", "ink"))
    assert found["photo"].targets == ("10.image",)
    assert any("dead" in note and "leads to no output" in note for note in proposal.notes)


PACKS = json.loads((app_mode.FACTS.parent / "input_nodes.json").read_text(encoding="utf-8"))
_ABOUT_IT = {"input_id", "display_name", "description", "options", "min_value", "max_value", "min", "max"}


def as_dropped(declaration: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a node as the editor makes it: each widget with its default."""
    specs = {
        name: spec for group in ("required", "optional") for name, spec in declaration["input"].get(group, {}).items()
    }
    found: dict[str, Any] = {}
    for name, (kind, *options) in specs.items():
        if isinstance(kind, list):
            found[name] = next(iter(kind), "")
        elif kind in ("STRING", "INT", "FLOAT", "BOOLEAN"):
            found[name] = options[0].get("default", "") if options else ""
    return found


@pytest.mark.parametrize(
    ("pack", "class_type"),
    [(pack, name) for pack in ("comfy-deploy", "comfy-pack") for name in sorted(PACKS[pack]["classes"])],
)
def test_the_packs_themselves_declare_what_we_take_for_the_value(pack: str, class_type: str) -> None:
    """Recorded of the packs in a real ComfyUI."""
    declaration = PACKS[pack]["classes"][class_type]
    node = {"class_type": class_type, "inputs": as_dropped(declaration), "_meta": {"title": "it"}}
    found, called = declared_input(node), output_name(node)
    is_input = class_type.startswith(("ComfyUIDeployExternal", "ComfyDeployWebscoketImageInput", "CPackInput"))
    assert (found is not None) == is_input
    if called is not None:
        assert declaration["output_node"] is True
    if found is None or class_type == "ComfyUIDeployExternalImageAlpha":
        return  # of that one the service writes the value over its name, and so do callers here
    if class_type == "ComfyDeployWebscoketImageInput":
        assert found.value == "", "its picture comes through a socket of the service"
        return
    specs = {**declaration["input"].get("required", {}), **declaration["input"].get("optional", {})}
    assert found.value in specs.keys() - _ABOUT_IT


def test_a_video_of_comfy_deploy_is_a_file_and_its_seed_may_be_drawn() -> None:
    classes = PACKS["comfy-deploy"]["classes"]
    made = graph(
        v={"class_type": "ComfyUIDeployExternalVid", "inputs": {"input_id": "clip", "default_value": "v.mp4"}},
        s={"class_type": "ComfyUIDeployExternalSeed", "inputs": as_dropped(classes["ComfyUIDeployExternalSeed"])},
        a={"class_type": "ComfyUIDeployExternalImage", "inputs": {"input_id": "photo", "default_value_url": ""}},
        w={"class_type": "ComfyDeployWebscoketImageInput", "inputs": {"input_id": "live", "seed": 3}},
    )
    made["3"]["inputs"] |= {"seed": ["s", 0], "model": ["v", 0], "latent_image": ["w", 0], "photo": ["a", 0]}
    proposal = propose(made, {**OBJECT_INFO, **classes})
    found = by_name(proposal)
    assert (found["clip"].kind, found["clip"].is_required) == (InputKind.FILE, True)
    assert (found["input_seed"].minimum, found["input_seed"].maximum) == (-1, 4294967295)
    assert InputCheck.of(version(found["input_seed"])).problems({"input_seed": -1}) == []
    assert (found["photo"].targets, found["photo"].kind) == (("a.default_value_url",), InputKind.TEXT)
    assert any("input node w" in note and "only its own service gives one" in note for note in proposal.notes)


def test_a_switch_of_comfy_pack_is_no_output_where_nobody_has_declared_it() -> None:
    switched = graph(z={"class_type": "CPackOutputZipSwitch", "inputs": {}})
    assert "z" not in {one.node_id for one in propose(switched, None).outputs}


def test_the_nodes_of_comfy_pack_are_called_by_their_titles() -> None:
    packed = graph(
        t={"class_type": "CPackInputString", "inputs": {"value": "a fox"}, "_meta": {"title": "poster_text"}},
        n={
            "class_type": "CPackInputInt",
            "inputs": {"value": 7, "min": 1, "max": 2**63 - 1},
            "_meta": {"title": "count"},
        },
        f={"class_type": "CPackInputFile", "inputs": {"path": "/home/me/x.zip"}, "_meta": {"title": "style_file"}},
        o={"class_type": "CPackOutputImage", "inputs": {"images": ["3", 0]}, "_meta": {"title": "the_poster"}},
    )
    packed["6"]["inputs"] |= {"text": ["t", 0]}
    packed["3"]["inputs"] |= {"seed": ["n", 0], "model": ["f", 0]}
    proposal = propose(packed, OBJECT_INFO)
    found = by_name(proposal)
    assert set(found) == {"poster_text", "count", "style_file"}
    assert (found["count"].minimum, found["count"].maximum) == (1, None)
    assert (found["style_file"].kind, found["style_file"].is_required) == (InputKind.FILE, True)


# App mode, subgraphs and primitives


def in_editor(*, mode: int = 0, control: str = "randomize", linear: list[Any] | None = None) -> dict[str, Any]:
    """A primitive that two samplers get their seed from."""
    samplers = [
        node(number, "Noise", [5], [link_in("seed", number, "INT") | {"widget": {"name": "seed"}}], [link_out(None)])
        for number in (2, 3)
    ]
    primitive = node(1, "PrimitiveNode", [5, control], [], [link_out([2, 3], "INT")], title="luck")
    for each in samplers:
        each["mode"] = mode
    links = [[number, 1, 0, number, 0, "INT"] for number in (2, 3)]
    extra = {"linearData": {"inputs": linear, "outputs": ["2"]}} if linear is not None else {}
    workflow: dict[str, Any] = saved([primitive, *samplers], links, extra=extra)
    return workflow


NOISE: dict[str, Any] = {
    "Noise": {
        "input": {"required": {"seed": ["INT", {"min": 0, "max": 2**64 - 1, "control_after_generate": True}]}},
        "output": ["NOISE"],
        "output_node": True,
    }
}


def of_editor(workflow: dict[str, Any], info: dict[str, Any] = NOISE) -> Proposal:
    return propose(convert(workflow, info).graph, info, editors=workflow)


def test_a_primitive_is_one_input_for_all_that_it_feeds() -> None:
    [seed] = of_editor(in_editor()).inputs
    assert (seed.name, set(seed.targets), seed.role) == ("luck", {"2.seed", "3.seed"}, Role.SEED)


def test_the_title_of_a_primitive_names_what_it_feeds_whatever_else_is_on_that_node() -> None:
    workflow = in_editor()
    info = copy.deepcopy(NOISE)
    info["Noise"]["input"]["required"]["steps"] = ["INT", {"default": 20}]
    for each in workflow["nodes"][1:]:
        each["widgets_values"] = [5, "fixed", 20]
    assert "luck" in by_name(of_editor(workflow, info))


@pytest.mark.parametrize(("control", "default"), [("randomize", -1), ("fixed", 5), ("increment", 5)])
def test_a_seed_that_the_editor_draws_is_drawn(control: str, default: int) -> None:
    assert of_editor(in_editor(control=control)).inputs[0].default == default


def test_app_mode_is_the_whole_proposal() -> None:
    proposal = of_editor(in_editor(linear=[[1, "value"], ["1", "value"], [9, "x"], "odd", [3], {}]))
    assert [set(one.targets) for one in proposal.inputs] == [{"2.seed", "3.seed"}]
    assert [one.node_id for one in proposal.outputs] == ["2"]
    assert proposal.notes == (
        "App mode has 'value' of node 1 as an input, which it has already",
        "App mode has 'x' of node 9 as an input, which is not in the graph: the node is muted, bypassed or gone",
    )


@pytest.mark.parametrize("linear", [{}, {"inputs": 5}, {"inputs": [], "outputs": None}, [], None, "x"])
def test_app_mode_that_says_nothing_leaves_the_rest(linear: Any) -> None:
    workflow = in_editor()
    workflow["extra"] = {"linearData": linear}
    assert [one.name for one in of_editor(workflow).inputs] == ["luck"]


def test_an_editors_file_that_cannot_be_read_is_no_reason_to_fail() -> None:
    proposal = propose(
        graph(), OBJECT_INFO, editors={"nodes": [{"id": 1}], "extra": {"linearData": {"inputs": [["6", "text"]]}}}
    )
    assert [one.targets for one in proposal.inputs] == [("6.text",)]
    assert any("is not read" in note for note in proposal.notes)


# Huge and hostile

MANY = 50_000
_TEXT: dict[str, Any] = {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["x", 0]}}
HOSTILE: dict[str, Callable[[], dict[str, Any]]] = {
    "outputs": lambda: {
        str(number): {"class_type": "SaveImage", "inputs": {"images": ["x", 0]}} for number in range(MANY)
    },
    "texts": lambda: {str(number): _TEXT for number in range(MANY)},
    "input nodes": lambda: {
        str(number): {"class_type": "CPackInputString", "inputs": {"value": "a"}} for number in range(MANY)
    },
    "inputs": lambda: {"1": {"class_type": "X", "inputs": {f"seed{number}": number for number in range(MANY)}}},
    "pairs": lambda: {
        str(number): {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {"positive": [str(number * 7 % MANY), 0], "negative": [str(number * 3 % MANY), 1]},
        }
        for number in range(MANY)
    },
    "chain": lambda: {
        str(number): {
            "class_type": "ConditioningCombine",
            "inputs": {"positive": [str(number + 1), 0], "b": [str(number + 1), 0]},
        }
        for number in range(MANY)
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_huge_graph_takes_seconds_and_few_are_proposed(kind: str) -> None:
    huge = HOSTILE[kind]()
    with QuietClock() as clock:
        begin = clock()
        proposal = propose(huge, OBJECT_INFO)
        assert clock() - begin < 20
    assert len(proposal.inputs) <= MOST_PROPOSED
    assert len(proposal.outputs) <= MOST_PROPOSED
