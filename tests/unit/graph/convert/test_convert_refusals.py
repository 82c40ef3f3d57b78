"""What cannot be converted is refused, with every reason at once."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert import convert
from tests.unit.graph.convert.editor_files import CLASSES, host, node, prompt, reasons, subgraph, warnings, workflow

PACK = {"cnr_id": "some-pack", "ver": "1.2.3"}


def test_every_unknown_class_is_told_with_its_pack() -> None:
    inner = subgraph("s", node(101, "Inside"))
    document = workflow(
        node(1, "First", properties=PACK),
        node(2, "First"),
        node(3, "Second", properties={"aux_id": "owner/repository", "ver": "abc"}),
        node(4, "Muted", mode=2),
        node(5, "Bypassed", mode=4),
        node(6, "EmptyImage "),
        host(7, inner),
        host(8, inner, mode=2),
        subgraphs=[inner],
    )
    found = {reason["class_type"]: reason for reason in reasons(document)}
    assert {*found} == {"First", "Second", "EmptyImage ", "Inside"}
    assert {reason["reason"] for reason in found.values()} == {"missing_node_type"}
    assert found["First"]["node_id"] == "1"
    assert found["First"]["node_ids"] == ["1", "2"]
    assert (found["First"]["cnr_id"], found["First"]["ver"]) == ("some-pack", "1.2.3")
    assert "some-pack 1.2.3" in found["First"]["message"]
    assert found["Second"]["aux_id"] == "owner/repository"
    assert found["Inside"]["node_ids"] == ["7:101"]
    assert "cnr_id" not in found["EmptyImage "]


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(UiFormatWorkflow, match=r"'Nope' is not installed .*Install the pack") as caught:
        convert(workflow(node(1, "Nope")), CLASSES)
    assert caught.value.code == "workflow_format_ui"


@pytest.mark.parametrize(
    ("document", "advice"),
    [
        (workflow(node(1, "Nope")), "muted or bypassed"),
        (workflow(node(1, "Load3D")), "give a value for `1.image`."),
        (workflow(node(1, "Anything Everywhere")), "Export (API)"),
        (workflow(node(2, "11111111-1111-4111-8111-000000000099")), "Put that right in the editor"),
        (workflow(node(1, "PreviewImage", images=(7, 0))), "Put that right in the editor"),
    ],
)
def test_each_reason_has_the_advice_that_helps_and_no_other(document: dict[str, Any], advice: str) -> None:
    every = ("muted or bypassed", "give a value for `1.image`.", "Export (API)", "Put that right in the editor")
    with pytest.raises(UiFormatWorkflow) as caught:
        convert(document, CLASSES)
    assert [one for one in every if one in caught.value.message] == [advice]


def test_a_subgraph_that_is_not_in_the_file_is_called_one() -> None:
    (reason,) = reasons(workflow(node(2, "11111111-1111-4111-8111-000000000099")))
    assert reason["reason"] == "missing_node_type"
    assert reason["message"].startswith("the subgraph '11111111-1111-4111-8111-000000000099' is not in the file")


def test_reasons_of_different_kinds_come_together_and_at_most_a_hundred() -> None:
    document = workflow(
        *[node(number, f"Nope{number}") for number in range(300)], node(500, "WebcamCapture"), node(501, "RecordAudio")
    )
    assert len(reasons(document)) == 100
    document["nodes"] = document["nodes"][-5:]
    assert {reason["reason"] for reason in reasons(document)} == {"missing_node_type", "needs_browser"}


@pytest.mark.parametrize(("kind", "name"), [("WebcamCapture", "image"), ("RecordAudio", "audio"), ("Load3D", "image")])
def test_what_only_a_browser_can_make_is_refused_unless_it_is_given(kind: str, name: str) -> None:
    document = workflow(node(3, kind, title="mine"))
    (reason,) = reasons(document)
    assert (reason["reason"], reason["node_id"], reason["input"]) == ("needs_browser", "3", name)
    assert f"`3.{name}`" in reason["message"]
    for address in (f"3.{name}", f"mine.{name}", f"{kind}.{name}"):
        assert prompt(document, supplied={address: "given.png"})["3"][name] == "given.png"
    assert not prompt(workflow(node(3, kind, mode=2)))


def test_a_link_to_what_only_a_browser_can_make_is_enough() -> None:
    document = workflow(node(1, "EmptyImage", [8, 8, 1, 0]), node(3, "WebcamCapture", [None, 5], image=(1, 0)))
    assert prompt(document)["3"] == {"image": ["1", 0], "width": 5}


def test_the_buttons_of_a_viewer_take_their_places() -> None:
    document = workflow(node(3, "Load3D", ["a.glb", "upload3dmodel", "uploadExtraResources", "clear", "", 512]))
    assert prompt(document, supplied={"3.image": {"image": "x"}})["3"] == {
        "model_file": "a.glb",
        "upload 3d model": "upload3dmodel",
        "upload extra resources": "uploadExtraResources",
        "clear": "clear",
        "image": {"image": "x"},
        "width": 512,
    }


def test_a_viewer_that_only_shows_gets_its_first_view() -> None:
    classes = {"Viewer": {"input": {"required": {"state": ["LOAD_3D"], "width": ["INT"], "height": ["INT"]}}}}
    document = workflow(node(1, "Viewer", ["", 512, 256]))
    converted = convert(document, classes)
    assert converted.graph["1"]["inputs"]["state"]["camera_info"]["aspect"] == 2
    assert "first view" in converted.warnings[0]


def test_a_file_without_nodes_is_none_of_the_editor() -> None:
    assert [reason["reason"] for reason in reasons({"1": {"class_type": "EmptyImage", "inputs": {}}})] == ["malformed"]


def test_warnings_are_few_and_each_is_told_once() -> None:
    document = workflow(*[node(number, "EmptyLatentImage", [8]) for number in range(300)])
    told = warnings(document).splitlines()
    assert len(told) == 101
    assert "more" in told[-1]


def test_two_nodes_that_get_one_id_are_refused() -> None:
    inner = subgraph("s", node(101, "ImageInvert"))
    document: dict[str, Any] = workflow(host(2, inner), node("2:101", "EmptyImage"), subgraphs=[inner])
    assert [reason["reason"] for reason in reasons(document)] == ["duplicate_id"]
