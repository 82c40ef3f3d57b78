"""Checks that a file is an image ComfyUI can load, before ComfyUI sees it. Runs in the child.

The content decides, never the name. What a header claims is counted before anything is decoded; then the image is
decoded as ComfyUI's LoadImage does it, so that a file it cannot load is found here, with a message, and not in the
middle of a workflow. The check is no stricter than LoadImage (0.3.64 and 0.33.0, tests/contract/test_image_checks.py):
what is missing at the end of an image is gray, metadata may be damaged, and of an animation that breaks off the first
frame suffices (0.33.0 loads what is there).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from comfy_serverless.files import IMAGE_ENDINGS
from comfy_serverless.pixels import size_in_pixels
from comfy_serverless.sandbox.further import images_in, most_scans
from comfy_serverless.sandbox.limits import Budget
from comfy_serverless.sandbox.looks import looks_like
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.runs import Runs

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: The decoders of the accepted formats, which importing them has entered into Pillow's list. No other is loaded.
_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
#: Pillow finds out by itself whether a JPEG is an MPO; not every build can read AVIF.
FORMATS = tuple(name for name in IMAGE_ENDINGS if name in Image.OPEN and name != "MPO")
#: The least a frame counts for: a million frames of one pixel cost time too.
_MIN_FRAME_PIXELS = 4096
#: Scripts for libjpeg's encoder have 100 scans at most (MAX_SCANS of its rdswitch.c); 10 are usual.
_MAX_SCANS = 100
#: Each scan goes over all pixels, at a twentieth of what decoding costs: so many times the pixels that are allowed.
_MAX_SCANNED = 20
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_TIFF_COMPRESSION, _TIFF_JPEG = 259, (6, 7)

Image.register_decoder("bmp_rle", Runs)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the child may start no thread
warnings.simplefilter("ignore")


def check_image(file: BinaryIO, *, budget: Budget, max_pixels: int) -> str:
    """The file name ending for an image's real format.

    Raises Refused if the file is not an image of an accepted format, is too damaged for ComfyUI, or has more than
    `max_pixels` in all frames together. Pillow's own limit (about 179 million a frame) holds as well: ComfyUI could
    not open more either.
    """
    budget.add_file(file)
    pixels = _Pixels(max_pixels, budget)
    with refusing(file, "is a truncated or damaged image"):
        return _decode(file, pixels)


@contextmanager
def refusing(file: BinaryIO, because: str) -> Iterator[None]:
    """Turn what decoders raise for a file into Refused, which says `because` where nothing better is known."""
    try:
        yield
    except (Refused, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refused(f"has more pixels than can be opened: {error}") from error
    except UnidentifiedImageError as error:
        raise Refused(looks_like(file)) from error
    except Exception as error:  # decoders raise nearly anything for a damaged file
        raise Refused(f"{because}: {error or type(error).__name__}") from error


def open_image(file: BinaryIO) -> Image.Image:
    """An image of an accepted format. No other decoder ever sees a file of a stranger."""
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def claimed_pixels(file: BinaryIO) -> int:
    """The pixels that a file's header says it has; 0 for unknown formats."""
    file.seek(0)
    width, height = size_in_pixels(file) or (0, 0)
    return width * height


class _Pixels:
    """Counts what is decoded."""

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit = limit
        self._budget = budget
        self._total = self._frames = 0
        #: Of the JPEGs that are in a TIFF; None before anybody has looked.
        self._scans: int | None = None

    def add(self, image: Image.Image, file: BinaryIO) -> None:
        """Count the frame that is decoded next."""
        width, height = decoded_size(image)
        self._total += max(width * height, _MIN_FRAME_PIXELS)
        self._frames += 1
        if self._total > self._limit:
            raise Refused(
                f"has too many pixels: {width} x {height}"
                + (f", over {self._frames} frames" if self._frames > 1 else "")
                + f"; the limit is {self._limit} (MAX_INPUT_PIXELS)"
            )
        if image.format == "TIFF" and image.tag_v2.get(_TIFF_COMPRESSION) in _TIFF_JPEG:  # type: ignore[attr-defined]
            self._scans = most_scans(file) if self._scans is None else self._scans
            _check_scans(self._scans, self._total, self._limit)
        self._budget.allow_pixels(self._total)

    def expect(self, file: BinaryIO) -> None:
        """Make room for what a header says: WebP's decoder takes all its memory when a file is opened."""
        self._budget.allow_pixels(min(claimed_pixels(file), self._limit))

    def find_all(self, file: BinaryIO) -> Refused | None:
        """Why a file is refused for what Pillow does not look at; None if it is not.

        Raises Refused at once for what Pillow must not open.
        """
        total = 0
        for found in images_in(file):
            total += max(found.pixels, _MIN_FRAME_PIXELS) * found.frames
            if total > self._limit:
                several = f"over {found.frames} frames" if found.frames > 1 else "several images one behind the other"
                return Refused(
                    f"has too many pixels: {total}, {several}; the limit is {self._limit} (MAX_INPUT_PIXELS)"
                )
            _check_scans(found.scans, found.pixels, self._limit)
        return None


def _check_scans(scans: int, pixels: int, limit: int) -> None:
    if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED * limit:
        most = min(_MAX_SCANS, _MAX_SCANNED * limit // max(1, pixels))
        raise Refused(f"has {scans} scans; the limit for a JPEG of its size is {most}: save it as baseline JPEG")


def _decode(file: BinaryIO, pixels: _Pixels) -> str:
    pixels.expect(file)
    refused = pixels.find_all(file)
    image = _tolerantly(lambda: open_image(file))
    pixels.add(image, file)
    if refused is not None:
        raise refused
    _tolerantly(lambda: _load(image))
    try:
        _decode_more_frames(image, file, pixels)
    except (Refused, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # here 0.3.64 raises the same, and 0.33.0 takes the frames before it
        logger.debug("an animation breaks off", exc_info=True)
    return IMAGE_ENDINGS[str(image.format)]


def _decode_more_frames(image: Image.Image, file: BinaryIO, pixels: _Pixels) -> None:
    frame = 0
    while image.format != "MPO":  # the second image of a camera is seldom whole; 0.3.64 looks at the first alone
        frame += 1
        try:
            image.seek(frame)
        except EOFError:
            return
        pixels.add(image, file)
        _tolerantly(lambda: _load(image))


def _load(image: Image.Image) -> None:
    image.load()
    image.getexif()  # LoadImage turns photos upright


def _tolerantly(step: Callable[[], T]) -> T:
    """Take a step as LoadImage does: if the file is damaged once more, and then Pillow leaves out what is missing."""
    try:
        return step()
    except (Refused, MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        logger.debug("once more, tolerantly", exc_info=True)
        first = error
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return step()
    except TypeError as error:  # Pillow cannot decode an interlaced PNG once more, and says that
        raise first from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """The size of what is decoded for a frame. TIFF can have tiles that are larger than the image."""
    width, height = image.size
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = _padded(width, tags.get(_TILE_WIDTH)), _padded(height, tags.get(_TILE_HEIGHT))
    return width, height


def _padded(size: int, tile: object) -> int:
    return -(-size // tile) * tile if isinstance(tile, int) and tile > 0 else size
