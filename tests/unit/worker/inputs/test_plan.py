"""What a job's inputs mean: pure decisions about a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, MissingAsset
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.worker.inputs.plan import MAX_INPUTS, Asset, Plan, plan_inputs, refuse_names_of_others
from tests.unit.input_world import graph

A, B, C, MASK = "s3://in/a.png", "s3://in/b.png", "s3://in/c.png", "s3://in/mask.png"


def plan(graph: dict[str, Any], inputs: dict[str, str | list[str]]) -> Plan:
    return plan_inputs(graph, inputs)


def refusal(graph: dict[str, Any], inputs: dict[str, str | list[str]], address: str) -> str:
    with pytest.raises(InvalidWorkflow) as caught:
        plan_inputs(graph, inputs)
    reason: str = caught.value.details["inputs"][address]
    return reason


def places(plan: Plan) -> dict[tuple[str, str], object]:
    return {target: entry.asset.origin for entry in plan.wanted for target in entry.targets}


class TestRequests:
    def test_a_request_gives_an_input_one_file_or_several(self) -> None:
        request = JobRequest.parse({"workflow": graph(), "inputs": {"10.image": [A, B], "10.mask": MASK}})
        assert request.inputs == {"10.image": [A, B], "10.mask": MASK}

    @pytest.mark.parametrize("given", [[], [1], 3, {"a": A}, [[A]]])
    def test_nothing_else_is_an_input(self, given: object) -> None:
        with pytest.raises(InvalidRequest, match=r"inputs\.10\.image: should be a string, or a list of strings"):
            JobRequest.parse({"workflow": graph(), "inputs": {"10.image": given}})


class TestFolders:
    @pytest.mark.parametrize(
        ("class_type", "input_name", "folder"),
        [
            ("LoadImage", "image", "comfy-serverless"),
            ("LoadAudio", "audio", "comfy-serverless"),
            ("Load3D", "model_file", "3d/comfy-serverless"),
            ("SomebodysLoader", "image", ""),
        ],
    )
    def test_a_file_goes_where_its_loader_looks(self, class_type: str, input_name: str, folder: str) -> None:
        [wanted] = plan({"1": {"class_type": class_type, "inputs": {input_name: A}}}, {}).wanted
        assert wanted.asset.subfolder == folder

    def test_what_another_address_overrides_is_not_brought(self) -> None:
        [wanted] = plan(graph(image=C), {"10.image": A, "LoadImage.image": B}).wanted
        assert (wanted.asset.origin, wanted.address) == (A, "10.image")


class TestMasks:
    @pytest.mark.parametrize("address", ["10.mask", "LoadImage.mask", "Photo.mask"])
    def test_a_mask_and_an_image_become_one_file(self, address: str) -> None:
        [wanted] = plan(graph(), {"10.image": A, address: MASK}).wanted
        assert wanted.asset == Asset(A, is_image=True, subfolder="comfy-serverless", mask=MASK)
        assert (wanted.targets, wanted.address, wanted.mask_address) == ((("10", "image"),), "10.image", address)

    def test_the_image_may_stand_in_the_graph_as_an_address_or_as_a_name(self) -> None:
        [fetched] = plan(graph(image=A), {"10.mask": MASK}).wanted
        [stored] = plan(graph(image="photo.png"), {"10.mask": MASK}).wanted
        assert (fetched.asset.origin, fetched.asset.is_stored) == (A, False)
        assert (stored.asset.origin, stored.asset.is_stored) == ("photo.png", True)

    def test_an_input_that_is_called_mask_stays_an_ordinary_one(self) -> None:
        workflow = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png", "mask": "b.png"}}}
        assert places(plan(workflow, {"1.mask": MASK, "1.image": A})) == {("1", "mask"): MASK, ("1", "image"): A}

    def test_one_mask_for_all_loaders_is_put_into_the_image_of_each(self) -> None:
        workflow = graph(image=A) | {"20": {"class_type": "LoadImage", "inputs": {"image": B}}}
        wanted = plan(workflow, {"LoadImage.mask": MASK}).wanted
        assert [(entry.asset.origin, entry.asset.mask) for entry in wanted] == [(A, MASK), (B, MASK)]

    @pytest.mark.parametrize("class_type", ["ImageInvert", "LoadImageMask"])
    def test_other_nodes_have_no_mask(self, class_type: str) -> None:
        workflow = {"1": {"class_type": class_type, "inputs": {"image": "a.png"}}}
        assert "has no input 'mask'" in refusal(workflow, {"1.mask": MASK}, "1.mask")

    def test_a_mask_needs_one_image(self) -> None:
        assert "is a batch" in refusal(graph(), {"10.image": [A, B], "10.mask": MASK}, "10.image")
        assert "a mask belongs to one image" in refusal(graph(), {"10.image": A, "10.mask": [MASK, MASK]}, "10.mask")
        assert "give the file as '10.image'" in refusal(graph(image=["9", 0]), {"10.mask": MASK}, "10.mask")


class TestBatches:
    def test_several_images_are_joined_under_the_id_of_their_loader(self) -> None:
        planned = plan(graph(upload="image"), {"10.image": [A, B, C]})
        assert places(planned) == {("10.1", "image"): A, ("10.2", "image"): B, ("10.3", "image"): C}
        assert [entry.address for entry in planned.wanted] == ["10.image[0]", "10.image[1]", "10.image[2]"]
        assert planned.graph["10.4"]["inputs"] == {"image1": ["10.1", 0], "image2": ["10.2", 0]}
        assert planned.graph["10"] == {
            "class_type": "ImageBatch",
            "inputs": {"image1": ["10.4", 0], "image2": ["10.3", 0]},
            "_meta": {"title": "Photo"},
        }
        assert planned.graph["10.2"]["class_type"] == "LoadImage"
        assert planned.graph["10.2"]["inputs"]["upload"] == "image"
        assert planned.graph["11"] == graph()["11"]

    def test_the_graph_that_was_given_is_left_alone(self) -> None:
        given = graph()
        plan(given, {"10.image": [A, B]})
        assert given == graph()

    def test_ids_that_are_taken_are_left_to_their_nodes(self) -> None:
        other = {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}}
        planned = plan(graph() | {"10.1": other, "10.3": other}, {"10.image": [A, B]})
        assert places(planned) == {("10.2", "image"): A, ("10.4", "image"): B}
        assert planned.graph["10.1"] == planned.graph["10.3"] == other

    def test_a_list_of_one_is_one_image(self) -> None:
        planned = plan(graph(), {"10.image": [A]})
        assert planned.graph == graph()
        assert places(planned) == {("10", "image"): A}
        assert plan(graph(), {"10.image": [A], "10.mask": [MASK]}) == plan(graph(), {"10.image": A, "10.mask": MASK})

    def test_a_batch_has_no_mask_to_give(self) -> None:
        workflow = graph() | {"13": {"class_type": "MaskToImage", "inputs": {"mask": ["10", 1]}}}
        assert "output 1 (the mask) of node '10' is used" in refusal(workflow, {"10.image": [A, B]}, "10.image")

    @pytest.mark.parametrize(
        ("class_type", "input_name"), [("LoadAudio", "audio"), ("LoadImageMask", "image"), ("Other", "image")]
    )
    def test_other_inputs_take_one_file(self, class_type: str, input_name: str) -> None:
        workflow = {"1": {"class_type": class_type, "inputs": {input_name: "a"}}}
        assert "takes one file" in refusal(workflow, {f"1.{input_name}": [A, B]}, f"1.{input_name}")

    @pytest.mark.parametrize("size", [0, MAX_INPUTS + 1])
    def test_a_batch_has_a_size(self, size: int) -> None:
        assert f"a batch is of 1 to {MAX_INPUTS}" in refusal(graph(), {"10.image": [A] * size}, "10.image")

    def test_files_of_this_machine_make_a_batch_too(self) -> None:
        assert set(places(plan_inputs(graph(), {"10.image": [Path("a.png"), Path("b.png")]})).values()) == {
            Path("a.png"),
            Path("b.png"),
        }


class TestOtherFolders:
    @pytest.mark.parametrize("name", ["a.png [output]", "a.png [temp]", "job/a.png [output]", "a.png[temp]"])
    def test_files_of_other_jobs_are_not_read(self, name: str) -> None:
        with pytest.raises(MissingAsset, match=r"input folder.*its s3_uri") as caught:
            refuse_names_of_others(graph(image=name), {})
        assert set(caught.value.details["inputs"]) == {"10.image"}

    @pytest.mark.parametrize(
        "name",
        [
            f"comfy-serverless/{'0' * 32}.bin",
            f"./comfy-serverless//{'0' * 32}.png [input]",
            f"3d\\comfy-serverless\\{'0' * 32}.glb",
        ],
    )
    def test_a_file_that_was_brought_for_another_input_cannot_be_named(self, name: str) -> None:
        with pytest.raises(MissingAsset, match="is where the files of jobs are put"):
            refuse_names_of_others(graph(image=name), {})
        refuse_names_of_others(graph(image="comfy-serverless.png"), {})

    def test_the_renders_of_a_3d_loader_are_files_too(self) -> None:
        renders = {"image": "3d/a.png [temp]", "mask": "", "recording": ""}
        with pytest.raises(MissingAsset, match=r"1\.image"):
            refuse_names_of_others({"1": {"class_type": "Load3D", "inputs": {"model_file": "", "image": renders}}}, {})

    def test_the_input_folder_may_be_named_and_texts_are_texts(self) -> None:
        workflow = graph(image="a.png [input]") | {
            "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox [output]"}}
        }
        refuse_names_of_others(workflow, {})
        refuse_names_of_others(graph(image="a.png [output]"), {"10.image": A})
