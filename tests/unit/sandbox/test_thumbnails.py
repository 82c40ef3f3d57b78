"""Thumbnails of pictures and of videos' first frames: what they look like, and what has none."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from comfy_serverless.sandbox import thumbnails
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.sandbox.thumbnails import LONGEST_SIDE
from tests.patience import PATIENCE_S, wait_until
from tests.unit.picture_files import (
    animation,
    jpeg_with_scans,
    picture,
    png_claiming,
    png_with,
    tiff_with_tiles,
    webp_claiming,
)
from tests.unit.sandbox import children

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)


#: The thumbnail of a picture, or of a video.
Make = Callable[..., Image.Image]


@pytest.fixture
def make(sandbox: Sandbox, tmp_path: Path) -> Make:
    def thumbnail(content: bytes, *, is_video: bool = False) -> Image.Image:
        path = tmp_path / "made"
        path.write_bytes(content)
        with path.open("rb") as file:
            webp = sandbox.make_thumbnail(
                file.fileno(),
                is_video=is_video,
                deadline=time.monotonic() + PATIENCE_S,
                turn="",
                owner="",
            )
        small = Image.open(io.BytesIO(webp))
        assert small.format == "WEBP"
        return small

    return thumbnail


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def halves(size: tuple[int, int] = (800, 400), mode: str = "RGB") -> Image.Image:
    """Red at the left, blue at the right."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def is_near(seen: object, meant: tuple[int, ...], within: int = 24) -> bool:
    assert isinstance(seen, tuple)
    return len(seen) == len(meant) and all(abs(a - b) <= within for a, b in zip(seen, meant, strict=True))


