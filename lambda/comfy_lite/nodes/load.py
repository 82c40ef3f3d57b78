"""LoadImage and LoadImageMask: files of the input folder, or of the output and temp folders if annotated."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, ImageSequence

from comfy_lite.node import Directories, InputSpec, NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.pixels import from_pillow

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")

_CHANNELS = ("alpha", "red", "green", "blue")
#: The size of the empty mask of an image without alpha.
_NO_MASK = (64, 64)


def resolve(directories: Directories, name: str) -> Path | None:
    """The file that an annotated name means ("photo.png", "a/b.png [output]"); None if it lies outside its folder."""
    folder = directories.input
    for annotation, annotated in (
        ("[output]", directories.output),
        ("[input]", directories.input),
        ("[temp]", directories.temp),
    ):
        if name.endswith(annotation):
            folder, name = annotated, name[: -len(annotation) - 1]
            break
    # ComfyUI 0.3.64 would read any file on the machine here; later releases do not, and neither do we.
    path = os.path.normpath(folder / name)
    return Path(path) if Path(path).is_relative_to(os.path.normpath(folder)) else None


def _validate(directories: Directories, image: str) -> str | None:
    path = resolve(directories, image)
    return None if path is not None and path.exists() else f"Invalid image file: {image}"


def _fingerprint(directories: Directories, image: str, **_: object) -> str:
    with _existing(directories, image).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(directories: Directories, name: str) -> Path:
    path = resolve(directories, name)
    if path is None:
        raise FileNotFoundError(f"not in its folder: {name}")
    return path


def _load_image(context: NodeContext, *, image: str) -> NodeResult:
    images: list[Pixels] = []
    masks: list[Pixels] = []
    with _forgiving(Image.open, _existing(context.directories, image)) as picture:
        for frame in ImageSequence.Iterator(picture):
            upright = _eight_bit(_forgiving(ImageOps.exif_transpose, frame))
            pixels = from_pillow(upright.convert("RGB"))
            if not images or pixels.shape == images[0].shape:
                images.append(pixels)
                masks.append(_mask_of(upright))
        # The further images of an MPO file (one per lens) are not animation frames.
        count = 1 if picture.format == "MPO" else len(images)
    return NodeResult((np.stack(images[:count]), np.stack(masks[:count])))


def _load_mask(context: NodeContext, *, image: str, channel: str) -> NodeResult:
    with _forgiving(Image.open, _existing(context.directories, image)) as picture:
        upright = _eight_bit(_forgiving(ImageOps.exif_transpose, picture)).convert("RGBA")
    mask = from_pillow(upright.getchannel(channel[0].upper()))
    return NodeResult(((1.0 - mask if channel == "alpha" else mask)[np.newaxis],))


def load_mask(context: NodeContext, *, image: str, channel: str) -> NodeResult:
    """LoadImageMask of later releases: without an alpha channel the mask is that of an image without one."""
    if channel == "alpha":
        with _forgiving(Image.open, _existing(context.directories, image)) as picture:
            if not picture.has_transparency_data:
                return NodeResult((np.zeros((1, *_NO_MASK), np.float32),))
    return _load_mask(context, image=image, channel=channel)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """The image; if it has 32-bit integers, its values are divided by 255, as ComfyUI does."""
    return picture.point(lambda value: value * (1 / 255)) if picture.mode == "I" else picture


def _mask_of(picture: Image.Image) -> Pixels:
    """1 where the image is transparent."""
    if "A" in picture.getbands():
        return 1.0 - from_pillow(picture.getchannel("A"))
    if picture.mode == "P" and "transparency" in picture.info:
        return 1.0 - from_pillow(picture.convert("RGBA").getchannel("A"))
    return np.zeros(_NO_MASK, np.float32)


def _forgiving(function: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
    """Call a Pillow function; if it fails, call it once more with truncated files allowed."""
    try:
        return function(argument)
    except (OSError, ValueError):
        with _truncated_images_allowed():
            return function(argument)


@contextmanager
def _truncated_images_allowed() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # Pillow offers no other way to ask for it
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _files(directories: Directories) -> list[str]:
    if not directories.input.is_dir():
        return []
    return sorted(entry.name for entry in directories.input.iterdir() if entry.is_file())


def _is_image(name: str) -> bool:
    guess, _ = mimetypes.guess_type(name, strict=False)
    return (guess or "").startswith("image/")


def _image_inputs(directories: Directories) -> Mapping[str, InputSpec]:
    return {"image": ([name for name in _files(directories) if _is_image(name)], {"image_upload": True})}


def mask_inputs(directories: Directories) -> Mapping[str, InputSpec]:
    """The inputs of LoadImageMask of later releases, which offers images only."""
    return {**_image_inputs(directories), "channel": (list(_CHANNELS),)}


def _mask_inputs(directories: Directories) -> Mapping[str, InputSpec]:
    return {"image": (_files(directories), {"image_upload": True}), "channel": (list(_CHANNELS),)}


NODES = (
    NodeType(
        class_type="LoadImage",
        display_name="Load Image",
        category="image",
        execute=_load_image,
        required=_image_inputs,
        returns=("IMAGE", "MASK"),
        fingerprint=_fingerprint,
        validate=_validate,
    ),
    NodeType(
        class_type="LoadImageMask",
        display_name="Load Image (as Mask)",
        category="mask",
        execute=_load_mask,
        required=_mask_inputs,
        returns=("MASK",),
        fingerprint=_fingerprint,
        validate=_validate,
    ),
)
