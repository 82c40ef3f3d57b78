"""Checking that a file is an image ComfyUI can load."""

from __future__ import annotations

import base64
import gzip
import io
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, features

from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S
from tests.unit.picture_files import (
    EMPTY_GIF_FRAME,
    GIF_FRAME,
    animated_png,
    animation,
    behind_a_chunk,
    bmp_of_runs,
    gif_heads,
    gif_of,
    interlaced_png,
    jpeg_with_scans,
    picture,
    png_chunk,
    png_claiming,
    png_with,
    tiff_of_jpegs,
    tiff_with_tiles,
    webp_claiming,
)

Check = Callable[..., str]


@pytest.fixture
def check(sandbox: Sandbox, tmp_path: Path) -> Check:
    def check(content: bytes, *, max_pixels: int = 1_000_000) -> str:
        path = tmp_path / "upload.exe"  # the name says nothing
        path.write_bytes(content)
        return sandbox.check_image(
            path, max_pixels=max_pixels, deadline=time.monotonic() + PATIENCE_S, turn="", owner=""
        )

    return check


@pytest.mark.parametrize(
    ("image_format", "ending"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tiff")],
)
def test_the_content_decides_the_format(check: Check, image_format: str, ending: str) -> None:
    assert check(picture(image_format)) == ending


def test_avif_is_accepted_where_pillow_reads_it(check: Check) -> None:
    assert features.check("avif")
    assert check(picture("AVIF")) == ".avif"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_any_mode_of_a_png_is_accepted(check: Check, mode: str) -> None:
    source = "L" if mode == "I;16" else mode
    image = Image.open(io.BytesIO(picture("PNG", mode=source)))
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG")
    assert check(file.getvalue()) == ".png"


def test_cmyk_jpegs_are_accepted(check: Check) -> None:
    assert check(picture("JPEG", mode="CMYK")) == ".jpg"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
def test_an_image_that_breaks_off_is_taken_as_comfyui_takes_it(check: Check, image_format: str, kept: float) -> None:
    content = picture(image_format, (200, 200))
    assert check(content[: int(len(content) * kept)])


@pytest.mark.parametrize("image_format", ["WEBP", "AVIF"])
def test_an_image_that_comfyui_cannot_open_is_refused_as_damaged(check: Check, image_format: str) -> None:
    content = picture(image_format, (200, 200))
    with pytest.raises(Refused, match="damaged"):
        check(content[: len(content) // 2])


def test_bits_that_are_wrong_are_the_pixels_that_comfyui_sees(check: Check) -> None:
    for options in ({"image_format": "PNG"}, {"image_format": "TIFF", "compression": "tiff_lzw"}):
        content = bytearray(picture(size=(200, 200), **options))
        content[len(content) // 2] ^= 0xFF
        assert check(bytes(content))


def test_a_length_beyond_the_end_takes_no_memory(check: Check) -> None:
    content = png_with()
    at = content.index(b"IDAT")
    assert check(content[: at - 4] + b"\x7f\xff\xff\xff" + content[at:]) == ".png"


def test_a_bmp_of_runs_may_leave_out_its_background(check: Check) -> None:
    assert check(bmp_of_runs(b"\x08\x05\0\0" * 4 + b"\0\1")) == ".bmp"
    assert check(bmp_of_runs(b"\x08\x05\0\0" + b"\0\2\1\1" + b"\x03\x09" + b"\0\1")) == ".bmp"
    with pytest.raises(Refused, match="12000 x 12000"):
        check(bmp_of_runs(b"\x08\x05\0\1", (12_000, 12_000)))


def test_a_jpeg_needs_no_end(check: Check) -> None:
    assert check(picture("JPEG")[:-2]) == ".jpg"


def test_of_the_two_images_of_a_camera_the_first_counts(check: Check) -> None:
    content = animation("MPO", 2)
    second = content.rindex(b"\xff\xd8\xff")
    for kept in (content, content[: second + 100], content[:second], content[:-2]):
        assert check(kept) == ".jpg"


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "TIFF"])
def test_an_animation_may_break_off_after_its_first_frame(check: Check, image_format: str) -> None:
    content = animation(image_format, 6)
    assert check(content[: int(len(content) * 0.7)])


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"x\0" + b"y" * 2_000_000),
        png_chunk(b"zTXt", b"x\0\0" + zlib.compress(b"y" * 2_000_000)),
        png_chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(b"y" * 2_000_000)),
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"y" * 2_000_000)),
        png_chunk(b"tEXt", b"x\0y")[:-4] + b"\1\2\3\4",
    ],
    ids=["text", "packed text", "international text", "profile", "checksum of a text"],
)
def test_metadata_may_be_long_and_wrong(check: Check, chunk: bytes) -> None:
    assert check(png_with(chunk)) == ".png"


