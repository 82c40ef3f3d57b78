"""The size of an image, from its header alone."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.pixels import size_in_pixels
from tests.unit.picture_files import (
    animation,
    behind_a_chunk,
    picture,
    png_chunk,
    png_with,
    tiff_with_tiles,
    webp_claiming,
)


def size(content: bytes) -> tuple[int, int] | None:
    return size_in_pixels(io.BytesIO(content))


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "icc_profile": b"x" * 200_000, "comment": b"y" * 60_000}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw", "big_tiff": False}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"icc_profile": b"x" * 100}),
        ("AVIF", {}),
        ("AVIF", {"exif": b"Exif\0\0" + Image.Exif().tobytes()}),
    ],
)
def test_the_size_is_the_one_that_pillow_reads(image_format: str, options: dict[str, Any]) -> None:
    for width, height in ((40, 30), (1, 1), (301, 257)):
        assert size(picture(image_format, (width, height), **options)) == (width, height)


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "WEBP", "TIFF", "AVIF", "MPO"])
def test_an_animation_has_the_size_of_its_frames(image_format: str) -> None:
    assert size(animation(image_format, 3, (64, 48))) == (64, 48)


def test_the_header_of_a_png_may_stand_behind_another_chunk() -> None:
    assert size(behind_a_chunk(picture("PNG"))) == (40, 30)
    assert size(picture("PNG")[:8] + png_chunk(b"teXt", b"") * 100_000) is None


def test_an_image_begins_where_the_file_stands() -> None:
    file = io.BytesIO(b"before" + picture("JPEG"))
    file.seek(6)
    assert size_in_pixels(file) == (40, 30)


def test_headers_that_are_huge_are_believed_and_cost_nothing() -> None:
    assert size(webp_claiming(16_000, 16_000)) == (16_000, 16_000)
    assert size(tiff_with_tiles(64)) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG",
        b"GIF89a",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"RIFF....WEBPVP9 " + bytes(40),
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff\xe0\0\2" * 1_000_000,
        b"\xff\xd8" + b"\xff" * 1_000_000,
        b"\0\0\0\x20ftypavif" + bytes(100),
        b"<svg/>",
    ],
)
def test_what_has_no_size_has_none(content: bytes) -> None:
    assert size(content) is None


def test_any_bytes_are_read_without_an_error() -> None:
    draw = random.Random(5)
    whole = [picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")] + [png_with()]
    for _ in range(3000):
        content = bytearray(draw.choice(whole)[: draw.randrange(200)])
        for _ in range(min(len(content), 5)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        found = size(bytes(content))
        assert found is None or min(found) > 0
