"""A run apart writes into its own folder, and its output nodes run."""

from __future__ import annotations

import re
from typing import Any

import pytest

from comfy_serverless.connector.own_folder import check_prefixes, in_own_folder, may_overlap, writes_there_alone
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.nodes import Declared, declared


def says(*inputs: str, is_own: bool = True, is_output: bool = True, is_partner: bool = False) -> Declared:
    may_read = is_partner or not is_own
    return Declared(
        is_own=is_own, is_output=is_output, may_read=may_read, inputs=frozenset(inputs), is_partner=is_partner
    )


DECLARED = {
    "EmptyImage": says("width", is_output=False),
    "SaveImage": says("images", "filename_prefix"),
    "SaveLoRA": says("lora", "prefix", "steps"),
    "SaveImageDataSetToFolder": says("images", "folder_name", "filename_prefix"),
    "PreviewImage": says("images"),
    "PrimitiveString": says("value", is_output=False),
    "StringConcatenate": says("string_a", "string_b", "delimiter", is_output=False),
    "RegexReplace": says("string", "regex_pattern", "replace", is_output=False),
    "LoadImageSetFromFolderNode": says("folder", is_output=False),
    "ImageSaverOfAPack": says("images", "filename_prefix", is_own=False),
    "FolderLoaderOfAPack": says("path", is_own=False, is_output=False),
    "CLIPTextEncode": says("text", "clip", is_output=False),
    "Preview3D": says("model_file"),
    "PreviewAny": says("source"),
    "SaveImageWebsocket": says("images"),
    "SaverOfANewerRelease": says("images", "where"),
    "ServiceWithAModel": says("prompt", is_output=False, is_partner=True),
}
FOLDER = "comfy-serverless/job-1"