@pytest.mark.parametrize(
    "bomb", [png_claiming(50_000, 50_000), png_claiming(2**31 - 1, 2**31 - 1), webp_claiming(16_000, 16_000)]
)
def test_a_bomb_is_refused_by_its_header(check: Check, bomb: bytes) -> None:
    with pytest.raises(Refused, match="pixels"):
        check(bomb, max_pixels=100_000_000)


@pytest.mark.parametrize(
    ("bomb", "told"),
    [
        (lambda: tiff_with_tiles(16384), "too many pixels: 16384 x 16384"),
        (lambda: tiff_with_tiles(8192, frames=20), "8192 x 8192, over 2 frames"),
        (lambda: tiff_with_tiles(1024, frames=200), "1024 x 1024, over 77 frames"),
        (lambda: jpeg_with_scans((64, 64), 2000), "has 2010 scans; the limit for a JPEG of its size is 100"),
        (lambda: jpeg_with_scans((64, 64), 2000, has_end=False), "has 2010 scans"),
        (lambda: jpeg_with_scans((3000, 3000), 300), "has 310 scans"),
        (lambda: picture("JPEG") + jpeg_with_scans((64, 64), 2000), "has 2010 scans"),
        (lambda: tiff_of_jpegs(jpeg_with_scans((64, 64), 2000), (64, 64)), "has 2010 scans"),
        (
            lambda: tiff_of_jpegs(jpeg_with_scans((512, 512), 40), (512, 512), strips=200),
            "has 50 scans; the limit .* 30",
        ),
        (
            lambda: gif_of(GIF_FRAME[:11] + b"\1x" * 1_000_001 + b"\0"),
            "too many pieces; the limit for a GIF is 1,000,000",
        ),
        (lambda: gif_of(GIF_FRAME[:11] + gif_heads(20_000) + b"\0"), "pieces; the limit for a GIF is 1,000,000"),
        (lambda: gif_of(b"\x21\xfe\0" * 600_000, GIF_FRAME), "too many pieces; the limit for a GIF is 1,000,000"),
        (lambda: png_with(png_chunk(b"tEXt", b"a\0b") * 250_000), "too many pieces; the limit for a PNG is 250,000"),
        (lambda: png_with() + b"\x89PNG\r\n\x1a\n" * 300 + png_chunk(b"aaAA", b"") * 250_000, "pieces; .* PNG"),
        (lambda: picture("JPEG")[:2] + b"\xff\xfe\0\2" * 250_001 + picture("JPEG")[2:], "too many pieces; .* JPEG"),
        (lambda: picture("JPEG") + b"\xff\xd8\xff" * 250_001, "too many pieces; the limit for a JPEG is 250,000"),
        (lambda: bmp_of_runs(b"\xff\0" * 4_000_001), "more than 4,000,000 runs"),
        (lambda: png_with() + png_claiming(30_000, 30_000), "several images one behind the other"),
        (
            lambda: png_with() + behind_a_chunk(png_claiming(30_000, 30_000), 1000),
            "several images one behind the other",
        ),
        (lambda: picture("WEBP") + webp_claiming(16_000, 16_000), "several images one behind the other"),
        (lambda: picture("BMP") * 20_000, "several images one behind the other"),
    ],
)
def test_what_costs_more_than_an_image_claims_is_refused_before_it_is_decoded(
    check: Check, bomb: Callable[[], bytes], told: str
) -> None:
    with pytest.raises(Refused, match=told):
        check(bomb(), max_pixels=80_000_000)