def video(
    container: str, codec: str, *, size: tuple[int, int] = (832, 480), pixels: str = "yuv420p", frames: int = 3
) -> bytes:
    """A video whose first frame is green, and whose others are blue."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        for number in range(frames):
            colours = np.full((size[1], size[0], 3), GREEN if number == 0 else BLUE, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(colours, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_picture_of_each_format_is_shrunk_to_the_longest_side(make: Make, image_format: str) -> None:
    small = make(encoded(halves(), image_format))
    assert small.size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert is_near(small.convert("RGB").getpixel((40, 90)), RED)
    assert is_near(small.convert("RGB").getpixel((340, 90)), BLUE)


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 6), (10, 6)), ((1, 1), (1, 1)), ((384, 1), (384, 1)), ((9000, 3), (384, 1))]
)
def test_nothing_is_enlarged_and_no_side_vanishes(make: Make, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert make(encoded(Image.new("RGB", size), "PNG")).size == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"])
def test_every_kind_of_pixels_is_shown(make: Make, mode: str) -> None:
    is_deep = mode.startswith("I")
    image = Image.new("I", (40, 30), 60_000).convert(mode) if is_deep else halves((40, 30), mode)
    small = make(encoded(image, "TIFF" if mode == "I" else "PNG"))
    assert small.size == (40, 30)
    if is_deep:  # and is not simply white
        grey = small.convert("L").getpixel((20, 15))
        assert isinstance(grey, int)
        assert 220 <= grey <= 245


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_a_jpeg_of_any_colours_is_shown_in_those_of_screens(make: Make, mode: str) -> None:
    assert make(encoded(halves(mode=mode), "JPEG")).mode == "RGB"


def test_what_is_transparent_stays_so(make: Make) -> None:
    image = Image.new("RGBA", (100, 100), (*RED, 255))
    image.paste((*RED, 0), (0, 0, 50, 100))
    small = make(encoded(image, "PNG"))
    assert small.mode == "RGBA"
    alpha = small.getchannel("A")
    assert (alpha.getpixel((10, 50)), alpha.getpixel((90, 50))) == (0, 255)
    by_palette = encoded(halves((40, 30)).quantize(2), "PNG", transparency=0)
    assert make(by_palette).mode == "RGBA"
    by_colour = encoded(halves((40, 30)), "PNG", transparency=RED)
    assert make(by_colour).mode == "RGBA"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(make: Make, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = make(encoded(halves(), "JPEG", exif=exif))
    wide = (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert small.size == (wide if orientation <= 4 else wide[::-1])
    red_is_first = orientation in (1, 4, 5, 6)
    assert is_near(small.getpixel((20, 20)), RED if red_is_first else BLUE)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_shown(make: Make, image_format: str) -> None:
    small = make(animation(image_format, 5))
    assert not getattr(small, "is_animated", False)
    assert is_near(small.convert("RGB").getpixel((50, 50)), (0, 0, 255))


def test_nothing_that_a_picture_says_of_itself_is_in_its_thumbnail(make: Make, tmp_path: Path) -> None:
    workflow = json.dumps({"3": {"class_type": "KSampler", "inputs": {"prompt": "a SECRET prompt"}}})
    told = PngImagePlugin.PngInfo()
    told.add_text("prompt", workflow)
    told.add_itxt("workflow", workflow, zip=False)
    exif = Image.Exif()
    exif[0x010E] = workflow
    samples = [
        encoded(halves(), "PNG", pnginfo=told, exif=exif, icc_profile=b"SECRET profile"),
        encoded(halves(), "JPEG", exif=exif, comment=b"SECRET"),
        encoded(halves(), "WEBP", exif=exif, xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>"),
        encoded(halves(), "GIF", comment=b"SECRET"),
    ]
    for sample in samples:
        assert b"SECRET" in sample
        small = make(sample)
        assert not small.getexif()
        assert set(small.info) <= {"loop", "background", "timestamp", "duration"}


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mp4", "mpeg4", "yuv420p"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("matroska", "ffv1", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
    ],
)
def test_of_a_video_the_first_frame_is_shown(make: Make, container: str, codec: str, pixels: str) -> None:
    small = make(video(container, codec, pixels=pixels), is_video=True)
    assert small.size == (384, 222)
    assert is_near(small.convert("RGB").getpixel((100, 100)), GREEN)


#: How each is made: a large one takes seconds.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a bomb of 900 million pixels": lambda: png_claiming(30_000, 30_000),
    "a bomb with its pixels": lambda: encoded(Image.new("1", (30_000, 30_000)), "PNG"),
    "just over the limit": lambda: png_claiming(10_001, 10_000),
    "a WebP that claims the most": lambda: webp_claiming(16_383, 16_383),
    "a BMP of two billion pixels": lambda: b"BM" + bytes(12) + b"(\0\0\0" + b"\xff\xff\xff\x7f" * 2 + bytes(60),
    "a TIFF whose tile is enormous": lambda: tiff_with_tiles(20_000),
    "a JPEG of endless segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000_000,
    "cut off": lambda: picture("PNG", (300, 300))[:2000],
    "a JPEG without its pixels": lambda: picture("JPEG", (300, 300))[:200],
    "an SVG": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "an SVG behind a mark": lambda: b"\xef\xbb\xbf  <svg onload='alert(1)'/>",
    "PostScript, which would start a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a script": lambda: b"#!/bin/sh\ntouch /tmp/x\n",
    "a web page": lambda: b"<!doctype html><img src=x onerror=alert(1)>",
    "nothing": lambda: b"",
    "a playlist": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
    "a list of files": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a DASH manifest": lambda: b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>',
    "a video's head alone": lambda: video("mp4", "mpeg4")[:40],
    "a Matroska of noise": lambda: b"\x1a\x45\xdf\xa3" + os.urandom(5000),
    "an AVI of noise": lambda: b"RIFF\xff\xff\xff\x7fAVI " + os.urandom(5000),
    "an MP4 of noise": lambda: b"\0\0\0\x18ftypmp42" + os.urandom(5000),
}


@functools.cache
def hostile(what: str) -> bytes:
    return HOSTILE[what]()


@pytest.mark.parametrize("is_video", [False, True], ids=["as a picture", "as a video"])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_picture_or_more_than_one_has_no_thumbnail_and_costs_no_later_one(
    make: Make, what: str, is_video: bool
) -> None:
    with pytest.raises(Refused):
        make(hostile(what), is_video=is_video)
    assert make(picture("PNG")).size == (40, 30)


def test_a_picture_that_is_a_web_page_too_becomes_a_picture_alone(make: Make, sandbox: Sandbox, tmp_path: Path) -> None:
    polyglot = png_with() + b"<script>alert(1)</script>PK\x03\x04"
    path = tmp_path / "polyglot.png"
    path.write_bytes(polyglot)
    with path.open("rb") as file:
        webp = sandbox.make_thumbnail(
            file.fileno(), is_video=False, deadline=time.monotonic() + PATIENCE_S, turn="", owner=""
        )
    assert webp.startswith(b"RIFF")
    assert b"script" not in webp
    assert b"PK" not in webp


def test_a_jpeg_of_many_scans_ends_within_its_processor_time(make: Make) -> None:
    with pytest.raises(Refused, match=r"processor time|decoded|damaged"):
        make(jpeg_with_scans((400, 400), 30_000))


def test_a_child_that_is_killed_amid_a_picture_is_replaced(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(picture("PNG"))
    with closing(Sandbox()) as sandbox:

        def ask() -> bytes:
            with good.open("rb") as file:
                until = time.monotonic() + PATIENCE_S
                return sandbox.make_thumbnail(file.fileno(), is_video=False, deadline=until, turn="", owner="")

        ask()
        (pid,) = children.idle(sandbox)
        os.kill(pid, signal.SIGSTOP)
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(ask()))
        thread.start()
        wait_until(lambda: not children.idle(sandbox))
        os.kill(pid, signal.SIGKILL)
        thread.join(PATIENCE_S)
        assert answers[0].startswith(b"RIFF")  # the next child has made it
        assert pid not in children.idle(sandbox)


def test_a_child_that_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(picture("PNG"))
    with closing(Sandbox()) as sandbox, good.open("rb") as file:
        sandbox.warm(owner="")
        (child,) = sandbox._pool._unused
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(Refused, match="before its time was over"):
            sandbox.make_thumbnail(file.fileno(), is_video=False, deadline=time.monotonic() + 0.2, turn="", owner="")
        assert not child.is_alive


def test_a_child_has_no_rights_and_goes_first_when_memory_is_short(make: Make, sandbox: Sandbox) -> None:
    make(picture("PNG"))
    (pid,) = children.idle(sandbox)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) & ~0b110 == 0
    assert int(status["CapPrm"], 16) & ~0b110 == 0
    assert status["NoNewPrivs"] == "1"
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert Path(f"/proc/{pid}/environ").read_bytes().count(b"=") <= 1  # LD_LIBRARY_PATH at most


def test_a_video_without_pyav_is_told_as_such(tmp_path: Path) -> None:
    code = (
        "import sys, io; sys.modules['av'] = None\n"
        "from comfy_serverless.sandbox.limits import Budget\n"
        "from comfy_serverless.sandbox.thumbnails import thumbnail\n"
        "try: thumbnail(io.BytesIO(b''), budget=Budget(), is_video=True)\n"
        "except Exception as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": "lambda"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "PyAV is not installed" in done.stdout


@pytest.mark.parametrize("asked", [{"threads": 1}, {}], ids=["as PyAV is now", "an older one, which knows no threads"])
def test_a_frame_is_converted_without_further_threads(asked: dict[str, int]) -> None:
    """A child of any user but root may start none: tests/e2e/test_thumbnails_image.py has such a one."""

    class Frame:
        width, height, rotation = 4, 4, 0

        def to_image(self, **options: int) -> Image.Image:
            if options != asked:
                raise TypeError(f"unexpected: {options}")
            return Image.new("RGB", (4, 4))

    assert thumbnails._of_frame(Frame()).size == (4, 4)  # type: ignore[arg-type]
