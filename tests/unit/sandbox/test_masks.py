"""A mask in the alpha of an image: which pixels the file has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from comfy_serverless.sandbox.refused import MaskRefused, Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S
from tests.unit.picture_files import animation

Pixels = NDArray[np.uint8]
Combine = Callable[[str, str], None]
Combined = Callable[[Image.Image, Image.Image], Pixels]
GRAY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
COLOURS = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def combine(sandbox: Sandbox, tmp_path: Path) -> Combine:
    def combine(image: str, mask: str) -> None:
        target = tmp_path / "target.png"
        deadline = time.monotonic() + PATIENCE_S
        sandbox.combine_mask(tmp_path / image, tmp_path / mask, target, deadline=deadline, turn="", owner="")

    return combine


@pytest.fixture
def combined(combine: Combine, tmp_path: Path) -> Combined:
    def combined(image: Image.Image, mask: Image.Image, **options: Any) -> Pixels:
        image.save(tmp_path / "image.png", **options)
        mask.save(tmp_path / "mask.png")
        combine("image.png", "mask.png")
        with Image.open(tmp_path / "target.png") as target:
            assert (target.mode, target.info) == ("RGBA", {})
            return np.asarray(target)

    return combined


def test_white_is_masked_and_colours_stay_under_it(combined: Combined) -> None:
    made = combined(COLOURS, Image.new("L", (8, 8), 255))
    np.testing.assert_array_equal(made[..., :3], np.asarray(COLOURS))
    assert not made[..., 3].any()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_an_opaque_mask_counts_by_its_brightness(combined: Combined, mode: str) -> None:
    np.testing.assert_array_equal(combined(COLOURS, GRAY.convert(mode))[..., 3], 255 - np.asarray(GRAY))


def test_a_mask_of_black_and_white_or_of_a_palette_counts_by_its_brightness(combined: Combined) -> None:
    two_tone = GRAY.point(lambda value: 255 * (value > 100))
    for mask in (two_tone.convert("1"), two_tone.convert("P")):
        np.testing.assert_array_equal(combined(COLOURS, mask)[..., 3], 255 - np.asarray(two_tone))


def test_a_mask_of_16_bits_has_all_its_shades(combined: Combined) -> None:
    deep = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)
    np.testing.assert_array_equal(combined(COLOURS, deep)[..., 3], 255 - np.asarray(GRAY))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_transparent_mask_is_masked_where_it_is_transparent(combined: Combined, mode: str) -> None:
    mask = Image.new(mode, (8, 8), "white")
    mask.putalpha(GRAY)
    np.testing.assert_array_equal(combined(COLOURS, mask)[..., 3], np.asarray(GRAY))


def test_a_transparent_colour_of_a_palette_is_transparent(combined: Combined, tmp_path: Path) -> None:
    mask = Image.new("P", (8, 8), 1)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    mask.putpixel((2, 3), 0)
    mask.save(tmp_path / "palette.png", transparency=0)
    with Image.open(tmp_path / "palette.png") as opened:
        alpha = combined(COLOURS, opened)[..., 3]
    assert alpha[3, 2] == 0
    assert alpha.sum() == 255 * 63


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK"])
def test_the_colours_are_those_that_comfyui_sees(combine: Combine, tmp_path: Path, mode: str) -> None:
    image = COLOURS.convert("L").convert(mode) if mode == "LA" else COLOURS.convert(mode)
    image.save(tmp_path / "image.tiff")
    GRAY.save(tmp_path / "mask.png")
    combine("image.tiff", "mask.png")
    with Image.open(tmp_path / "target.png") as target:
        np.testing.assert_array_equal(np.asarray(target.convert("RGB")), np.asarray(image.convert("RGB")))


def test_both_are_turned_upright(combine: Combine, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide, mask = COLOURS.crop((0, 0, 8, 4)), GRAY.crop((0, 0, 8, 4))
    wide.save(tmp_path / "image.png", exif=exif)
    mask.save(tmp_path / "mask.png", exif=exif)
    combine("image.png", "mask.png")
    with Image.open(tmp_path / "target.png") as target:
        made = np.asarray(target)
    np.testing.assert_array_equal(made[..., :3], np.rot90(np.asarray(wide), -1))
    np.testing.assert_array_equal(made[..., 3], np.rot90(255 - np.asarray(mask), -1))


def test_sizes_must_match(combined: Combined) -> None:
    with pytest.raises(MaskRefused, match="is 4 x 2 pixels, and its image is 8 x 8"):
        combined(COLOURS, Image.new("L", (4, 2)))


def test_animations_have_no_place_for_a_mask(combine: Combine, tmp_path: Path) -> None:
    (tmp_path / "moving.gif").write_bytes(animation("GIF", 2, (8, 8)))
    COLOURS.save(tmp_path / "still.png")
    with pytest.raises(Refused, match="has 2 frames: a mask can be put into a still image only"):
        combine("moving.gif", "still.png")
    with pytest.raises(MaskRefused, match="has 2 frames: a mask must be a still image"):
        combine("still.png", "moving.gif")
