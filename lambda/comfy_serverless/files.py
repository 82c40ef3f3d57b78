"""All that we know of types of files, in one table: names, endings, first bytes, whether a browser shows them.

Imports nothing of ours and reads no file: the caller brings the name, or the beginning of the file.
"""

from __future__ import annotations

import mimetypes
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from pathlib import PurePath

#: The number of bytes of a file's beginning that show its type.
HEAD_BYTES = 16
#: The type of an unknown file.
UNKNOWN_TYPE = "application/octet-stream"
#: The endings of the names of model files.
MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
#: The endings of the files that a workflow may be in, as ComfyUI and its packs write it: what the sandbox reads.
WORKFLOW_ENDINGS = (
    *(".png", ".apng", ".webp", ".jpg", ".jpeg", ".avif", ".svg"),
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv"),
    *(".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a"),
    *(".glb", ".latent", ".safetensors"),
)


_WAV_ALIASES = ("audio/wave", "audio/x-wav", "audio/vnd.wave")


class OutputKind(StrEnum):
    """The Comfy API v2's kinds of outputs. Kinds that are the family of a media type (`video/…`) are found by it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    LATENT = "latent"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class FileType:
    """One type of file.

    Attributes:
        content_type: its media type.
        ending: of file names.
        aliases: other media types that senders give for it.
        head: the position and the bytes that mark a file of the type.
        pillow: Pillow's names of the format, if an image of it is accepted as an input.
        is_shown: a browser shows it by itself, and it can run nothing.
        is_kept: an input that is no image may have the ending. ComfyUI serves its input folder, so a browser must not
            run the file; and FFmpeg must not take it for a list of other files, which it would read.
    """

    content_type: str
    ending: str
    _: KW_ONLY
    aliases: tuple[str, ...] = ()
    head: tuple[int, bytes] | None = None
    pillow: tuple[str, ...] = ()
    is_shown: bool = False
    is_kept: bool = False


#: The first of two types that fit counts.
TYPES: tuple[FileType, ...] = (
    FileType("image/png", ".png", head=(0, b"\x89PNG\r\n\x1a\n"), pillow=("PNG",), is_shown=True, is_kept=True),
    FileType("image/jpeg", ".jpg", head=(0, b"\xff\xd8\xff"), pillow=("JPEG", "MPO"), is_shown=True, is_kept=True),
    FileType("image/gif", ".gif", head=(0, b"GIF8"), pillow=("GIF",), is_shown=True, is_kept=True),
    FileType("image/webp", ".webp", head=(8, b"WEBP"), pillow=("WEBP",), is_shown=True, is_kept=True),
    FileType("image/avif", ".avif", head=(4, b"ftypavif"), pillow=("AVIF",), is_shown=True),
    FileType("image/bmp", ".bmp", pillow=("BMP",), is_shown=True),
    FileType("image/tiff", ".tiff", pillow=("TIFF",), is_shown=True),
    FileType("image/apng", ".apng"),
    FileType("image/x-exr", ".exr"),
    FileType("video/webm", ".webm", head=(0, b"\x1a\x45\xdf\xa3"), is_shown=True, is_kept=True),
    FileType("video/x-matroska", ".mkv", is_shown=True, is_kept=True),
    FileType("video/quicktime", ".mov", head=(4, b"ftypqt"), is_shown=True, is_kept=True),
    FileType("audio/mp4", ".m4a", aliases=("audio/x-m4a",), head=(4, b"ftypM4A"), is_shown=True, is_kept=True),
    # The last of the types that begin with `ftyp`.
    FileType("video/mp4", ".mp4", head=(4, b"ftyp"), is_shown=True, is_kept=True),
    FileType("video/x-m4v", ".m4v", is_kept=True),
    FileType("video/mpeg", ".mpeg", is_kept=True),
    FileType("video/x-msvideo", ".avi", head=(8, b"AVI "), is_kept=True),
    FileType("audio/wav", ".wav", aliases=_WAV_ALIASES, head=(8, b"WAVE"), is_shown=True, is_kept=True),
    FileType("audio/mpeg", ".mp3", aliases=("audio/mp3",), head=(0, b"ID3"), is_shown=True, is_kept=True),
    FileType("audio/flac", ".flac", aliases=("audio/x-flac",), head=(0, b"fLaC"), is_shown=True, is_kept=True),
    FileType("audio/ogg", ".ogg", head=(0, b"OggS"), is_shown=True, is_kept=True),
    FileType("audio/ogg", ".opus", aliases=("audio/opus",), is_shown=True, is_kept=True),
    FileType("audio/aac", ".aac", is_shown=True, is_kept=True),
    FileType("audio/webm", ".weba", is_shown=True),
    FileType("model/gltf-binary", ".glb", head=(0, b"glTF"), is_kept=True),
    FileType("model/gltf+json", ".gltf", is_kept=True),
    FileType("model/obj", ".obj", is_kept=True),
    FileType("model/stl", ".stl", is_kept=True),
    FileType(UNKNOWN_TYPE, ".fbx", is_kept=True),
    FileType(UNKNOWN_TYPE, ".ply", is_kept=True),
    FileType("text/plain", ".txt", is_shown=True),
    FileType("application/pdf", ".pdf", head=(0, b"%PDF-")),
    FileType("application/zip", ".zip", head=(0, b"PK\x03\x04")),
    FileType(UNKNOWN_TYPE, ".latent", is_kept=True),
    FileType(UNKNOWN_TYPE, ".safetensors"),
)
_BY_ENDING = {kind.ending: kind for kind in TYPES}
_BY_NAME = {name: kind for kind in reversed(TYPES) for name in (kind.content_type, *kind.aliases)}
del _BY_NAME[UNKNOWN_TYPE]
#: The endings of accepted images, by Pillow's names of their formats. Formats whose decoders start other programs or
#: fetch other files (EPS, WMF, …) are not in the table.
IMAGE_ENDINGS = {name: kind.ending for kind in TYPES for name in kind.pillow}


def bare_type(content_type: str) -> str:
    """A media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def type_of_name(name: str) -> str | None:
    """The media type that the ending of a file name stands for; None if it is unknown."""
    kind = _BY_ENDING.get(PurePath(name).suffix.lower())
    content_type = kind.content_type if kind else mimetypes.guess_type(name)[0]
    return None if content_type == UNKNOWN_TYPE else content_type


