"""Checking that a file is an image ComfyUI can load."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.worker.inputs.images import check_image


def picture(image_format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    noise = random.Random(1).randbytes(size[0] * size[1] * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", size, noise).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def animation(image_format: str, frames: int, size: tuple[int, int] = (100, 100)) -> bytes:
    images = [Image.new("RGB", size, (index * 8, 0, 255 - index * 8)) for index in range(frames)]
    file = io.BytesIO()
    images[0].save(file, image_format, save_all=True, append_images=images[1:])
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def webp_claiming(width: int, height: int) -> bytes:
    content = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + b"\0" * 21
    chunk = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def check(tmp_path: Path, content: bytes, *, max_pixels: int = 1_000_000) -> str:
    path = tmp_path / "upload.exe"  # the name says nothing
    path.write_bytes(content)
    return check_image(path, max_pixels=max_pixels)


@pytest.mark.parametrize(
    ("image_format", "ending"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tiff")],
)
def test_the_content_decides_the_format(tmp_path: Path, image_format: str, ending: str) -> None:
    assert check(tmp_path, picture(image_format)) == ending


def test_avif_is_accepted_where_pillow_reads_it(tmp_path: Path) -> None:
    assert features.check("avif")
    assert check(tmp_path, picture("AVIF")) == ".avif"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_any_mode_of_a_png_is_accepted(tmp_path: Path, mode: str) -> None:
    source = "L" if mode == "I;16" else mode
    image = Image.open(io.BytesIO(picture("PNG", mode=source)))
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG")
    assert check(tmp_path, file.getvalue()) == ".png"


def test_cmyk_jpegs_are_accepted(tmp_path: Path) -> None:
    assert check(tmp_path, picture("JPEG", mode="CMYK")) == ".jpg"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated_images_are_refused(tmp_path: Path, image_format: str, kept: float) -> None:
    content = picture(image_format, (200, 200))
    with pytest.raises(Unusable, match=r"truncated or damaged|is not an image"):
        check(tmp_path, content[: int(len(content) * kept)])


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    content = bytearray(picture("PNG"))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(Unusable, match="truncated or damaged"):
        check(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "bomb", [png_claiming(50_000, 50_000), png_claiming(2**31 - 1, 2**31 - 1), webp_claiming(16_000, 16_000)]
)
def test_a_bomb_is_refused_by_its_header_before_anything_is_decoded(tmp_path: Path, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Unusable, match="pixels"):
            check(tmp_path, bomb, max_pixels=100_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_an_image_over_the_limit_is_told_its_size_and_the_limit(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"200 x 200; the limit is 30000 \(MAX_INPUT_PIXELS\)"):
        check(tmp_path, picture("PNG", (200, 200)), max_pixels=30_000)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_pixels_of_all_frames_count(tmp_path: Path, image_format: str) -> None:
    content = animation(image_format, 9)
    assert check(tmp_path, content, max_pixels=90_000)
    with pytest.raises(Unusable, match="over 9 frames"):
        check(tmp_path, content, max_pixels=89_999)


def test_frames_of_a_pixel_count_as_more(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="over 25 frames"):
        check(tmp_path, animation("TIFF", 30, (1, 1)), max_pixels=100_000)


def test_a_bomb_in_the_metadata_is_refused(tmp_path: Path) -> None:
    text = png_chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 50_000_000))
    with pytest.raises(Unusable):
        check(tmp_path, png_claiming(10, 10, text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"error": "no"}', "JSON"),
        (b"PK\x03\x04zip", "begins with 50 4b 03 04"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
        (b"P6 2 2 255\n" + b"x" * 12, "is not an image"),
    ],
)
def test_what_is_no_image_is_said_to_be_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        check(tmp_path, content)


def test_an_image_with_something_behind_it_is_the_image_it_is(tmp_path: Path) -> None:
    assert check(tmp_path, picture("GIF") + b"<script>alert(1)</script>PK\x05\x06") == ".gif"