def graph(prefix: Any, class_type: str = "SaveImage", name: str = "filename_prefix") -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8}},
        "2": {"class_type": class_type, "inputs": {"images": ["1", 0], name: prefix}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def own(before: dict[str, Any], run: str = "job-1", *, owner: str = "bob") -> dict[str, Any]:
    return in_own_folder(before, run, DECLARED, recalls_as=owner)


@pytest.mark.parametrize("prefix", ["ComfyUI", "today/fox", "a..b", "%date:yyyy%/x", 7])
def test_comfyuis_own_savers_write_below_the_folder_of_the_run(prefix: object) -> None:
    assert own(graph(prefix))["2"]["inputs"]["filename_prefix"] == f"{FOLDER}/{prefix}"


@pytest.mark.parametrize("prefix", ["", ".", "./"])
def test_a_prefix_without_a_name_does_not_take_the_name_of_the_folder(prefix: str) -> None:
    assert own(graph(prefix))["2"]["inputs"]["filename_prefix"] == f"{FOLDER}/ComfyUI"


def test_savers_that_take_the_folder_under_another_name_get_it_there_and_nowhere_else() -> None:
    assert own(graph("loras/fox", "SaveLoRA", "prefix"))["2"]["inputs"]["prefix"] == f"{FOLDER}/loras/fox"
    set_of_pictures = graph("cats", "SaveImageDataSetToFolder", "folder_name")
    set_of_pictures["2"]["inputs"]["filename_prefix"] = "cat"
    inputs = own(set_of_pictures)["2"]["inputs"]
    assert (inputs["folder_name"], inputs["filename_prefix"]) == (f"{FOLDER}/cats", "cat")


@pytest.mark.parametrize("class_type", ["ImageSaverOfAPack", "NobodyKnowsIt"])
def test_what_the_saver_of_a_pack_is_told_is_left_as_it_is(class_type: str) -> None:
    assert own(graph("mine", class_type))["2"]["inputs"]["filename_prefix"] == "mine"


def test_output_nodes_run_anew_and_everything_else_stays_as_it_was() -> None:
    for class_type in ("SaveImage", "ImageSaverOfAPack"):
        before = graph("x", class_type)
        first, second = own(before), own(before, "job-2")
        assert first["2"] != second["2"], "else the second run would be shown the first one's file"
        assert first["3"] != second["3"]
        assert first["1"] == second["1"] == before["1"]
        assert before == graph("x", class_type), "the caller's graph is not changed"


@pytest.mark.parametrize(
    ("class_type", "value", "between_jobs", "between_owners"),
    [
        ("EmptyImage", "8", True, True),
        ("CLIPTextEncode", "a fox", True, True),
        ("CLIPTextEncode", "a fox, (embedding:mine:1.2)", True, False),
        ("PrimitiveString", "embedding:mine", True, False),
        ("FolderLoaderOfAPack", "photos", True, False),
        ("NobodyKnowsIt", "photos", True, False),
        ("LoadImageSetFromFolderNode", "photos", False, False),
    ],
)
def test_what_was_read_for_one_owner_is_not_recalled_for_another(
    class_type: str, value: str, between_jobs: bool, between_owners: bool
) -> None:
    before: dict[str, Any] = {"1": {"class_type": class_type, "inputs": {"path": value}}}
    mine = own(before, "job-1")
    assert (mine == own(before, "job-2")) is between_jobs
    assert (mine == own(before, "job-2", owner="alice")) is between_owners


def test_the_name_of_the_owner_is_not_told() -> None:
    graph_of_pack = {"1": {"class_type": "FolderLoaderOfAPack", "inputs": {"path": "x"}}}
    assert "alice" not in str(own(graph_of_pack, owner="alice"))


def test_a_prefix_that_comes_by_a_link_is_followed_to_its_constant() -> None:
    linked = graph(["4", 0])
    linked["4"] = {"class_type": "PrimitiveString", "inputs": {"value": "../x"}}
    with pytest.raises(InvalidWorkflow, match=r"Node 2: filename_prefix '../x' leads out"):
        check_prefixes(linked)
    linked["4"]["inputs"]["value"] = "fox"
    check_prefixes(linked)
    assert own(linked)["2"]["inputs"]["filename_prefix"] == f"{FOLDER}/fox"


def test_a_prefix_that_is_made_while_the_job_runs_gets_the_folder_then() -> None:
    linked = graph(["4", 0])
    linked["4"] = {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": "b", "delimiter": ""}}
    changed = own(linked)
    assert changed["2"]["inputs"]["filename_prefix"] == ["2.folder", 0]
    assert changed["2.folder"] == {
        "class_type": "StringConcatenate",
        "inputs": {"string_a": f"{FOLDER}/", "string_b": ["2.name", 0], "delimiter": ""},
    }
    assert changed["2.name"]["inputs"]["string"] == ["4", 0]


@pytest.mark.parametrize(
    ("made", "below"),
    [
        ("today/fox", "today/fox"),
        ("fox.v1.5", "fox.v1.5"),
        ("../../x", "_/_/x"),
        ("a/../../b", "a/_/_/b"),
        ("..", "_"),
        ("x/..", "x/_"),
        ("a..b/...", "a..b/..."),
        ("a/..\\x", "a/_\\x"),
        (" //etc/x", "_etc/x"),
        ("\\\\host\\x", "_host\\x"),
        ("/../x", "__/x"),
        ("", "_"),
        (".", "_"),
        ("./", "_"),
        (".//./.", "_"),
        ("  ", "_"),
        ("./fox", "./fox"),
        (".fox", ".fox"),
    ],
)
@pytest.mark.parametrize("name", ["folder_name", "filename_prefix"])
def test_what_leads_out_of_the_folder_is_taken_out_of_a_name_that_is_made_while_the_job_runs(
    made: str, below: str, name: str
) -> None:
    linked = graph("cats", "SaveImageDataSetToFolder", "folder_name")
    linked["2"]["inputs"] |= {"filename_prefix": "cat", name: ["4", 0]}
    linked["4"] = {"class_type": "NobodyKnowsIt", "inputs": {}}
    replaces = own(linked)["2.name"]
    assert replaces["class_type"] == "RegexReplace"
    assert re.sub(replaces["inputs"]["regex_pattern"], replaces["inputs"]["replace"], made) == below


@pytest.mark.parametrize("prefix", [{"__value__": "../x"}, ["a"], None])
def test_a_prefix_that_is_no_text_is_refused(prefix: object) -> None:
    with pytest.raises(InvalidWorkflow, match="Node 2: filename_prefix is no text"):
        check_prefixes(graph(prefix))


@pytest.mark.parametrize("prefix", ["../other-job/x", "a/../../b", "/etc/x", "..\\x", ".."])
@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("SaveImage", "filename_prefix"),
        ("SaverOfAPack", "filename_prefix"),
        ("SaveTrainingDataset", "folder_name"),
        ("SaveLoRA", "prefix"),
    ],
)
def test_a_name_that_leads_out_of_the_output_folder_is_refused(prefix: str, class_type: str, name: str) -> None:
    with pytest.raises(InvalidWorkflow, match=rf"Node 2: {name} .*leads out of the job's output folder"):
        check_prefixes(graph(prefix, class_type, name))


