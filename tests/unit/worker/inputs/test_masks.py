"""Masks and batches on their way into ComfyUI's input folder: what is in the files, and what is said about mistakes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from comfy_serverless.errors import ComfyError, InvalidWorkflow, MissingAsset
from comfy_serverless.fetch.sources import Unusable, UnusableMask
from comfy_serverless.worker.inputs.masks import combine
from tests.unit.input_world import InputFolder, Prepare, data_url, graph, name_of, picture

Pixels = NDArray[np.uint8]
Combined = Callable[[Image.Image, Image.Image], Pixels]
GRAY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
COLOURS = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def combined(tmp_path: Path) -> Combined:
    def combined(image: Image.Image, mask: Image.Image, **options: Any) -> Pixels:
        image.save(tmp_path / "image.png", **options)
        mask.save(tmp_path / "mask.png")
        combine(tmp_path / "image.png", tmp_path / "mask.png", tmp_path / "target.png")
        with Image.open(tmp_path / "target.png") as target:
            assert (target.mode, target.info) == ("RGBA", {})
            return np.asarray(target)

    return combined


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class TestCombine:
    def test_white_is_masked_and_colours_stay_under_it(self, combined: Combined) -> None:
        made = combined(COLOURS, Image.new("L", (8, 8), 255))
        np.testing.assert_array_equal(made[..., :3], np.asarray(COLOURS))
        assert not made[..., 3].any()

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_an_opaque_mask_counts_by_its_brightness(self, combined: Combined, mode: str) -> None:
        np.testing.assert_array_equal(combined(COLOURS, GRAY.convert(mode))[..., 3], 255 - np.asarray(GRAY))

    def test_a_mask_of_black_and_white_or_of_a_palette_counts_by_its_brightness(self, combined: Combined) -> None:
        two_tone = GRAY.point(lambda value: 255 * (value > 100))
        for mask in (two_tone.convert("1"), two_tone.convert("P")):
            np.testing.assert_array_equal(combined(COLOURS, mask)[..., 3], 255 - np.asarray(two_tone))

    def test_a_mask_of_16_bits_has_all_its_shades(self, combined: Combined) -> None:
        deep = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)
        np.testing.assert_array_equal(combined(COLOURS, deep)[..., 3], 255 - np.asarray(GRAY))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_a_transparent_mask_is_masked_where_it_is_transparent(self, combined: Combined, mode: str) -> None:
        mask = Image.new(mode, (8, 8), "white")
        mask.putalpha(GRAY)
        np.testing.assert_array_equal(combined(COLOURS, mask)[..., 3], np.asarray(GRAY))

    def test_a_transparent_colour_of_a_palette_is_transparent(self, combined: Combined, tmp_path: Path) -> None:
        mask = Image.new("P", (8, 8), 1)
        mask.putpalette([0, 0, 0, 255, 255, 255])
        mask.putpixel((2, 3), 0)
        mask.save(tmp_path / "palette.png", transparency=0)
        with Image.open(tmp_path / "palette.png") as opened:
            alpha = combined(COLOURS, opened)[..., 3]
        assert alpha[3, 2] == 0
        assert alpha.sum() == 255 * 63

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK"])
    def test_the_colours_are_those_that_comfyui_sees(self, tmp_path: Path, mode: str) -> None:
        image = COLOURS.convert("L").convert(mode) if mode == "LA" else COLOURS.convert(mode)
        image.save(tmp_path / "image.tiff")
        GRAY.save(tmp_path / "mask.png")
        combine(tmp_path / "image.tiff", tmp_path / "mask.png", tmp_path / "target.png")
        with Image.open(tmp_path / "target.png") as target:
            np.testing.assert_array_equal(np.asarray(target.convert("RGB")), np.asarray(image.convert("RGB")))

    def test_both_are_turned_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        wide, mask = COLOURS.crop((0, 0, 8, 4)), GRAY.crop((0, 0, 8, 4))
        wide.save(tmp_path / "image.png", exif=exif)
        mask.save(tmp_path / "mask.png", exif=exif)
        combine(tmp_path / "image.png", tmp_path / "mask.png", tmp_path / "target.png")
        with Image.open(tmp_path / "target.png") as target:
            made = np.asarray(target)
        np.testing.assert_array_equal(made[..., :3], np.rot90(np.asarray(wide), -1))
        np.testing.assert_array_equal(made[..., 3], np.rot90(255 - np.asarray(mask), -1))

    def test_sizes_must_match(self, combined: Combined) -> None:
        with pytest.raises(UnusableMask, match="is 4 x 2 pixels, and its image is 8 x 8"):
            combined(COLOURS, Image.new("L", (4, 2)))

    def test_animations_have_no_place_for_a_mask(self, tmp_path: Path) -> None:
        (tmp_path / "moving.gif").write_bytes(animation())
        COLOURS.save(tmp_path / "still.png")
        moving, still, target = (tmp_path / name for name in ("moving.gif", "still.png", "target.png"))
        with pytest.raises(Unusable, match="has 2 frames: a mask can be put into a still image only"):
            combine(moving, still, target)
        with pytest.raises(UnusableMask, match="has 2 frames: a mask must be a still image"):
            combine(still, moving, target)


class TestPrepared:
    def test_image_and_mask_arrive_as_one_file(self, prepare: Prepare, folder: InputFolder) -> None:
        inputs = {"10.image": data_url(encoded(COLOURS)), "10.mask": data_url(encoded(GRAY))}
        result = prepare(graph(), inputs)
        assert result["10"]["inputs"].keys() == {"image"}
        [(name, content)] = folder.files.items()
        assert result["10"]["inputs"]["image"] == name == name_of(content)
        assert prepare(graph(), inputs) == result

    def test_an_image_that_comfyui_has_is_read_from_there(self, prepare: Prepare, folder: InputFolder) -> None:
        folder.files["mine/photo.png"] = encoded(COLOURS)
        result = prepare(graph(image="mine/photo.png [input]"), {"10.mask": data_url(encoded(GRAY))})
        made = folder.files[result["10"]["inputs"]["image"]]
        with Image.open(io.BytesIO(made)) as image:
            np.testing.assert_array_equal(np.asarray(image)[..., :3], np.asarray(COLOURS))

    @pytest.mark.parametrize("name", ["gone.png", "../secret.png", "/etc/hostname", "a/../../b.png", "..\\b.png"])
    @pytest.mark.parametrize("is_local", [False, True])
    def test_only_images_in_the_input_folder_are_read(
        self, prepare: Prepare, folder: InputFolder, tmp_path: Path, name: str, is_local: bool
    ) -> None:
        (tmp_path / "secret.png").write_bytes(picture())
        (tmp_path / "b.png").write_bytes(picture())
        if is_local:
            folder.input_directory = tmp_path / "input"
            folder.input_directory.mkdir()
        with pytest.raises(MissingAsset, match="ComfyUI's input folder") as caught:
            prepare(graph(image=name), {"10.mask": data_url(encoded(GRAY))})
        assert set(caught.value.details["inputs"]) == {"10.image"}

    def test_it_is_said_which_of_the_two_is_at_fault(self, prepare: Prepare) -> None:
        good = data_url(encoded(COLOURS))
        assert told(prepare, {"10.image": good, "Photo.mask": "photo"}) == {"Photo.mask"}
        assert told(prepare, {"10.image": data_url(b"none"), "10.mask": good}) == {"10.image"}
        assert told(prepare, {"10.image": good, "10.mask": data_url(picture(size=(9, 9)))}) == {"10.mask"}
        assert told(prepare, {"10.image": data_url(animation(), "image/gif"), "10.mask": good}) == {"10.image"}

    def test_a_mask_is_limited_as_an_image_is(self, prepare: Prepare) -> None:
        inputs = {"10.image": data_url(encoded(COLOURS)), "10.mask": data_url(picture(size=(100, 100)))}
        with pytest.raises(MissingAsset, match="MAX_INPUT_PIXELS") as caught:
            prepare(graph(), inputs, max_input_pixels=9_999)
        assert set(caught.value.details["inputs"]) == {"10.mask"}

    def test_every_image_of_a_batch_arrives_and_the_broken_one_is_named(
        self, prepare: Prepare, folder: InputFolder
    ) -> None:
        red, blue = picture("red"), picture("blue")
        result = prepare(graph(), {"10.image": [data_url(red), data_url(blue), data_url(red)]})
        assert [result[f"10.{number}"]["inputs"]["image"] for number in (1, 2, 3)] == [
            name_of(content) for content in (red, blue, red)
        ]
        assert folder.uploads == 2
        assert told(prepare, {"10.image": [data_url(red), "photo.png"]}) == {"10.image[1]"}

    def test_a_node_without_a_mask_says_what_it_has(self, prepare: Prepare) -> None:
        with pytest.raises(InvalidWorkflow, match="has no input 'mask'"):
            prepare(graph(), {"11.mask": data_url(picture())})


def told(prepare: Prepare, inputs: dict[str, Any]) -> set[str]:
    with pytest.raises(ComfyError) as caught:
        prepare(graph(), inputs)
    assert caught.value.code == "missing_asset"
    return set(caught.value.details["inputs"])