def type_of_head(head: bytes) -> str | None:
    """The media type of a file that begins with these bytes; None if it is unknown."""
    types = (kind.content_type for kind in TYPES if kind.head and head.startswith(kind.head[1], kind.head[0]))
    return next(types, None)


def may_carry_workflow(name: str) -> bool:
    """Whether a file of this name may have a workflow inside."""
    return name.lower().endswith(WORKFLOW_ENDINGS)


def ending_of_type(content_type: str) -> str | None:
    """The ending of files of a media type, if we know one."""
    kind = _BY_NAME.get(bare_type(content_type))
    return kind.ending if kind else None


def kept_ending(name: str, content_type: str) -> str:
    """The ending that an input which is no image gets: its own, else that of the type its sender gives, or `.bin`."""
    candidates = (_BY_ENDING.get(PurePath(name).suffix.lower()), _BY_NAME.get(bare_type(content_type)))
    return next((kind.ending for kind in candidates if kind and kind.is_kept), ".bin")


def is_shown(content_type: str) -> bool:
    """Whether a browser shows files of a media type by itself, and they can run nothing. Others are saved."""
    kind = _BY_NAME.get(bare_type(content_type))
    return kind is not None and kind.is_shown


def kind_of(key: str, content_type: str) -> OutputKind:
    """The kind of an output, from the key it stood under among its node's results, and its media type."""
    if key == "latents":
        return OutputKind.LATENT
    try:
        return OutputKind(content_type.partition("/")[0])
    except ValueError:
        return OutputKind.FILE
