"""What a file says itself of classes that nobody has declared: no value gets a wrong name; what has none is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.convert.stand_ins import stand_ins
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.proposal import Proposal, propose
from tests.unit.editor_samples import OBJECT_INFO, link_in, link_out, node, saved
from tools import app_mode

FACTS = json.loads(app_mode.FACTS.read_text(encoding="utf-8"))


def widget(name: str, kind: str) -> dict[str, Any]:
    """An input of a node that the file lists as one of its widgets."""
    return {"name": name, "type": kind, "widget": {"name": name}, "link": None}


def odd(values: Any, *, names: list[str] | None = None, inputs: Any = (), **more: Any) -> dict[str, Any]:
    """A workflow with one node of a class that nobody has, and a saver behind it."""
    one = node(1, "Odd", values, [*inputs], [link_out([7], "IMAGE")], **more)
    if names is not None:
        one["widgets_values_named"] = dict.fromkeys(names)
    return saved([one, node(2, "SaveImage", ["x"], [link_in("images", 7, "IMAGE")])], [[7, 1, 0, 2, 0, "IMAGE"]])


def seen(workflow: dict[str, Any], object_info: Any = None) -> tuple[dict[str, Any], Proposal, tuple[str, ...]]:
    """The inputs of node 1, the proposal, and what is said of the classes."""
    instead = stand_ins(workflow, OBJECT_INFO if object_info is None else object_info)
    graph = convert(workflow, instead.object_info).graph
    return graph["1"]["inputs"], propose(graph, instead.object_info, editors=workflow), instead.notes


@pytest.mark.parametrize("name", sorted(FACTS["templates"]))
def test_what_a_file_says_of_its_values_is_what_the_engine_says(name: str) -> None:
    """Nobody has declared anything, and still no input has another value than the one that it really gets."""
    workflow = FACTS["templates"][name]
    known = convert(workflow, stand_ins(workflow, FACTS["classes"]).object_info).graph
    told = convert(workflow, stand_ins(workflow, {}).object_info).graph
    assert told.keys() == known.keys()
    wrong = {
        (node_id, each): (value, known[node_id]["inputs"].get(each))
        for node_id, one in told.items()
        for each, value in one["inputs"].items()
        if each in known[node_id]["inputs"] and value != known[node_id]["inputs"][each]
    }
    assert wrong == {}


def test_names_beside_the_values_say_which_is_which() -> None:
    names = ["text", "seed", "control_after_generate", "strength", "upload", "upload_path"]
    inputs, proposal, notes = seen(odd(["a fox", 7, "randomize", 8, "image", "a/b"], names=names))
    assert inputs == {"text": "a fox", "seed": 7, "strength": 8, "upload_path": "a/b"}
    found = {one.name: one for one in proposal.inputs}
    assert (found["seed"].kind, found["seed"].default) == (InputKind.INTEGER, -1)
    assert found["strength"].kind is InputKind.NUMBER, "8 may be 8.0"
    assert all(one.is_guessed for one in found.values())
    told = "what is shown of it is what the file itself says; it runs only where a worker has that class"
    assert notes == (f"nobody has declared the class 'Odd' (node 1): {told}",)


def test_widgets_that_are_all_listed_say_it_too_and_have_types() -> None:
    listed = [widget("prompt", "STRING"), widget("seed", "INT"), widget("cfg", "FLOAT"), widget("style", "COMBO")]
    inputs, proposal, _ = seen(odd(["a fox", 7, "fixed", 8, "oil"], inputs=listed))
    assert inputs == {"prompt": "a fox", "seed": 7, "cfg": 8, "style": "oil"}
    found = {one.name: one for one in proposal.inputs}
    assert (found["cfg"].kind, found["style"].kind, found["style"].is_open) == (
        InputKind.NUMBER,
        InputKind.CHOICE,
        True,
    )
    assert found["seed"].default == 7


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        (["a", "b"], []),
        (["a", 7], [widget("seed", "INT")]),
        (["a", 7], [widget("seed", "INT"), widget("text", "STRING")]),
        ([7, "fixed", 8, 9], [widget("seed", "INT"), widget("cfg", "FLOAT")]),
    ],
)
def test_values_that_nothing_names_are_left_out_and_counted(values: list[Any], listed: list[Any]) -> None:
    inputs, proposal, notes = seen(odd(values, inputs=listed))
    assert inputs == {}
    assert [one.name for one in proposal.inputs] == []
    assert f"where {len(values)} of its values have no names, and are left out" in notes[0]


def test_the_pack_that_the_file_names_is_said() -> None:
    properties = {"cnr_id": "odd-nodes", "ver": "1.2"}
    assert ", of the pack odd-nodes 1.2)" in seen(odd([], properties=properties))[2][0]
    properties = {"cnr_id": "comfy-core", "ver": "0.99.0"}
    assert ", of ComfyUI 0.99.0 itself)" in seen(odd([], properties=properties))[2][0]


def test_app_mode_chooses_among_what_has_a_name_and_says_what_has_none() -> None:
    workflow = odd(["a fox", 7], names=["text", "count"])
    workflow["extra"] = {"linearData": {"inputs": [["1", "text"], ["1", "scale"]]}}
    _, proposal, _ = seen(workflow)
    assert [one.name for one in proposal.inputs] == ["text"]
    assert "has no value by that name in the file, and nobody has declared 'Odd'" in proposal.notes[0]


def test_what_its_author_calls_an_output_is_one_though_another_node_takes_what_it_makes() -> None:
    workflow = odd(["a fox"], names=["text"])
    workflow["extra"] = {"linearData": {"inputs": [["1", "text"]], "outputs": ["1"]}}
    _, proposal, _ = seen(workflow)
    assert [one.node_id for one in proposal.outputs] == ["1"]
    assert proposal.notes == ()


def test_what_is_behind_a_node_of_which_nobody_knows_whether_it_is_an_output_stays() -> None:
    text = node(1, "Words", ["a fox"], [], [link_out([7], "STRING")])
    text["widgets_values_named"] = {"text": None}
    workflow = saved(
        [text, node(2, "Send", [], [link_in("text", 7, "STRING")], [link_out([], "STRING")])],
        [[7, 1, 0, 2, 0, "STRING"]],
    )
    _, proposal, _ = seen(workflow)
    assert [one.targets for one in proposal.inputs] == [("1.text",)]
    assert [one.node_id for one in proposal.outputs] == ["2"]


def test_where_nobody_has_told_anything_one_sentence_says_so() -> None:
    _, _, notes = seen(odd(["a", 7]), {})
    assert len(notes) == 1
    assert "no worker has told yet" in notes[0]
    assert "values of these classes have no names there, and are left out: Odd, SaveImage" in notes[0]


def test_a_workflow_whose_classes_are_declared_has_no_stand_ins() -> None:
    assert stand_ins(odd([]), {**OBJECT_INFO, "Odd": {"input": {}, "output": ["IMAGE"]}}).classes == ()


def test_other_reasons_are_reasons_still() -> None:
    missing = saved([node(1, "6ac722f6-a021-4a23-809c-054361a86ea7", [])], [])
    with pytest.raises(UiFormatWorkflow, match="is not in the file"):
        convert(missing, stand_ins(missing, OBJECT_INFO).object_info)


# A class that has changed since the file was saved

OLDER = {
    **OBJECT_INFO,
    "Paint": {"input": {"required": {"text": ["STRING"], "seed": ["INT"], "cfg": ["FLOAT"]}}, "output": ["IMAGE"]},
}


def painted(names: list[str], values: list[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    workflow = odd(values, names=names)
    workflow["nodes"][0]["type"] = "Paint"
    conversion = convert(workflow, OLDER)
    return conversion.graph["1"]["inputs"], conversion.warnings


def test_values_of_another_version_of_a_class_are_taken_in_their_order_as_the_editor_does_and_that_is_said() -> None:
    names = ["text", "size", "seed", "control_after_generate", "cfg"]
    inputs, warnings = painted(names, ["a fox", "2k", 7, "randomize", 8])
    assert inputs == {"text": "a fox", "seed": "2k", "cfg": "randomize"}
    assert any("saved with another version of this class" in warning for warning in warnings)


def test_an_input_that_was_renamed_stays_where_it_stood() -> None:
    inputs, warnings = painted(["prompt", "seed", "control_after_generate", "cfg"], ["a fox", 7, "fixed", 8])
    assert inputs == {"text": "a fox", "seed": 7, "cfg": 8}
    assert warnings == ()


def test_names_that_do_not_go_with_the_values_are_no_names() -> None:
    inputs, warnings = painted(["seed", "cfg", "text", "x", "y"], ["a fox", 7, "fixed", 8])
    assert inputs == {"text": "a fox", "seed": 7, "cfg": 8}
    assert warnings == ()
