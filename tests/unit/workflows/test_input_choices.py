"""Inputs and outputs as somebody chooses them: by addresses, in a mapping or a file; every mistake at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.choosing import choose, read_choices, with_defaults
from comfy_serverless.workflows.proposal import Proposal, propose
from comfy_serverless.workflows.version import NamedInput, NamedOutput
from tests.unit.workflows.named_samples import GRAPH, OBJECT_INFO

PROPOSAL = propose(GRAPH, OBJECT_INFO)


def chosen(inputs: dict[str, Any] | None, **more: Any) -> tuple[NamedInput, ...]:
    return choose(GRAPH, OBJECT_INFO, inputs=inputs, outputs=more.pop("outputs", None), proposal=PROPOSAL, **more)[0]


def errors(inputs: dict[str, Any] | None, **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as raised:
        chosen(inputs, **more)
    return {one["field"]: one["problem"] for one in raised.value.details["errors"]}


def test_nothing_chosen_is_what_was_proposed() -> None:
    assert chosen(None) == PROPOSAL.inputs
    assert choose(GRAPH, OBJECT_INFO, inputs={}, outputs=None, proposal=PROPOSAL) == ((), PROPOSAL.outputs)


def test_an_address_is_an_input_with_all_that_is_declared_of_it() -> None:
    [steps, seed] = chosen({"steps": "KSampler.steps", "seed": "3.seed"})
    assert (steps.targets, steps.kind, steps.default, steps.minimum, steps.maximum) == (
        ("3.steps",),
        InputKind.INTEGER,
        20,
        1,
        10000,
    )
    assert seed.role is Role.SEED


@pytest.mark.parametrize("address", ["10.image", "LoadImage.image", "Load Product Image.image", "image"])
def test_addresses_are_those_of_everywhere(address: str) -> None:
    assert chosen({"photo": address})[0].targets == ("10.image",)


def test_several_inputs_can_get_one_value() -> None:
    [text] = chosen({"text": ["6.text", "7.text"]})
    assert text.targets == ("6.text", "7.text")
    assert chosen({"text": "CLIPTextEncode.text"})[0].targets == text.targets


def test_a_proposed_one_is_taken_by_its_name_and_told_more_of() -> None:
    name = next(one.name for one in PROPOSAL.inputs if one.kind is InputKind.FILE)
    [photo, prompt] = chosen({name: {"description": "The\nproduct", "required": False}, "prompt": None})
    assert (photo.targets, photo.description, photo.is_required) == (("10.image",), "The product", False)
    assert prompt == next(one for one in PROPOSAL.inputs if one.name == "prompt")


def test_what_is_chosen_is_narrower_than_what_comfyui_takes() -> None:
    [steps, sampler] = chosen(
        {
            "steps": {"target": "3.steps", "minimum": 10, "maximum": 30},
            "sampler": {"target": "3.sampler_name", "choices": ["euler", "heun"]},
        }
    )
    assert (steps.minimum, steps.maximum) == (10, 30)
    assert (sampler.choices, sampler.is_narrowed) == (("euler", "heun"), True)


def test_texts_can_be_made_a_list_of_choices_and_names_files() -> None:
    [style, path] = chosen(
        {"style": {"target": "6.text", "choices": ["a fox", "an owl"]}, "path": {"target": "7.text", "media": "video"}}
    )
    assert (style.kind, style.choices) == (InputKind.CHOICE, ("a fox", "an owl"))
    assert (path.kind, path.media, path.is_required, path.default) == (InputKind.FILE, "video", True, None)


def test_every_mistake_is_told_at_once() -> None:
    told = errors(
        {
            "inputs": "6.text",
            "6.text": "6.text",
            "a": "6.txet",
            "b": {"target": "3.steps", "minimm": 1, "minimum": "x"},
            "c": {"target": "3.steps", "minimum": 0, "maximum": 20_000},
            "d": {"target": "3.sampler_name", "choices": ["eulr"]},
            "e": {"target": "3.cfg", "default": "x"},
            "f": 5,
            "prompr": None,
        },
        outputs={"picture": "SaveImages", "none": None},
    )
    assert told == {
        "inputs.inputs": "is reserved: a run's body has its inputs under it",
        "inputs.6.text": "is no name: it has 1 to 64 letters, digits or '_', and begins with a letter",
        "inputs.a.target": "'6.txet' node 6 (CLIPTextEncode) has no input 'txet', it has: clip, text "
        "(did you mean '6.text'?)",
        "inputs.b.minimm": "is no field of an input (did you mean 'minimum'?)",
        "inputs.b.minimum": "should be a number",
        "inputs.c.minimum": "is 0, and ComfyUI takes 1 at least",
        "inputs.c.maximum": "is 20000, and ComfyUI takes 10000 at most",
        "inputs.c": "sets 3.steps, which 'b' sets already",
        "inputs.d.choices": "has 'eulr', and the input does not offer 'eulr' (did you mean 'euler'?)",
        "inputs.d.default": "has to be given: 'euler', which stands in the workflow, is left out by the choices",
        "inputs.e.default": "takes a number from 0.0 to 100.0, and 'x' is none",
        "inputs.f": "is no address and no mapping: write an address like 6.text, or `{target: 6.text, …}`",
        "inputs.prompr": "has no `target`, and no input of this name was proposed (did you mean 'prompt'?): "
        "write an address like 6.text",
        "outputs.picture": "names no node of the workflow: 'SaveImages' (did you mean 'SaveImage'?)",
        "outputs.none": "names no node: write its id, title or class",
    }


def test_a_connected_input_is_refused_with_what_it_is_connected_to() -> None:
    assert errors({"a": "6.clip"})["inputs.a.target"].startswith("'6.clip' is connected to node 4")


def test_an_output_is_named_by_id_title_or_class() -> None:
    for node in ("9", 9, "SaveImage", {"node": "9", "title": "The poster"}):
        _, outputs = choose(GRAPH, OBJECT_INFO, inputs={}, outputs={"picture": node}, proposal=PROPOSAL)
        title = "The poster" if isinstance(node, dict) else ""
        assert outputs == (NamedOutput(name="picture", node_id="9", title=title),)


def test_ids_that_the_editor_shows_within_a_subgraph_are_taken() -> None:
    graph = {f"88:{node_id}": node for node_id, node in GRAPH.items()}
    empty = Proposal((), ())
    [prompt] = choose(graph, None, inputs={"prompt": "6.text"}, outputs=None, proposal=empty)[0]
    assert prompt.targets == ("88:6.text",)


def test_defaults_go_into_the_graph_and_a_drawn_seed_does_not() -> None:
    inputs = chosen({"steps": {"target": "3.steps", "default": 8}, "seed": {"target": "3.seed", "default": -1}})
    graph = with_defaults(GRAPH, inputs)
    assert (graph["3"]["inputs"]["steps"], graph["3"]["inputs"]["seed"]) == (8, 7)
    assert GRAPH["3"]["inputs"]["steps"] == 20


def test_what_stands_in_the_graph_already_is_not_written_again() -> None:
    [text] = chosen({"text": ["6.text", "7.text"]})
    assert with_defaults(GRAPH, (text,)) == GRAPH
    [fixed] = chosen({"seed": {"target": "3.seed", "default": 42}})
    assert with_defaults(GRAPH, (fixed,))["3"]["inputs"]["seed"] == 42


def test_a_file_of_choices_is_yaml_or_json() -> None:
    read = read_choices(
        "description: A poster\ninputs:\n  prompt: 6.text\n  photo: {target: 10.image, required: true}\n"
        "outputs:\n  picture: 9\n"
    )
    assert read.inputs == {"prompt": "6.text", "photo": {"target": "10.image", "required": True}}
    assert (read.outputs, read.description) == ({"picture": 9}, "A poster")
    assert (read.lines["inputs.photo"], read.lines["inputs.photo.required"]) == (4, 4)
    text = '{"description": "A poster", "inputs": {"prompt": "6.text"}}'
    assert read_choices(text).inputs == {"prompt": "6.text"}


def test_mistakes_in_a_file_have_their_lines() -> None:
    read = read_choices("inputs:\n  prompt: 6.text\n  steps:\n    target: 3.steps\n    minimum: 0\n")
    with pytest.raises(InvalidRequest, match=r"line 5, inputs\.steps\.minimum is 0"):
        chosen(dict(read.inputs or {}), lines=read.lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &x [1]\nb: *x", "line 1: anchors"),
        ("inputs: !!python/object/apply:os.system [x]", "line 1: the tag"),
        ("inputs: !mine x", "the tag '!mine' is not taken"),
        ("inputs:\n  a: 1.x\n  a: 2.x\n  b: 1.y\n  b: 1.z", "line 3: 'a' stands in line 2 already.*line 5: 'b'"),
        ("inputs: {<<: {a: 6.text}}", "a key should be a plain name"),
        ("inputs: {}\n---\ninputs: {}", "a second document"),
        ("inputs: " + "[" * 1000, "more than 20 levels"),
        ("inputs: [" + "1," * 60_000 + "]", "more than 50,000 values"),
        ("x" * 1_000_001, "more than 1,000,000 characters"),
        ("inputs: [", "line 1, column 10 is no YAML"),
        ("inputs: \ud800", "is no YAML"),
        ("- a", "is no mapping"),
        ("", "is no mapping"),
        ("inputz: {}", r"did you mean 'inputs'\?"),
        ("prompt: 6.text", "names of inputs stand below `inputs:`"),
        ("inputs: 6.text", "should be a mapping"),
        ('{"inputs": {"a": "6.text", "a": "7.text"}}', "the key 'a' twice"),
        ("inputs: {a: " + "9" * 5000 + "}", "is no YAML"),
    ],
    ids=range(18),
)
def test_a_hostile_or_mistaken_file_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        read_choices(text)


def test_the_file_of_viewcomfy_is_taken() -> None:
    entry = {
        "title": "Your prompt",
        "workflowPath": ["6", "inputs", "text"],
        "helpText": "What to paint",
        "valueType": "long-text",
        "validations": {"required": True},
    }
    sampler = {
        "title": "Sampler_name",
        "workflowPath": ["3", "inputs", "sampler_name"],
        "valueType": "select",
        "options": [{"label": "Euler", "value": "euler"}, {"label": "Heun", "value": "heun"}],
    }
    view = {"description": "A poster", "inputs": [{"inputs": [entry]}], "advancedInputs": [{"inputs": [sampler]}]}

    read = read_choices(json.dumps({"file_type": "view_comfy", "workflows": [{"viewComfyJSON": view}]}))
    assert read.description == "A poster"
    inputs = chosen(dict(read.inputs or {}))
    assert [(one.name, one.targets, one.description) for one in inputs] == [
        ("prompt", ("6.text",), "What to paint"),
        ("sampler_name", ("3.sampler_name",), ""),
    ]
    assert inputs[1].choices == ("euler", "heun")
