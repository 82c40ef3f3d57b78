"""Says what a file is that is no accepted image, and what to do about it."""

from __future__ import annotations

import re
from typing import BinaryIO

from comfy_serverless.files import IMAGE_ENDINGS

_HEAD_BYTES = 512
_CONVERT = "convert it to PNG or JPEG first"
#: Targa has no mark of its own: a type of palette and of image that fit, a depth that exists.
_TARGA = re.compile(
    rb".(?:\x01[\x01\x09].{4}[\x0f\x10\x18\x20]|\0[\x02\x03\x0a\x0b]\0{5}).{8}[\x08\x0f\x10\x18\x20]", re.DOTALL
)
#: Names of formats by the first bytes of their files. Their decoders are not open to strangers: some start other
#: programs or read other files (EPS), some ComfyUI does not have.
_IMAGES = (
    (re.compile(rb".{4}ftyp(hei[cxms]|hev[cmsx]|mif1|msf1)", re.DOTALL), "HEIC (HEIF), the format of phones"),
    (re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL), "AVIF, but damaged, or of a kind that cannot be read here"),
    (re.compile(rb".{4}ftypcrx ", re.DOTALL), "a camera's raw image (CR3)"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\x76\x2f\x31\x01"), "OpenEXR"),
    (re.compile(rb"8BPS"), "a Photoshop file (PSD)"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript (EPS)"),
    (re.compile(rb"%PDF-"), "a PDF"),
    (re.compile(rb"P[1-7fF][ \t\r\n#]"), "a Netpbm image (PPM, PGM, PBM, PAM, PFM)"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]\0"), "an icon (ICO, CUR)"),
    (re.compile(rb"icns"), "an icon (ICNS)"),
    (re.compile(rb"DDS "), "a texture (DDS)"),
    (re.compile(rb"#\?RADIANCE|#\?RGBE"), "Radiance HDR"),
    (re.compile(rb"qoif"), "QOI"),
    (re.compile(rb"FORM.{4}ILBM", re.DOTALL), "an Amiga image (ILBM)"),
    (re.compile(rb"gimp xcf"), "a GIMP file (XCF)"),
    (re.compile(rb"SIMPLE  ="), "FITS"),
    (re.compile(rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"), "PCX"),
    (re.compile(rb"\x01\xda[\0\x01][\x01\x02]"), "an image of SGI"),
    (re.compile(rb"\s*#define\s+\S+_width\s|/\* XPM \*/"), "a bitmap of X11 (XBM, XPM)"),
    (re.compile(rb"BLP[12]"), "a texture (BLP)"),
    (re.compile(rb"II\x55\0|IIRO|IIRS|FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR"), "a camera's raw image"),
    (re.compile(rb"II\x2b\0|MM\0\x2b"), "a BigTIFF that cannot be read"),
    (re.compile(rb"\x89PNG\r\n\x1a\n|GIF8|\xff\xd8\xff|RIFF.{4}WEBP|II\x2a\0|MM\0\x2a", re.DOTALL), ""),
    (_TARGA, "Targa (TGA)"),
)
#: The beginnings of pictures after they were read and written as text: with what was no character replaced, or
#: every byte made a letter, or line ends changed.
_READ_AS_TEXT = re.compile(
    rb"\xef\xbf\xbdPNG|\xc2\x89PNG|\x89PNG\n\x1a\n|\x89PNG\r\r\n|(\xef\xbf\xbd){3}|\xc3\xbf\xc3\x98\xc3\xbf|\xef\xbb\xbf\x89PNG"
)
_BASE64 = re.compile(rb"data:[^,]{0,100},|iVBORw0KGgo|/9j/|UklGR|R0lGODlh|R0lGODdh")
_VIDEOS = re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)


def looks_like(file: BinaryIO) -> str:
    """The refusal of a file that no accepted format fits."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    accepted = "Accepted are " + ", ".join(sorted(set(IMAGE_ENDINGS)))
    for beginning, name in _IMAGES:
        if beginning.match(head):
            if not name:
                return "is a truncated or damaged image: its header cannot be read"
            return f"is no image that is accepted: it is {name}. {_capital(_CONVERT)}. {accepted}"
    return f"is not an image: {_other(head)}. {accepted}"


def _other(head: bytes) -> str:
    if not head:
        return "it is empty"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) or b"<svg" in text:
        return "it looks like SVG or XML, which must be rendered to PNG first"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if text.startswith((b"{", b"[")):
        return "it looks like JSON"
    if _READ_AS_TEXT.match(head):
        return "it is a picture that was read or written as text somewhere on its way, and is damaged: send its bytes"
    if _BASE64.match(head):
        return "it is the base64 text of a file: send the file, or that text itself as the input"
    if head.startswith(b"\x1f\x8b"):
        return "it is packed by gzip: unpack it first"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: fetch the file itself (git lfs pull)"
    if _VIDEOS.match(head):
        return "it is a video: give it to a loader of videos, or take a frame of it"
    return f"it begins with {head[:8].hex(' ')}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
