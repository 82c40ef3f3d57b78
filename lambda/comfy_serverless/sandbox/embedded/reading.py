"""Reads a file of any format that may carry a workflow. The content decides which one it is, never the name."""

from __future__ import annotations

from collections.abc import Callable

from comfy_serverless.sandbox.embedded.choice import INSTEAD, Embedded, chosen
from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.headers import GLB, find_in_glb, find_in_safetensors, is_safetensors
from comfy_serverless.sandbox.embedded.id3 import HEAD as ID3
from comfy_serverless.sandbox.embedded.id3 import find_in_id3, length_of_id3
from comfy_serverless.sandbox.embedded.iso import MARK as ISO
from comfy_serverless.sandbox.embedded.iso import OLD_MARKS, find_in_iso
from comfy_serverless.sandbox.embedded.jpeg import find_in_jpeg
from comfy_serverless.sandbox.embedded.markup import find_in_svg, is_svg
from comfy_serverless.sandbox.embedded.matroska import HEAD as MATROSKA
from comfy_serverless.sandbox.embedded.matroska import find_in_matroska
from comfy_serverless.sandbox.embedded.png import HEAD as PNG
from comfy_serverless.sandbox.embedded.png import find_in_png
from comfy_serverless.sandbox.embedded.riff import find_in_riff
from comfy_serverless.sandbox.embedded.vorbis import FLAC, OGG, find_in_flac, find_in_ogg
from comfy_serverless.sandbox.embedded.window import Missing, Window
from comfy_serverless.sandbox.refused import Refused

#: As much of the beginning shows whether a file may carry a workflow: an SVG may have a preamble.
HEAD_BYTES = 4096

_Reader = Callable[[Window, Finds], None]


def _is_bare_mp3(head: bytes) -> bool:
    """Whether it begins with a frame of MPEG's layer III."""
    return head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2


def _find_in_tagged(window: Window, finds: Finds) -> None:
    """Look at what begins with ID3: an MP3, or a FLAC that somebody has tagged so."""
    find_in_id3(window, finds)
    if window.read(length_of_id3(window), len(FLAC)) == FLAC:
        find_in_flac(window, finds)


#: To add a format is to add its entry: how a file begins, and who reads it.
_FORMATS: tuple[tuple[Callable[[bytes], bool], _Reader], ...] = (
    (lambda head: head.startswith(PNG), find_in_png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), find_in_jpeg),
    (lambda head: head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"WAVE", b"AVI "), find_in_riff),
    (lambda head: head[4:8] == ISO or head[4:8] in OLD_MARKS, find_in_iso),
    (lambda head: head.startswith(MATROSKA), find_in_matroska),
    (lambda head: head.startswith(FLAC), find_in_flac),
    (lambda head: head.startswith(OGG), find_in_ogg),
    (lambda head: head.startswith(ID3) or _is_bare_mp3(head), _find_in_tagged),
    (lambda head: head.startswith(GLB), find_in_glb),
    (is_svg, find_in_svg),
    (is_safetensors, find_in_safetensors),
)


def says_it_may_hold(head: bytes) -> bool:
    """Whether a file that begins so is of a format that may carry a workflow. JSON itself is none of them."""
    return _reader(head) is not None


def read_embedded(window: Window) -> Embedded:
    """The prompt and the workflow in a file: `{"document": {"prompt": …, "workflow": …}, "warnings": […]}`.

    Raises:
        Missing: a part of the file is wanted that has not been fetched.
        Refused: there is neither, or it cannot be read; the end of a sentence that begins with the file.
    """
    reader = _reader(window.read(0, HEAD_BYTES))
    if reader is None:
        raise Refused(f"is of no format that carries a workflow. {INSTEAD}.")
    finds, problem = Finds(), None
    try:
        reader(window, finds)
    except Refused as refused:  # what was found until then may do
        problem = refused
    try:
        return chosen(finds)
    except Refused:
        if problem is not None:
            raise problem from None
        raise


def _reader(head: bytes) -> _Reader | None:
    return next((reader for fits, reader in _FORMATS if fits(head)), None)


__all__ = ["HEAD_BYTES", "Missing", "read_embedded", "says_it_may_hold"]
