"""Makes the thumbnail of a picture, or of a video's first frame, as WebP. Runs in the child.

What a workflow made is as hostile as what somebody sent: the content decides what it is, formats and codecs are those
of a list, and what a header claims is counted before anything is decoded. Nothing but pixels goes into a thumbnail:
ComfyUI writes the whole workflow into its pictures, and a thumbnail is shown where the picture is not. So it has no
profile of colours either: they are those of sRGB.
"""

from __future__ import annotations

import base64
import io
import os
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from comfy_serverless.sandbox.colours import in_srgb
from comfy_serverless.sandbox.images import claimed_pixels, decoded_size, open_image, refusing
from comfy_serverless.sandbox.limits import Budget
from comfy_serverless.sandbox.masks import eight_bit
from comfy_serverless.sandbox.refused import Refused

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

#: The longest side of a thumbnail, in pixels.
LONGEST_SIDE = 384
#: A picture or a frame of more has no thumbnail: 100 million take seconds, and a bomb has more.
MAX_PIXELS = 100_000_000
_QUALITY = 80
#: WebP's encoder at its second fastest: a third of the time of the usual one, for a tenth more bytes.
_METHOD = 1
#: Beside the pixels of a frame: a decoder of video keeps some sixteen of them for reference, and tables.
_VIDEO_BYTES, _FRAMES_HELD, _VIDEO_CPU_S = 256 << 20, 20, 3.0
_MAX_FRAME_PIXELS = 36_000_000  # 8K
#: ComfyUI itself goes before us, where processors are few.
_NICENESS = 5
#: FFmpeg's readers by the first bytes of a file. Never one of playlists (HLS, DASH, concat), which open other files.
_READERS = (
    ("mov", lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    ("matroska", lambda head: head.startswith(b"\x1a\x45\xdf\xa3")),
    ("avi", lambda head: head.startswith(b"RIFF") and head[8:12] == b"AVI "),
)
#: What ComfyUI, its packs and FFmpeg write; the decoders of everything else stay shut.
_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "mjpeg", "prores", "ffv1", "png"}
)
_ORIENTATION = 0x0112
#: How a picture is turned upright, by EXIF's number.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def thumbnail(file: BinaryIO, *, budget: Budget, is_video: bool) -> str:
    """The thumbnail of an open file as WebP, in Base64.

    Raises Refused if the file is of no accepted format, damaged, or has too many pixels; or for a video without PyAV.
    """
    os.nice(max(0, _NICENESS - os.nice(0)))  # once
    with refusing(file, "cannot be decoded"):
        small = _of_video(file, budget) if is_video else _of_picture(file, budget)
        return base64.b64encode(_as_webp(small)).decode("ascii")


def _of_picture(file: BinaryIO, budget: Budget) -> Image.Image:
    """A picture, or the first frame of an animation, small and upright."""
    budget.add_file(file)
    budget.allow_pixels(min(claimed_pixels(file), MAX_PIXELS))  # WebP takes all its memory when it is opened
    with open_image(file) as image:
        width, height = decoded_size(image)
        _check_pixels(width, height, MAX_PIXELS)
        budget.allow_pixels(width * height)
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        image.draft(None, (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # JPEG alone: decoded at a half, a quarter, an eighth
        image.load()
        small = in_srgb(_shrunk(image), image.info.get("icc_profile"))
    return small if turn is None else small.transpose(turn)


def _of_video(file: BinaryIO, budget: Budget) -> Image.Image:
    """The first frame of a video, small and upright."""
    try:
        import av
    except ImportError as error:
        raise Refused("is a video, and PyAV is not installed here") from error
    head = file.read(16)
    file.seek(0)
    reader = next((name for name, fits in _READERS if fits(head)), None)
    if reader is None:
        raise Refused("is no video of a kind that is read: MP4, MOV, WebM, Matroska or AVI")
    budget.allow(memory_bytes=_VIDEO_BYTES, cpu_s=_VIDEO_CPU_S)
    with av.open(file, "r", format=reader, metadata_errors="ignore") as container:
        stream = next((one for one in container.streams.video if one.codec_context is not None), None)
        if stream is None or stream.codec_context.name not in _CODECS:
            raise Refused("has no video of a codec that is decoded")
        codec = stream.codec_context
        codec.thread_type, codec.thread_count = "NONE", 1  # the child may start no thread
        _check_pixels(codec.width, codec.height, _MAX_FRAME_PIXELS)
        budget.allow(memory_bytes=_VIDEO_BYTES + 4 * _FRAMES_HELD * codec.width * codec.height, cpu_s=_VIDEO_CPU_S)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise Refused("has no frame that can be decoded")
        return _of_frame(frame)


def _of_frame(frame: VideoFrame) -> Image.Image:
    _check_pixels(frame.width, frame.height, _MAX_FRAME_PIXELS)  # a stream may change its size
    small = _shrunk(_as_image(frame))
    turn = _TURNED.get(round(getattr(frame, "rotation", 0)) % 360)
    return small if turn is None else small.transpose(turn)


def _as_image(frame: VideoFrame) -> Image.Image:
    """A frame as Pillow's image, converted without further threads: the child of any user but root may start none."""
    try:
        image: Image.Image = frame.to_image(threads=1)  # type: ignore[no-untyped-call]
    except TypeError:  # an older PyAV, which starts none by itself
        image = frame.to_image()  # type: ignore[no-untyped-call]
    return image


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width <= 0 or height <= 0 or width * height > limit:
        raise Refused(f"has too many pixels for a thumbnail: {width} x {height}; the limit is {limit}")


def _shrunk(image: Image.Image) -> Image.Image:
    """A picture that fits, in colours or grey, with its alpha; never enlarged."""
    plain = eight_bit(image)
    if plain.mode not in ("L", "RGB", "RGBA"):
        plain = plain.convert("RGBA" if plain.has_transparency_data else "RGB")
    elif plain.mode != "RGBA" and "transparency" in plain.info:  # one colour stands for nothing
        plain = plain.convert("RGBA")
    plain.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return plain


def _as_webp(small: Image.Image) -> bytes:
    bare = Image.new(small.mode, small.size)  # nothing that the file says of itself: workflow, EXIF, profile
    bare.paste(small)
    written = io.BytesIO()
    bare.save(written, "WEBP", quality=_QUALITY, method=_METHOD)
    return written.getvalue()
