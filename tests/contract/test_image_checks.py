"""The check of images is no stricter than LoadImage: what the engine loads, it takes. Also against a real ComfyUI."""

from __future__ import annotations

import io
import os
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.contract.engines import free_port
from tests.patience import PATIENCE_S
from tests.unit.picture_files import (
    EMPTY_GIF_FRAME,
    GIF_FRAME,
    animated_png,
    animation,
    behind_a_chunk,
    bmp_of_runs,
    gif_of,
    interlaced_png,
    picture,
    png_chunk,
    png_with,
    tiff_of_jpegs,
    tiff_with_tiles,
)

REAL = bool(os.environ.get("COMFYUI_DIR"))
SIZE = (120, 90)
#: Those that 0.33.0 loads, and Pillow cannot read the header of: what they cost cannot be known before.
UNREADABLE = {"PNG whose header has a wrong checksum", "AVIF animation, cut"}


def damaged(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) * 3 // 5] ^= 0xFF
    return bytes(changed)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Whole, cut and damaged files of each kind that is taken."""
    made: dict[str, bytes] = {}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        whole = picture(kind, SIZE)
        made[kind] = whole
        made[f"{kind}, damaged"] = damaged(whole)
        made[f"{kind}, two"] = whole * 2
        made |= {f"{kind}, {percent} %": whole[: len(whole) * percent // 100] for percent in (1, 20, 50, 90, 99)}
    for kind in ("PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        whole = animation(kind, 4, SIZE)
        made[f"{kind} animation"] = whole
        made[f"{kind} animation, cut"] = whole[: len(whole) * 7 // 10]
    made["PNG of more frames than it claims"] = animated_png(4, claimed=1)
    made["PNG with a frame out of order"] = animated_png(4, second=77)
    made["GIF with an empty frame"] = gif_of(GIF_FRAME, EMPTY_GIF_FRAME, GIF_FRAME)
    made["GIF with a short extension"] = gif_of(GIF_FRAME, b"\x21\xf9\1\0\0", GIF_FRAME)
    made["GIF behind junk"] = gif_of(GIF_FRAME) + b"junk" + gif_of(GIF_FRAME)
    camera = animation("MPO", 2, SIZE)
    second = camera.rindex(b"\xff\xd8\xff")
    made["MPO"] = camera
    made["MPO, second image cut"] = camera[: second + 200]
    made["MPO, second image gone"] = camera[:second]
    made["MPO without its end"] = camera[:-2]
    made["BMP of runs that end early"] = bmp_of_runs(b"\x08\x05\0\0\0\2\1\1\x03\x09\0\1")
    for has_halves in (False, True):
        lines = b"".join(bytes([8, 16 * row + row, 0, 0]) for row in range(4)) + b"\0\1"
        made[f"BMP of runs, {4 + 4 * (not has_halves)} bits"] = bmp_of_runs(lines, has_halves=has_halves)
    photo = picture("JPEG", SIZE)
    scans = picture("JPEG", (64, 64), progressive=True)
    made["TIFF of progressive JPEGs"] = tiff_of_jpegs(scans, (64, 64), strips=3)
    made["GIF of small blocks"] = gif_of(GIF_FRAME, *[b"\x21\xfe" + b"\1x" * 2000 + b"\0"] * 20, GIF_FRAME)
    made["PNG of many chunks"] = png_with(*[png_chunk(b"tEXt", b"a\0b")] * 20_000)
    made["JPEG of many segments"] = photo[:2] + b"\xff\xfe\0\3x" * 20_000 + photo[2:]
    made["JPEG without its end"] = photo[:-2]
    made["JPEG with more behind it"] = photo + b"more" * 500
    made["progressive JPEG"] = picture("JPEG", SIZE, progressive=True)
    made["CMYK JPEG"] = picture("JPEG", SIZE, mode="CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    made["turned JPEG"] = picture("JPEG", SIZE, exif=exif)
    made["JPEG with broken EXIF"] = picture("JPEG", SIZE, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1\x12" * 30)
    packed = zlib.compress(b"y" * 2_000_000)
    made["PNG with much text"] = png_with(png_chunk(b"tEXt", b"x\0" + b"y" * 2_000_000))
    made["PNG with much packed text"] = png_with(png_chunk(b"zTXt", b"x\0\0" + packed))
    made["PNG with much international text"] = png_with(png_chunk(b"iTXt", b"x\0\1\0\0\0" + packed))
    made["PNG with a large profile"] = png_with(png_chunk(b"iCCP", b"x\0\0" + packed))
    made["PNG with a wrong checksum in a text"] = png_with(png_chunk(b"tEXt", b"x\0y")[:-4] + b"\1\2\3\4")
    made["PNG whose header has a wrong checksum"] = png_with()[:29] + b"\0\0\0\0" + png_with()[33:]
    made["PNG with broken EXIF"] = png_with(png_chunk(b"eXIf", b"junk" * 10))
    made["PNG with a chunk before its header"] = behind_a_chunk(png_with())
    made["interlaced PNG"] = interlaced_png()
    made["interlaced PNG, cut"] = interlaced_png()[:-40]
    made["PNG whose pixels claim 2 GB"] = png_with().replace(b"\0\0\0\x10IDAT", b"\x7f\xff\xff\xffIDAT")
    made["PNG without its end"] = png_with()[:-12]
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        made[f"PNG, {mode}"] = saved(Image.new(mode, SIZE), "PNG")
    for mode in ("F", "I", "CMYK", "LAB"):
        made[f"TIFF, {mode}"] = saved(Image.new(mode, SIZE), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        made[f"TIFF, {compression}, damaged"] = damaged(picture("TIFF", SIZE, compression=compression))
    made["TIFF with a tile larger than itself"] = tiff_with_tiles(256)
    two_sizes = Image.new("RGB", SIZE)
    made["TIFF of two sizes"] = saved(two_sizes, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    return made


FILES = files()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    folder = tmp_path_factory.mktemp("engine")
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL:
        for name in ("input", "output"):
            (folder / name).mkdir()
        folders = f"--input-directory {folder}/input --output-directory {folder}/output --temp-directory {folder}"
        settings = replace(settings, comfyui_args=f"--cpu {folders}")
    else:
        settings = replace(settings, api_command_line=f"{sys.executable} -m comfy_lite --base-directory {folder}")
    connector = ComfyConnector(settings=settings)
    yield connector
    connector.kill_api()


def graph(image: str) -> dict[str, object]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def refusal(sandbox: Sandbox, path: Path) -> str:
    try:
        sandbox.check_image(path, max_pixels=1_000_000, deadline=time.monotonic() + PATIENCE_S, turn="", owner="")
    except Refused as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("name", FILES)
def test_what_the_engine_loads_is_taken(sandbox: Sandbox, connector: ComfyConnector, tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[name])
    refused = refusal(sandbox, path)
    value = connector.upload_file(path, f"{list(FILES).index(name)}.png", overwrite=True)
    try:
        loaded = bool(connector.run(graph(value), deadline_s=PATIENCE_S).outputs)
    except NodeExecutionError:
        loaded = False
    if name in UNREADABLE:
        assert refused
    elif loaded:
        assert not refused
    else:
        assert not name.endswith(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "animation")), "it is whole"
