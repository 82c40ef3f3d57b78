"""Records a real ComfyUI's results of the node cases, for the tests to compare with.

    python -m tests.contract.record_nodes http://127.0.0.1:8188

The ComfyUI must be fresh: file names count from the content of its output folder. With `--inputs` in place of the
address, the input pictures are redrawn instead (needed only when one is added; the recordings follow from them).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image, ImageSequence

from tests.contract.node_cases import CASES, DATA, FIRST_RELEASE, INPUTS
from tests.contract.node_runners import Expectations, HttpRunner, Result, difference

#: ComfyUI's own prose and what its editor searches by, which are not compared.
_PROSE = ("tooltip", "output_tooltips", "description", "search_aliases", "essentials_category")


def record(url: str) -> None:
    runner, release = HttpRunner(url), version_of(url)
    first = None if release == FIRST_RELEASE else Expectations()
    arrays: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for case in CASES:
        result = runner.run(case)
        if first is not None and not differs(result, first.of(case)):
            continue
        results[case.name] = result.as_json()
        arrays |= {f"{case.name}#{index}": image for index, image in enumerate(result.images)}
    text = json.dumps(results, indent=0, ensure_ascii=False) + "\n"
    (DATA / f"expected-{release}.json").write_text(text)
    np.savez_compressed(DATA / f"expected-{release}.npz", **arrays)


def differs(result: Result, first: Result) -> bool:
    """Whether a later release makes something else of a case than the first one."""
    try:
        return difference(result, first, "") > 1
    except AssertionError:
        return True


def version_of(url: str) -> str:
    return str(requests.get(f"{url}/system_stats").json()["system"]["comfyui_version"])


def record_object_info(url: str, nodes: list[str]) -> None:
    everything = requests.get(f"{url}/object_info").json()
    known = {name: without_prose(everything[name]) for name in nodes}
    for name in ("LoadImage", "LoadImageMask"):
        known[name]["input"]["required"]["image"][0] = []
    (DATA / f"object_info-{version_of(url)}.json").write_text(json.dumps(known, indent=1) + "\n")


def without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_prose(item) for key, item in value.items() if key not in _PROSE}
    return [without_prose(item) for item in value] if isinstance(value, list) else value


def draw_inputs(folder: Path) -> None:
    """Pictures of all modes and formats that matter to loading, and some that matter to filters."""
    random = np.random.default_rng(64)
    noise = random.integers(0, 256, (17, 24, 4), dtype=np.uint8)
    rows, columns = np.mgrid[0:17, 0:24]
    ramp = np.stack([rows * 15, columns * 11, (rows * columns) % 256, 255 - columns * 10], axis=2).astype(np.uint8)
    alpha = Image.fromarray(ramp)
    opaque = Image.fromarray(noise[..., :3])
    opaque.save(folder / "rgb.png")
    alpha.save(folder / "rgba.png")
    Image.fromarray(noise).save(folder / "rgba_noise.tif")
    Image.fromarray(noise[::-1, ::-1, 2::-1] // 2 + 60).save(folder / "other.png")
    Image.fromarray(np.where(noise[..., :3] > 200, 255, 0).astype(np.uint8)).save(folder / "edges.png")
    Image.new("RGB", (24, 17), (201, 77, 13)).save(folder / "flat.png")
    Image.fromarray(random.integers(0, 256, (9, 40, 3), dtype=np.uint8)).save(folder / "wide.png")
    Image.fromarray(random.integers(0, 256, (37, 11, 3), dtype=np.uint8)).save(folder / "tall.png")
    grey = Image.fromarray(ramp[..., 2])
    grey.save(folder / "grey.png")
    Image.merge("LA", (grey, alpha.getchannel("A"))).save(folder / "grey_alpha.png")
    Image.fromarray((rows * 3855 + columns * 40).astype(np.uint16)).save(folder / "grey_16.png")
    Image.fromarray((rows * 4000 + columns * 50).astype(np.int32)).save(folder / "grey_32.tif")
    Image.fromarray((rows / 16 * 255).astype(np.float32)).save(folder / "grey_float.tif")
    grey.convert("1").save(folder / "one_bit.png")
    opaque.convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    palette = opaque.quantize(17)
    palette.save(folder / "palette.png")
    palette.save(folder / "palette_transparent.png", transparency=bytes(range(0, 255, 15)))
    palette.save(folder / "palette_one_transparent.png", transparency=3)
    opaque.save(folder / "rgb_transparent_color.png", transparency=opaque.getpixel((2, 2)))
    opaque.save(folder / "plain.bmp")
    y, x = np.mgrid[0:34, 0:50]
    photo = np.stack([128 + 90 * np.sin(x / 5 + y / 12), 5 * x, 128 + 100 * np.cos(y / 4)], axis=2)
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / "photo.jpg", quality=92)
    for orientation, name in ((6, "rotated.jpg"), (5, "transposed.jpg"), (3, "upside_down.jpg")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        opaque.save(folder / name, quality=90, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 8
    alpha.save(folder / "rotated_alpha.png", exif=exif)
    frames = [alpha, Image.fromarray(np.flip(ramp, 1)), Image.fromarray(np.flip(ramp, 0))]
    opaque_frames = [frame.convert("RGB") for frame in frames]
    opaque_frames[0].save(folder / "animated.gif", save_all=True, append_images=opaque_frames[1:], duration=90)
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:], duration=90)
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    pages = [opaque, Image.new("RGB", (30, 30), "red"), opaque.rotate(180)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    opaque_frames[0].save(folder / "two_lenses.mpo", save_all=True, append_images=opaque_frames[1:])
    for source, name in (("rgb.png", "truncated.png"), ("photo.jpg", "truncated.jpg")):
        data = (folder / source).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])
    for path in folder.iterdir():
        _check(path)


def _check(path: Path) -> None:
    if not path.name.startswith("truncated"):
        with Image.open(path) as picture:
            print(path.name, picture.format, picture.mode, len(list(ImageSequence.Iterator(picture))))


if __name__ == "__main__":
    if sys.argv[1] == "--inputs":
        INPUTS.mkdir(parents=True, exist_ok=True)
        draw_inputs(INPUTS)
    else:
        from comfy_lite.nodes import ALL

        record(sys.argv[1])
        record_object_info(sys.argv[1], list(ALL))
