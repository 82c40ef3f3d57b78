"""Nodes that write images to the output and temp folders, send them over the websocket, or show a value.

They give on what they were given; older releases declare no such output, and nothing can be linked to it.
"""

from __future__ import annotations

import json
import os
import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from comfy_lite.node import InputSpec, NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import IMAGE, METADATA
from comfy_lite.nodes.pixels import to_pillow
from comfy_lite.nodes.tensor_text import tensor_text

_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
_EXIF_MODEL = 0x0110


@dataclass(frozen=True, slots=True)
class SavePlace:
    """Where the next files of a `filename_prefix` go, by ComfyUI's rules for names and counters."""

    folder: Path
    subfolder: str
    name: str
    counter: int

    @classmethod
    def find(cls, folder: Path, prefix: str, *, width: int, height: int) -> SavePlace:
        """The place for a prefix, which may hold a subfolder and variables like `%width%`. Makes the subfolder.

        Raises an Exception if the prefix leads out of the folder.
        """
        prefix = os.path.normpath(_expand(prefix, width=width, height=height))
        subfolder, name = os.path.split(prefix)
        root = os.path.normpath(folder.absolute())
        target = Path(os.path.normpath(Path(root, subfolder)))
        if not target.is_relative_to(root):
            # Clients see the bare class: "exception_type": "Exception".
            raise Exception(  # noqa: TRY002
                f"Saving images outside the output folder is not allowed: {target} is not in {root}"
            )
        target.mkdir(parents=True, exist_ok=True)
        return cls(folder=target, subfolder=subfolder, name=name, counter=_next_counter(target, name))

    def file_name(self, offset: int, suffix: str) -> str:
        """The name of the file `offset` places after the first one."""
        return f"{self.name.replace('%batch_num%', str(offset))}_{self.counter + offset:05}_.{suffix}"


def _expand(prefix: str, *, width: int, height: int) -> str:
    now = time.localtime()
    variables = {
        "%width%": str(width),
        "%height%": str(height),
        "%year%": str(now.tm_year),
        "%month%": f"{now.tm_mon:02}",
        "%day%": f"{now.tm_mday:02}",
        "%hour%": f"{now.tm_hour:02}",
        "%minute%": f"{now.tm_min:02}",
        "%second%": f"{now.tm_sec:02}",
    }
    for variable, value in variables.items():
        prefix = prefix.replace(variable, value)
    return prefix


def _next_counter(folder: Path, name: str) -> int:
    """One more than the highest counter among the existing files `{name}_{counter}_...`."""
    highest = 0
    for entry in folder.iterdir():
        if entry.name.startswith(f"{name}_"):
            digits = entry.name[len(name) + 1 :].split("_")[0]
            highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1


def _place(folder: Path, prefix: str, images: Pixels) -> SavePlace:
    return SavePlace.find(folder, prefix, width=images.shape[2], height=images.shape[1])


def _metadata(context: NodeContext) -> list[tuple[str, str]]:
    """The metadata of files: the prompt, then everything the client sent to be kept (the editor's workflow)."""
    remembered = [("prompt", context.prompt)]
    if context.extra_pnginfo is not None:
        remembered += [(key, context.extra_pnginfo[key]) for key in context.extra_pnginfo]  # {} or [] hold nothing
    return [(key, json.dumps(value)) for key, value in remembered]


def _write_pngs(
    context: NodeContext, place: SavePlace, images: Pixels, *, compress_level: int, kind: str
) -> NodeResult:
    info = PngInfo()
    for key, text in _metadata(context):
        info.add_text(key, text)
    saved = []
    for number, image in enumerate(images):
        name = place.file_name(number, "png")
        to_pillow(image).save(place.folder / name, pnginfo=info, compress_level=compress_level)
        saved.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return NodeResult((images,), ui={"images": saved})


def _save_image(context: NodeContext, *, images: Pixels, filename_prefix: str) -> NodeResult:
    place = _place(context.directories.output, filename_prefix, images)
    return _write_pngs(context, place, images, compress_level=4, kind="output")


def _preview_image(context: NodeContext, *, images: Pixels) -> NodeResult:
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
    place = _place(context.directories.temp, f"ComfyUI_temp_{letters}", images)
    return _write_pngs(context, place, images, compress_level=1, kind="temp")


def _save_animated_webp(
    context: NodeContext,
    *,
    images: Pixels,
    filename_prefix: str,
    fps: float,
    lossless: bool,
    quality: int,
    method: str,
) -> NodeResult:
    place = _place(context.directories.output, filename_prefix, images)
    first, *others = [to_pillow(image) for image in images]
    exif = first.getexif()
    # The prompt goes to the tag "Model", everything else to the tags below it: "Make" and so on.
    for index, (key, text) in enumerate(_metadata(context)):
        exif[_EXIF_MODEL - index] = f"{key}:{text}"
    name = place.file_name(0, "webp")
    first.save(
        place.folder / name,
        save_all=True,
        append_images=others,
        duration=int(1000.0 / fps),
        exif=exif,
        lossless=lossless,
        quality=quality,
        method=_WEBP_METHODS[method],
    )
    return _animation(place, name, images, animated=bool(others))