def test_a_tiff_of_jpegs_is_taken(check: Check) -> None:
    photo = picture("JPEG", (64, 64), progressive=True)
    assert check(tiff_of_jpegs(photo, (64, 64), strips=3)) == ".tiff"


def test_images_one_behind_the_other_count_together(check: Check) -> None:
    for image_format in ("JPEG", "PNG", "WEBP", "BMP"):
        content = picture(image_format, (100, 100)) * 3
        assert check(content, max_pixels=30_000)
        with pytest.raises(Refused, match="30000, several images one behind the other"):
            check(content, max_pixels=29_999)


def test_an_image_behind_the_first_counts_without_its_scan(check: Check) -> None:
    photo = picture("JPEG", (100, 100))
    headless = photo[: photo.index(b"\xff\xda")] + b"\xff\xd9"
    assert check(photo + headless * 2, max_pixels=30_000)
    with pytest.raises(Refused, match="30000, several images"):
        check(photo + headless * 2, max_pixels=29_999)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_header_of_an_image_is_known_with_any_components(check: Check, mode: str) -> None:
    photo = picture("JPEG", (100, 100), mode)
    with pytest.raises(Refused, match="20000, several images"):
        check(photo + photo, max_pixels=19_999)


#: A header of 65,535 x 65,535 pixels, of which one thing is not as decoders take it.
_NO_HEADERS = [
    b"\xff\xc0\0\x14\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0",
    b"\xff\xc0\0\x11\x11\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0",
    b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x01\0\x02\x11\0\x03\x11\0",
    b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x20\0\x03\x11\0",
    b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\x04",
    b"\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x70\0",
]


@pytest.mark.parametrize("like", _NO_HEADERS, ids=["length", "bits", "across", "down", "table", "gray"])
def test_what_looks_like_a_header_in_the_video_behind_a_photo_is_none(check: Check, like: bytes) -> None:
    """Phones write such files: megabytes of a video, in which any few bytes stand somewhere."""
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100) + like + bytes(100)
    assert check(picture("JPEG", (64, 64)) + video, max_pixels=4096) == ".jpg"


@pytest.mark.parametrize(
    "content",
    [
        picture("JPEG", (64, 64)) + picture("JPEG", (64, 64)).replace(b"\xff\xe0\0\x10", b"\xff\xe0\x2c\x10"),
        gif_of(GIF_FRAME.replace(b"\x02\x02\x44", b"\x02\x30\x44")) + gif_of(GIF_FRAME),
    ],
    ids=["segment", "block"],
)
def test_an_image_is_not_hidden_by_a_length_that_lies(check: Check, content: bytes) -> None:
    assert check(content, max_pixels=2 * 4096)
    with pytest.raises(Refused, match="several images"):
        check(content, max_pixels=2 * 4096 - 1)


def test_the_header_of_a_png_may_stand_behind_another_chunk(check: Check) -> None:
    assert check(behind_a_chunk(png_with())) == ".png"
    with pytest.raises(Refused, match="8192, several images one behind"):
        check(behind_a_chunk(png_with()) * 2, max_pixels=8191)


def test_an_interlaced_png_that_breaks_off_is_refused_with_what_is_wrong_with_it(check: Check) -> None:
    assert check(interlaced_png()) == ".png"
    with pytest.raises(Refused, match=r"damaged image: .*[Tt]runcated"):
        check(interlaced_png()[:-40])


def test_a_tile_may_be_larger_than_its_image(check: Check) -> None:
    assert check(tiff_with_tiles(256)) == ".tiff"


def test_pages_of_a_tiff_that_go_round_in_a_circle_end(check: Check) -> None:
    content = tiff_with_tiles(64)
    assert check(content[:-4] + content[4:8]) == ".tiff"


