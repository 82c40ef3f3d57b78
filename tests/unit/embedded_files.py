"""Files with a workflow inside, put together by hand: each format in each way that somebody writes it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from tests.unit.picture_files import png_chunk

SAVED = Path(__file__).parent / "data" / "embedded"

GRAPH: dict[str, Any] = {
    "3": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "Grüße 世界"}},
}
EDITOR: dict[str, Any] = {"nodes": [{"id": 3, "type": "EmptyImage"}], "links": [], "version": 0.4}
BOTH = {"prompt": GRAPH, "workflow": EDITOR}
PROMPT, WORKFLOW = json.dumps(GRAPH), json.dumps(EDITOR)
TEXTS = {"prompt": PROMPT, "workflow": WORKFLOW}
#: As some packs write it: one JSON of both, of which the prompt is a text once more.
IN_ONE = json.dumps({"prompt": PROMPT, "workflow": EDITOR})


# PNG


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A picture with these chunks, before its image data or behind it."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    plain = buffer.getvalue()
    at = len(plain) - 12 if behind else 33
    return plain[:at] + b"".join(png_chunk(*one) for one in chunks) + plain[at:]


def packed(name: str, text: bytes) -> tuple[bytes, bytes]:
    return b"zTXt", name.encode() + b"\0\0" + zlib.compress(text, 9)


def international(name: str, text: str, *, is_packed: bool = False) -> tuple[bytes, bytes]:
    body = zlib.compress(text.encode()) if is_packed else text.encode()
    return b"iTXt", name.encode() + b"\0" + bytes([is_packed]) + b"\0de\0\0" + body


def png_by_pillow(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    return pillow("PNG", pnginfo=info)


def pillow(image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, image_format, **options)
    return buffer.getvalue()


# EXIF and XMP


def exif(tags: Mapping[int, bytes | str], *, order: str = "<", inner: Mapping[int, bytes | str] | None = None) -> bytes:
    """EXIF data with these tags, and others in a directory of their own."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = bytearray(mark + struct.pack(order + "I", 8))
    entries = {
        tag: (value.encode() + b"\0", 2) if isinstance(value, str) else (value, 7) for tag, value in tags.items()
    }
    count = len(entries) + bool(inner)
    data_at = 8 + 2 + 12 * count + 4
    data = bytearray()
    body += struct.pack(order + "H", count)
    for tag, (value, kind) in entries.items():
        place = struct.pack(order + "I", data_at + len(data)) if len(value) > 4 else value.ljust(4, b"\0")
        body += struct.pack(order + "HHI", tag, kind, len(value)) + place
        data += value if len(value) > 4 else b""
    if inner:
        body += struct.pack(order + "HHII", 0x8769, 4, 1, data_at + len(data))
        at = data_at + len(data)
        data += struct.pack(order + "H", len(inner))
        values = bytearray()
        for tag, text in inner.items():
            value = text.encode() if isinstance(text, str) else text
            value_at = at + 2 + 12 * len(inner) + 4 + len(values)
            data += struct.pack(order + "HHII", tag, 7, len(value), value_at)
            values += value
        data += b"\0" * 4 + values
    return bytes(body + b"\0" * 4 + data)


def xmp(*, as_attribute: bool = False) -> bytes:
    escaped = IN_ONE.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    inside = (
        f'<rdf:Description comfy:workflow="{escaped}"/>'
        if as_attribute
        else f"<rdf:Description><dc:description><rdf:Alt><rdf:li xml:lang='x-default'>{escaped}</rdf:li></rdf:Alt>"
        "</dc:description></rdf:Description>"
    )
    return f'<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/">{inside}</x:xmpmeta>'.encode()


def segments(*parts: tuple[int, bytes]) -> bytes:
    """A JPEG with these segments before its own."""
    plain = pillow("JPEG")
    return (
        plain[:2] + b"".join(struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data for kind, data in parts) + plain[2:]
    )


def riff(kind: bytes, *parts: tuple[bytes, bytes]) -> bytes:
    body = kind + b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# Boxes


def box(kind: bytes, *parts: bytes, large: bool = False) -> bytes:
    body = b"".join(parts)
    if large:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


