"""Masks and batches on their way into ComfyUI's input folder: what arrives, and what is said about mistakes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_serverless.errors import ComfyError, InvalidWorkflow, MissingAsset
from tests.unit.input_world import InputFolder, Prepare, data_url, graph, name_of, picture

GRAY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
COLOURS = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_image_and_mask_arrive_as_one_file(prepare: Prepare, folder: InputFolder) -> None:
    inputs = {"10.image": data_url(encoded(COLOURS)), "10.mask": data_url(encoded(GRAY))}
    result = prepare(graph(), inputs)
    assert result["10"]["inputs"].keys() == {"image"}
    [(name, content)] = folder.files.items()
    assert result["10"]["inputs"]["image"] == name == name_of(content)
    assert prepare(graph(), inputs) == result


def test_an_image_that_comfyui_has_is_read_from_there(prepare: Prepare, folder: InputFolder) -> None:
    folder.files["mine/photo.png"] = encoded(COLOURS)
    result = prepare(graph(image="mine/photo.png [input]"), {"10.mask": data_url(encoded(GRAY))})
    made = folder.files[result["10"]["inputs"]["image"]]
    with Image.open(io.BytesIO(made)) as image:
        np.testing.assert_array_equal(np.asarray(image)[..., :3], np.asarray(COLOURS))


def test_an_image_of_another_owner_is_not_read_while_its_job_runs(
    prepare: Prepare, folder: InputFolder, tmp_path: Path
) -> None:
    folder.input_directory = tmp_path
    (tmp_path / "hers.png").write_bytes(picture())
    folder.of_others = {"hers.png"}
    with pytest.raises(MissingAsset, match="or not for all") as caught:
        prepare(graph(image="hers.png [input]"), {"10.mask": data_url(encoded(GRAY))})
    assert set(caught.value.details["inputs"]) == {"10.image"}


@pytest.mark.parametrize("name", ["gone.png", "../secret.png", "/etc/hostname", "a/../../b.png", "..\\b.png"])
@pytest.mark.parametrize("is_local", [False, True])
def test_only_images_in_the_input_folder_are_read(
    prepare: Prepare, folder: InputFolder, tmp_path: Path, name: str, is_local: bool
) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "b.png").write_bytes(picture())
    if is_local:
        folder.input_directory = tmp_path / "input"
        folder.input_directory.mkdir()
    with pytest.raises(MissingAsset, match="ComfyUI's input folder") as caught:
        prepare(graph(image=name), {"10.mask": data_url(encoded(GRAY))})
    assert set(caught.value.details["inputs"]) == {"10.image"}


def test_it_is_said_which_of_the_two_is_at_fault(prepare: Prepare) -> None:
    good = data_url(encoded(COLOURS))
    assert told(prepare, {"10.image": good, "Photo.mask": "photo"}) == {"Photo.mask"}
    assert told(prepare, {"10.image": data_url(b"none"), "10.mask": good}) == {"10.image"}
    assert told(prepare, {"10.image": good, "10.mask": data_url(picture(size=(9, 9)))}) == {"10.mask"}
    assert told(prepare, {"10.image": data_url(animation(), "image/gif"), "10.mask": good}) == {"10.image"}


def test_a_mask_is_limited_as_an_image_is(prepare: Prepare) -> None:
    inputs = {"10.image": data_url(encoded(COLOURS)), "10.mask": data_url(picture(size=(100, 100)))}
    with pytest.raises(MissingAsset, match="MAX_INPUT_PIXELS") as caught:
        prepare(graph(), inputs, max_input_pixels=9_999)
    assert set(caught.value.details["inputs"]) == {"10.mask"}


def test_every_image_of_a_batch_arrives_and_the_broken_one_is_named(prepare: Prepare, folder: InputFolder) -> None:
    red, blue = picture("red"), picture("blue")
    result = prepare(graph(), {"10.image": [data_url(red), data_url(blue), data_url(red)]})
    assert [result[f"10.{number}"]["inputs"]["image"] for number in (1, 2, 3)] == [
        name_of(content) for content in (red, blue, red)
    ]
    assert folder.uploads == 2
    assert told(prepare, {"10.image": [data_url(red), "photo.png"]}) == {"10.image[1]"}


def test_a_node_without_a_mask_says_what_it_has(prepare: Prepare) -> None:
    with pytest.raises(InvalidWorkflow, match="has no input 'mask'"):
        prepare(graph(), {"11.mask": data_url(picture())})


def told(prepare: Prepare, inputs: dict[str, Any]) -> set[str]:
    with pytest.raises(ComfyError) as caught:
        prepare(graph(), inputs)
    assert caught.value.code == "missing_asset"
    return set(caught.value.details["inputs"])