@pytest.mark.parametrize(
    ("class_type", "overlaps"),
    [
        ("SaveImage", True),
        ("LoadImageSetFromFolderNode", False),
        ("ImageSaverOfAPack", False),
        ("NobodyKnowsIt", False),
    ],
)
def test_jobs_overlap_only_if_neither_may_come_upon_the_others_files(class_type: str, overlaps: bool) -> None:
    assert may_overlap(graph("x", class_type), DECLARED) is overlaps


def test_declarations_are_read_as_comfyui_gives_them() -> None:
    given: dict[str, Any] = {
        "input": {"required": {"images": ["IMAGE"]}, "optional": {"x": ["INT"]}, "hidden": {"prompt": "PROMPT"}},
        "output_node": True,
        "python_module": "nodes",
    }
    assert declared(given) == says("images", "x", "prompt")
    assert declared({**given, "python_module": "comfy_extras.nodes_video"}).is_own
    of_a_service = declared({**given, "python_module": "comfy_api_nodes.nodes_x"})
    assert of_a_service.is_own
    assert of_a_service.may_read, "whose key it has decides what comes back"
    assert not declared({**given, "python_module": "custom_nodes.some_pack"}).is_own
    unknown = Declared(is_own=False, is_output=False, may_read=True, inputs=frozenset())
    assert declared({"input": None}) == unknown


def test_a_loader_of_a_pack_keeps_its_model_for_all_owners_and_what_reads_more_does_not() -> None:
    pack = {"python_module": "custom_nodes.gguf", "output_node": False}
    names: dict[str, Any] = {"required": {"unet_name": [["a.gguf", "b.gguf"]], "dequant": ["COMBO", {"options": []}]}}
    assert not declared({**pack, "input": names, "output": ["MODEL"]}).may_read
    by_path = {"required": {"path": ["STRING"], "kind": [["a", "b"]]}}
    for inputs, output in ((by_path, ["MODEL"]), (names, ["IMAGE"]), (names, []), (names, ["MODEL", "IMAGE"])):
        assert declared({**pack, "input": inputs, "output": output}).may_read


@pytest.mark.parametrize(
    ("class_type", "inputs", "is_known"),
    [
        ("SaveImage", {"filename_prefix": "x"}, True),
        ("SaveImage", {"filename_prefix": ["4", 0]}, True),
        ("SaveImage", {}, False),
        ("SaveImageDataSetToFolder", {"folder_name": "x"}, True),
        ("SaveImageDataSetToFolder", {"filename_prefix": "x"}, False),
        ("PreviewImage", {}, True),
        ("PreviewAny", {}, True),
        ("SaveImageWebsocket", {}, True),
        ("Preview3D", {}, False),
        ("SaverOfANewerRelease", {"where": "x"}, False),
        ("ServiceWithAModel", {}, False),
        ("ImageSaverOfAPack", {"filename_prefix": "x"}, False),
        ("Unheard", {}, False),
    ],
)
def test_it_is_known_where_nodes_save_only_of_those_of_which_it_is(
    class_type: str, inputs: dict[str, Any], is_known: bool
) -> None:
    before = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8}},
        "2": {"class_type": class_type, "inputs": inputs},
        "4": {"class_type": "RegexReplace", "inputs": {"string": "a"}},
    }
    assert writes_there_alone(own(before), "job-1", DECLARED) is is_known