FTYP = box(b"ftyp", b"isom\0\0\2\0isommp41")


def mdta(texts: dict[str, str], *, is_full: bool = True) -> bytes:
    keys = box(b"keys", b"\0" * 4, struct.pack(">I", len(texts)), *(box(b"mdta", name.encode()) for name in texts))
    items = [
        box(struct.pack(">I", number), box(b"data", struct.pack(">II", 1, 0), text.encode()))
        for number, text in enumerate(texts.values(), start=1)
    ]
    hdlr = box(b"hdlr", b"\0" * 8 + b"mdta" + b"\0" * 13)
    return box(b"meta", b"\0" * 4 if is_full else b"", hdlr, keys, box(b"ilst", *items))


def itunes(texts: dict[str, str]) -> bytes:
    items = [
        box(
            b"----",
            box(b"mean", b"\0" * 4, b"com.apple.iTunes"),
            box(b"name", b"\0" * 4, name.encode()),
            box(b"data", struct.pack(">II", 1, 0), text.encode()),
        )
        for name, text in texts.items()
    ]
    return box(b"meta", b"\0" * 4, box(b"hdlr", b"\0" * 8 + b"mdir" + b"\0" * 13), box(b"ilst", *items))


# Matroska


def element(kind: int, *parts: bytes, size_bytes: int = 4, unknown: bool = False) -> bytes:
    body = b"".join(parts)
    size = (1 << 7 * size_bytes) - 1 if unknown else len(body)
    return kind.to_bytes((kind.bit_length() + 7) // 8) + (1 << 7 * size_bytes | size).to_bytes(size_bytes) + body


EBML = element(0x1A45DFA3, element(0x4282, b"webm"))


def tags(texts: dict[str, str]) -> bytes:
    simple = [
        element(0x67C8, element(0x45A3, name.upper().encode()), element(0x4487, text.encode()))
        for name, text in texts.items()
    ]
    return element(0x1254C367, element(0x7373, element(0x63C0), *simple))


def matroska_with_tags_behind(texts: dict[str, str], *, clusters: int = 3, cluster_bytes: int = 100) -> bytes:
    """A film whose index tells where its tags are."""
    film = element(0x1F43B675, b"\0" * cluster_bytes) * clusters

    def index(position: int) -> bytes:
        seek = element(0x4DBB, element(0x53AB, b"\x12\x54\xc3\x67"), element(0x53AC, position.to_bytes(8)))
        return element(0x114D9B74, seek)

    return EBML + element(0x18538067, index(len(index(0)) + len(film)), film, tags(texts), size_bytes=8)


# Sounds


def comments(texts: dict[str, str]) -> bytes:
    pairs = [f"{name}={text}".encode() for name, text in texts.items()]
    entries = b"".join(struct.pack("<I", len(pair)) + pair for pair in pairs)
    return struct.pack("<I", 4) + b"test" + struct.pack("<I", len(pairs)) + entries


def flac(texts: dict[str, str]) -> bytes:
    blocks = [(0, b"\0" * 34), (4, comments(texts)), (1, b"\0" * 10)]
    last = len(blocks) - 1
    return b"fLaC" + b"".join(
        bytes([kind | (0x80 if place == last else 0)]) + len(data).to_bytes(3) + data
        for place, (kind, data) in enumerate(blocks)
    )


def ogg(first: bytes, second: bytes, *, page_bytes: int = 255 * 255, serial: int = 7) -> bytes:
    """The first pages of a stream: its packets laced into pages of at most so many bytes."""
    pages = [_page(serial, 2, [len(first)], first)]
    lacing = [255] * (len(second) // 255) + [len(second) % 255]
    per_page = max(1, page_bytes // 255)
    for begin in range(0, len(lacing), per_page):
        part = lacing[begin : begin + per_page]
        at = 255 * begin
        pages.append(_page(serial, 1 if begin else 0, part, second[at : at + sum(part)]))
    return b"".join(pages) + _page(serial, 4, [10], b"\0" * 10)


def _page(serial: int, flags: int, lacing: list[int], body: bytes) -> bytes:
    return (
        b"OggS\0"
        + bytes([flags])
        + b"\0" * 8
        + struct.pack("<III", serial, 0, 0)
        + bytes([len(lacing), *lacing])
        + body
    )


def id3(frames: Iterable[bytes], *, version: int = 4, flags: int = 0, padding: int = 20) -> bytes:
    body = b"".join(frames) + b"\0" * padding
    return b"ID3" + bytes([version, 0, flags]) + seven(len(body)) + body + b"\xff\xfb\x90\x00" + b"\0" * 100


def txxx(
    name: str, text: str, *, version: int = 4, encoding: int = 3, eight_bits: bool = False, flags: int = 0
) -> bytes:
    codec, zero = {0: ("latin-1", b"\0"), 1: ("utf-16", b"\0\0"), 2: ("utf-16-be", b"\0\0"), 3: ("utf-8", b"\0")}[
        encoding
    ]
    body = bytes([encoding]) + name.encode(codec) + zero + text.encode(codec)
    if flags & 0x0008 and version == 4:
        body = seven(len(body)) + zlib.compress(body)
    if version == 2:
        return b"TXX" + len(body).to_bytes(3) + body
    size = seven(len(body)) if version == 4 and not eight_bits else struct.pack(">I", len(body))
    return b"TXXX" + size + flags.to_bytes(2) + body


def seven(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


# Headers


def safetensors(metadata: dict[str, Any]) -> bytes:
    header = json.dumps(
        {"__metadata__": metadata, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


def glb(document: dict[str, Any]) -> bytes:
    text = json.dumps(document).encode()
    return b"glTF" + struct.pack("<II", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON") + text


def svg(inside: str) -> bytes:
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg">{inside}<path d="M0 0"/></svg>'
    return f'<?xml version="1.0"?>\n<!-- drawn -->\n{drawing}'.encode()


def _civitai() -> str:
    """What Civitai writes into a JPEG: a graph, and notes among its nodes."""
    return json.dumps({**GRAPH, "extra": {"airs": []}, "extraMetadata": json.dumps({"prompt": "a fox"})})


def _comment(text: str, encoding: str = "utf-16-be") -> bytes:
    return b"UNICODE\0" + text.encode(encoding)


_LOOSE = {0x010F: f"workflow:{WORKFLOW}", 0x0110: f"prompt:{PROMPT}"}
_EXIF = exif(_LOOSE)
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_SPLIT_XMP = xmp()
_HALF = len(_SPLIT_XMP) // 2


def _more_xmp(at: int, part: bytes) -> tuple[int, bytes]:
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", len(_SPLIT_XMP), at)
    return 0xE1, head + part


_CUT = len(_EXIF) // 2
_MDAT = box(b"mdat", b"\0" * 5000)

#: Each has BOTH inside.
WITH_BOTH: dict[str, bytes] = {
    "png tEXt": png_by_pillow(**{name: text.encode("ascii").decode() for name, text in TEXTS.items()}),
    "png zTXt": png(*(packed(name, text.encode()) for name, text in TEXTS.items())),
    "png iTXt": png(*(international(name, text) for name, text in TEXTS.items())),
    "png iTXt packed": png(*(international(name, text, is_packed=True) for name, text in TEXTS.items())),
    "png utf-8 in tEXt": png(
        (b"tEXt", b"prompt\0" + json.dumps(GRAPH, ensure_ascii=False).encode()),
        (b"tEXt", b"workflow\0" + WORKFLOW.encode()),
    ),
    "png behind the image": png(*((b"tEXt", f"{name}\0{text}".encode()) for name, text in TEXTS.items()), behind=True),
    "png comf": png(*((b"comf", f"{name}\0{text}".encode()) for name, text in TEXTS.items()), behind=True),
    "png eXIf": png((b"eXIf", _EXIF)),
    "png xmp": png(international("XML:com.adobe.xmp", xmp().decode())),
    "webp": pillow("WEBP", exif=_EXIF),
    "webp with jpeg's mark": pillow("WEBP", exif=b"Exif\0\0" + _EXIF),
    "webp xmp": pillow("WEBP", xmp=xmp()),
    "webp big endian": riff(b"WEBP", (b"VP8X", b"\0" * 10), (b"EXIF", exif(_LOOSE, order=">"))),
    "jpeg": pillow("JPEG", exif=b"Exif\0\0" + _EXIF),
    "jpeg other tags": pillow(
        "JPEG", exif=b"Exif\0\0" + exif({0x010E: f"Workflow: {WORKFLOW}", 0x0131: f"Prompt: {PROMPT}"})
    ),
    "jpeg both in one tag": pillow("JPEG", exif=b"Exif\0\0" + exif({0x010E: f"workflow:{WORKFLOW}\0prompt:{PROMPT}"})),
    "jpeg user comment": pillow("JPEG", exif=b"Exif\0\0" + exif({}, inner={0x9286: _comment(IN_ONE)})),
    "jpeg user comment le": pillow(
        "JPEG", exif=b"Exif\0\0" + exif({}, order=">", inner={0x9286: _comment(IN_ONE, "utf-16-le")})
    ),
    "jpeg user comment ascii": pillow(
        "JPEG", exif=b"Exif\0\0" + exif({}, inner={0x9286: b"ASCII\0\0\0" + IN_ONE.encode()})
    ),
    "jpeg windows comment": pillow("JPEG", exif=b"Exif\0\0" + exif({0x9C9C: IN_ONE.encode("utf-16-le")})),
    "jpeg comment": segments((0xFE, IN_ONE.encode())),
    "jpeg xmp": segments((0xE1, _XMP_MARK + xmp())),
    "jpeg xmp attribute": segments((0xE1, _XMP_MARK + xmp(as_attribute=True))),
    "jpeg xmp in parts": segments(_more_xmp(_HALF, _SPLIT_XMP[_HALF:]), _more_xmp(0, _SPLIT_XMP[:_HALF])),
    "jpeg exif in parts": segments((0xE1, b"Exif\0\0" + _EXIF[:_CUT]), (0xE1, b"Exif\0\0" + _EXIF[_CUT:])),
    "avif": pillow("AVIF", exif=_EXIF),
    "avif xmp": pillow("AVIF", xmp=xmp()),
    "mp4 mdta": FTYP + box(b"moov", box(b"udta", mdta(TEXTS))) + _MDAT,
    "mp4 behind": FTYP + _MDAT + box(b"moov", box(b"mvhd", b"\0" * 100), box(b"udta", mdta(TEXTS))),
    "mp4 64 bits": FTYP + box(b"mdat", b"\0" * 100, large=True) + box(b"moov", box(b"udta", mdta(TEXTS)), large=True),
    "mp4 to the end": FTYP + b"\0\0\0\0" + box(b"moov", box(b"udta", mdta(TEXTS)))[4:],
    "mp4 itunes": FTYP + box(b"moov", box(b"udta", itunes(TEXTS))),
    "mp4 of a track": FTYP + box(b"moov", box(b"trak", box(b"udta", mdta(TEXTS)))),
    "mov": box(b"ftyp", b"qt  \0\0\2\0") + _MDAT + box(b"moov", mdta(TEXTS, is_full=False)),
    "mov without a type": _MDAT
    + box(b"moov", mdta({f"com.apple.quicktime.{name}": text for name, text in TEXTS.items()})),
    "mov comment": FTYP
    + box(b"moov", box(b"udta", box(b"\xa9cmt", struct.pack(">HH", len(IN_ONE), 0), IN_ONE.encode()))),
    "mp4 xmp": FTYP + box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), xmp()),
    "webm": EBML + element(0x18538067, tags(TEXTS), element(0x1F43B675, b"\0" * 50)),
    "webm behind": matroska_with_tags_behind(TEXTS),
    "webm behind without an index": EBML + element(0x18538067, element(0x1F43B675, b"\0" * 50) * 3, tags(TEXTS)),
    "webm live": EBML + element(0x18538067, tags(TEXTS), element(0x1F43B675, b"\0" * 50, unknown=True), unknown=True),
    "mkv comment": EBML + element(0x18538067, tags({"comment": IN_ONE})),
    "flac": flac(TEXTS),
    "flac lower and upper": flac({"Prompt": PROMPT, "WORKFLOW": WORKFLOW}),
    "flac behind id3": id3([], padding=10).partition(b"\xff\xfb")[0] + flac(TEXTS),
    "ogg vorbis": ogg(b"\x01vorbis" + b"\0" * 23, b"\x03vorbis" + comments(TEXTS) + b"\1"),
    "ogg vorbis over pages": ogg(b"\x01vorbis" + b"\0" * 23, b"\x03vorbis" + comments(TEXTS) + b"\1", page_bytes=255),
    "opus": ogg(b"OpusHead" + b"\0" * 11, b"OpusTags" + comments(TEXTS)),
    "opus 255": ogg(b"OpusHead" + b"\0" * 11, (b"OpusTags" + comments(TEXTS)).ljust(255 * 4, b"\0")),
    "speex": ogg(b"Speex   " + b"\0" * 72, comments(TEXTS)),
    "flac in ogg": ogg(b"\x7fFLAC\1\0\0\1fLaC" + b"\0" * 38, b"\4\0\0\0" + comments(TEXTS)),
    "mp3 2.4": id3(txxx(name, text) for name, text in TEXTS.items()),
    "mp3 2.4 of itunes": id3(txxx(name, text, eight_bits=True) for name, text in TEXTS.items()),
    "mp3 2.4 packed": id3(txxx(name, text, flags=0x0009) for name, text in TEXTS.items()),
    "mp3 2.3": id3((txxx(name, text, version=3) for name, text in TEXTS.items()), version=3),
    "mp3 2.3 utf-16": id3((txxx(name, text, version=3, encoding=1) for name, text in TEXTS.items()), version=3),
    "mp3 2.3 latin-1": id3((txxx(name, text, version=3, encoding=0) for name, text in TEXTS.items()), version=3),
    "mp3 2.2": id3((txxx(name, text, version=2) for name, text in TEXTS.items()), version=2),
    "mp3 comment": id3([b"COMM" + seven(5 + len(IN_ONE)) + b"\0\0\3eng\0" + IN_ONE.encode()]),
    "wav comment": riff(b"WAVE", (b"fmt ", b"\0" * 16), (b"LIST", b"INFO" + riff(b"", (b"ICMT", IN_ONE.encode()))[8:])),
    "wav id3": riff(b"WAVE", (b"data", b"\0" * 5), (b"id3 ", id3(txxx(name, text) for name, text in TEXTS.items()))),
    "svg cdata": svg(f"<metadata><![CDATA[\n {json.dumps(BOTH, indent=1)} ]]></metadata>"),
    "svg text": svg(f"<metadata>{json.dumps(BOTH)}</metadata>"),
    "glb": glb({"asset": {"version": "2.0", "extras": TEXTS}}),
    "glb objects": glb({"asset": {"version": "2.0", "extras": BOTH}}),
    "glb scene": glb({"asset": {}, "scenes": [{"extras": TEXTS}]}),
    "safetensors": safetensors(TEXTS),
}
#: Each has the graph alone.
WITH_PROMPT: dict[str, bytes] = {
    "civitai": pillow("JPEG", exif=b"Exif\0\0" + exif({}, inner={0x9286: _comment(_civitai())})),
    "only the prompt": png_by_pillow(prompt=PROMPT),
    "a graph as the workflow": png_by_pillow(workflow=PROMPT),
    "a broken workflow": png_by_pillow(prompt=PROMPT, workflow="{"),
    "another comment": png_by_pillow(comment="[01:02] a fox {", prompt=PROMPT),
    "braces of NovelAI": png_by_pillow(comment='{"prompt": "{fox}, 1girl", "steps": 28}', prompt=PROMPT),
    "the prompt twice": png((b"tEXt", b"prompt\0{"), (b"tEXt", b"prompt\0" + PROMPT.encode())),
}
#: Each has the editor's workflow alone.
WITH_WORKFLOW: dict[str, bytes] = {
    "only the workflow": png_by_pillow(workflow=WORKFLOW),
    "a prompt in words": flac({"prompt": "a fox in the snow", "workflow": WORKFLOW}),
    "a broken prompt": png_by_pillow(prompt="{", workflow=WORKFLOW),
    "a prompt without nodes": png_by_pillow(prompt="{}", workflow=WORKFLOW),
}