def test_an_image_over_the_limit_is_told_its_size_and_the_limit(check: Check) -> None:
    with pytest.raises(Refused, match=r"200 x 200; the limit is 30000 \(MAX_INPUT_PIXELS\)"):
        check(picture("PNG", (200, 200)), max_pixels=30_000)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_pixels_of_all_frames_count(check: Check, image_format: str) -> None:
    content = animation(image_format, 9)
    assert check(content, max_pixels=90_000)
    with pytest.raises(Refused, match="over 9 frames"):
        check(content, max_pixels=89_999)


@pytest.mark.parametrize(
    "content",
    [
        animated_png(6, claimed=2),
        animated_png(6, claimed=1),
        animated_png(6, second=77),
        gif_of(*[GIF_FRAME] * 6),
        gif_of(GIF_FRAME, EMPTY_GIF_FRAME, *[GIF_FRAME] * 4),
        gif_of(GIF_FRAME, b"\x21\xf9\1\0\0", *[GIF_FRAME] * 5),
        gif_of(GIF_FRAME, b"\x21\xfe\4more\0", *[GIF_FRAME] * 5),
        gif_of(GIF_FRAME) + gif_of(*[GIF_FRAME] * 5),
        gif_of(GIF_FRAME, b"junk") + b"junk" + gif_of(*[GIF_FRAME] * 5),
    ],
    ids=["more than claimed", "one claimed", "out of order", "gif", "empty", "short", "comment", "behind", "junk"],
)
def test_frames_count_that_pillow_does_not_get_to(check: Check, content: bytes) -> None:
    assert check(content, max_pixels=6 * 4096)
    with pytest.raises(Refused, match=r"too many pixels: .*limit is 24575"):
        check(content, max_pixels=6 * 4096 - 1)


def test_frames_of_a_pixel_count_as_more(check: Check) -> None:
    with pytest.raises(Refused, match="over 25 frames"):
        check(animation("TIFF", 30, (1, 1)), max_pixels=100_000)


def test_a_bomb_in_the_metadata_is_not_unpacked(check: Check) -> None:
    text = png_chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 50_000_000))
    assert check(png_with(text)) == ".png"
    with pytest.raises(Refused, match="text"):
        check(png_with(*[png_chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 1_000_000))] * 100))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"error": "no"}', "JSON"),
        (b"PK\x03\x04zip", "begins with 50 4b 03 04"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "it is a video"),
        (picture("PNG").decode("utf-8", "replace").encode(), "read or written as text"),
        (picture("JPEG").decode("utf-8", "replace").encode(), "read or written as text"),
        (picture("PNG").decode("latin-1").encode(), "read or written as text"),
        (picture("PNG").replace(b"\r\n", b"\n"), "read or written as text"),
        (base64.b64encode(picture("PNG")), "base64 text of a file"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64 text of a file"),
        (gzip.compress(picture("PNG")), "packed by gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"P6 2 2 255\n" + b"x" * 12, "PPM"),
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", r"HEIC .*Convert it to PNG or JPEG first"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic", "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"8BPS\0\1" + bytes(30), "Photoshop"),
        (picture("PCX"), "PCX. Convert it"),
        (picture("SGI"), "SGI. Convert it"),
        (picture("XBM", mode="1"), "XBM, XPM"),
        (picture("BLP", mode="P"), "BLP"),
        (b"\0\0\1\0\1\0\x10\x10" + bytes(30), "ICO"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"II\x2a\0\x10\0\0\0CR\2\0" + bytes(30), "header cannot be read"),
        (b"\0\0\2" + bytes(9) + b"\x08\0\x08\0\x18\0", "TGA"),
    ],
)
def test_what_is_no_image_is_said_to_be_what_it_is(check: Check, content: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        check(content)


def test_an_image_with_something_behind_it_is_the_image_it_is(check: Check) -> None:
    assert check(picture("GIF") + b"<script>alert(1)</script>PK\x05\x06") == ".gif"