def _save_animated_png(
    context: NodeContext,
    *,
    images: Pixels,
    filename_prefix: str,
    fps: float,
    compress_level: int,
) -> NodeResult:
    place = _place(context.directories.output, filename_prefix, images)
    first, *others = [to_pillow(image) for image in images]
    info = PngInfo()
    for key, text in _metadata(context):
        info.add(b"comf", f"{key}\0{text}".encode("latin-1"), after_idat=True)
    name = place.file_name(0, "png")
    first.save(
        place.folder / name,
        save_all=True,
        append_images=others,
        duration=int(1000.0 / fps),
        pnginfo=info,
        compress_level=compress_level,
    )
    return _animation(place, name, images, animated=True)


def _animation(place: SavePlace, name: str, images: Pixels, *, animated: bool) -> NodeResult:
    saved = {"filename": name, "subfolder": place.subfolder, "type": "output"}
    return NodeResult((images,), ui={"images": [saved], "animated": (animated,)})


def silent_if_still(execute: Callable[..., NodeResult]) -> Callable[..., NodeResult]:
    """A node that saves an animation, as in later releases: they say only of more than one picture that it moves."""

    def executed(context: NodeContext, *, images: Pixels, **inputs: object) -> NodeResult:
        result = execute(context, images=images, **inputs)
        if len(images) > 1 or result.ui is None:
            return result
        return replace(result, ui={"images": result.ui["images"]})

    return executed


def _save_websocket(context: NodeContext, *, images: Pixels) -> NodeResult:
    for step, image in enumerate(images):
        context.send_image(step, len(images), to_pillow(image))
    return NodeResult()


def _preview_any(_: NodeContext, *, source: object = None) -> NodeResult:
    return _shown_as_text(_as_text(source, indent=None, edge_items=3))


def preview_any(_: NodeContext, *, source: object = None) -> NodeResult:
    """PreviewAny of later releases: JSON on lines of its own, and more of a tensor."""
    return _shown_as_text(_as_text(source, indent=4, edge_items=6))


def _shown_as_text(text: str) -> NodeResult:
    return NodeResult((text,), ui={"text": (text,)})


def _as_text(value: object, *, indent: int | None, edge_items: int) -> str:
    if value is None or isinstance(value, (str, int, float)):
        return str(value)
    try:
        return json.dumps(value, indent=indent)
    except (TypeError, ValueError):
        return tensor_text(value, edge_items=edge_items) if isinstance(value, np.ndarray) else str(value)


def _time_of_call(*_: object, **__: object) -> float:
    """A fingerprint that always changes: the node runs each time."""
    return time.time()


def _prefix() -> InputSpec:
    return ("STRING", {"default": "ComfyUI"})


def _fps() -> InputSpec:
    return ("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01})


NODES = (
    NodeType(
        class_type="SaveImage",
        display_name="Save Image",
        category="image",
        execute=_save_image,
        required={"images": ("IMAGE", {}), "filename_prefix": _prefix()},
        hidden=METADATA,
        is_output=True,
    ),
    NodeType(
        class_type="PreviewImage",
        display_name="Preview Image",
        category="image",
        execute=_preview_image,
        required={"images": IMAGE},
        hidden=METADATA,
        is_output=True,
    ),
    NodeType(
        class_type="SaveAnimatedWEBP",
        display_name="SaveAnimatedWEBP",
        category="image/animation",
        execute=_save_animated_webp,
        required={
            "images": IMAGE,
            "filename_prefix": _prefix(),
            "fps": _fps(),
            "lossless": ("BOOLEAN", {"default": True}),
            "quality": ("INT", {"default": 80, "min": 0, "max": 100}),
            "method": (list(_WEBP_METHODS),),
        },
        hidden=METADATA,
        is_output=True,
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="SaveAnimatedPNG",
        display_name="SaveAnimatedPNG",
        category="image/animation",
        execute=_save_animated_png,
        required={
            "images": IMAGE,
            "filename_prefix": _prefix(),
            "fps": _fps(),
            "compress_level": ("INT", {"default": 4, "min": 0, "max": 9}),
        },
        hidden=METADATA,
        is_output=True,
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="SaveImageWebsocket",
        display_name="SaveImageWebsocket",
        category="api/image",
        execute=_save_websocket,
        required={"images": IMAGE},
        is_output=True,
        python_module="custom_nodes.websocket_image_save",
        fingerprint=_time_of_call,
    ),
    NodeType(
        class_type="PreviewAny",
        display_name="Preview Any",
        category="utils",
        execute=_preview_any,
        required={"source": ("*", {})},
        is_output=True,
        python_module="comfy_extras.nodes_preview_any",
    ),
)
