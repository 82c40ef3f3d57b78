"""Files that are made to be read forever, or to fill the memory: each gets an answer within the bounds of a reader."""

from __future__ import annotations

import functools
import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.sandbox.embedded import read_embedded, window
from comfy_serverless.sandbox.embedded.window import Window
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S
from tests.unit import embedded_files as files
from tests.unit.picture_files import png_chunk

_MB = 1_000_000


def _overlapping_exif() -> bytes:
    """Two thousand tags, each of which has the same eight megabytes."""
    size = 8 * _MB
    entries = b"".join(struct.pack("<HHII", 0x9000 + n, 2, size, 64) for n in range(2000))
    return b"II*\0" + struct.pack("<IH", 8, 2000) + entries + b"\0" * 4 + b"{" * size


def _endless_exif() -> bytes:
    """Directories that lead to each other."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)


def _overlapping_items() -> bytes:
    """A picture with an item of a thousand parts, each of which is the whole file."""
    parts = struct.pack(">II", 0, 8 * _MB) * 1000
    iloc = files.box(b"iloc", b"\0\0\0\0\x44\0" + struct.pack(">HHHH", 1, 1, 0, 1000) + parts)
    infe = files.box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    iinf = files.box(b"iinf", b"\0" * 4 + struct.pack(">H", 1) + infe)
    meta = files.box(b"meta", b"\0" * 4, files.box(b"hdlr", b"\0" * 21), iloc, iinf)
    return files.box(b"ftyp", b"avif\0\0\0\0") + meta + b"\0" * 8 * _MB


def _nested_boxes() -> bytes:
    inner = b""
    for _ in range(20_000):
        inner = struct.pack(">I4s", 8, b"udta") + inner
    sizes = bytearray(inner)
    for place in range(20_000):
        struct.pack_into(">I", sizes, 8 * place, 8 * (20_000 - place))
    return files.FTYP + bytes(sizes)


def _nested_tags() -> bytes:
    one = b"\x67\xc8" + b"\xff"  # of unknown size
    return files.EBML + files.element(0x18538067, b"\x12\x54\xc3\x67\xff" + one * 100_000, unknown=True)


def _index_of_itself() -> bytes:
    seek = files.element(0x4DBB, files.element(0x53AB, b"\x12\x54\xc3\x67"), files.element(0x53AC, b"\0"))
    return files.EBML + files.element(0x18538067, files.element(0x114D9B74, seek * 5000), unknown=True)


@functools.cache  # made where it is used: collecting the tests costs nothing
def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b"\0" * _MB) for _ in range(size // _MB)) + packer.flush()


_SVG = '<svg xmlns="http://www.w3.org/2000/svg">'

HOSTILE: dict[str, Callable[[], bytes]] = {
    "png: a bomb": lambda: files.png((b"zTXt", b"prompt\0\0" + _bomb(200 * _MB))),
    "png: a bomb in an international text": lambda: files.png((b"iTXt", b"prompt\0\1\0\0\0" + _bomb(200 * _MB))),
    "png: many bombs": lambda: files.png(*[(b"zTXt", b"prompt\0\0" + _bomb(20 * _MB))] * 200),
    "png: no end of chunks": lambda: files.png()[:8] + b"\0\0\0\0abcd\0\0\0\0" * 120_000,
    "png: no end of texts": lambda: files.png()[:8] + png_chunk(b"tEXt", b"prompt\0{}") * 50_000,
    "png: a text of gigabytes": lambda: files.png()[:8] + b"\xff\xff\xff\xfftEXt" + b"prompt\0{" * 100,
    "jpeg: overlapping tags": lambda: files.riff(b"WEBP", (b"EXIF", _overlapping_exif())),
    "jpeg: endless directories": lambda: files.segments((0xE1, b"Exif\0\0" + _endless_exif())),
    "jpeg: no end of fill bytes": lambda: b"\xff\xd8" + b"\xff" * 500_000,
    "jpeg: no end of segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 120_000,
    "webp: no end of chunks": lambda: files.riff(b"WEBP", *[(b"abcd", b"")] * 120_000),
    "avif: overlapping items": _overlapping_items,
    "mp4: boxes in boxes": _nested_boxes,
    "mp4: no end of boxes": lambda: files.FTYP + files.box(b"free") * 120_000,
    "mp4: a size of nothing": lambda: files.FTYP + struct.pack(">I4s", 0, b"moov") + struct.pack(">I4s", 3, b"udta"),
    "mp4: a size beyond all": lambda: files.FTYP + struct.pack(">I4sQ", 1, b"moov", (1 << 64) - 1) + b"\0" * 20,
    "mp4: no end of keys": lambda: files.FTYP + files.box(b"moov", files.mdta({f"k{n}": "{" for n in range(20_000)})),
    "webm: tags in tags": _nested_tags,
    "webm: an index of itself": _index_of_itself,
    "webm: no end of elements": lambda: files.EBML + files.element(0x18538067, b"\xec\x80" * 120_000, unknown=True),
    "ogg: no end of pages": lambda: (b"OggS\0\0" + b"\0" * 20 + b"\0") * 120_000,
    "ogg: no end of streams": lambda: b"".join(files.ogg(b"x", b"y", serial=n) for n in range(5000)),
    "ogg: no end of a packet": lambda: (b"OggS\0\0" + b"\0" * 20 + b"\xff" * 256 + b"a" * 65025) * 520,
    "flac: no end of comments": lambda: b"fLaC\x84\xff\xff\xff" + struct.pack("<II", 0, 1 << 31) + b"\0" * 4 * _MB,
    "mp3: a bomb": lambda: files.id3(
        [b"TXXX" + files.seven(len(_bomb(20 * _MB)) + 4) + b"\0\x09" + b"\0" * 4 + _bomb(20 * _MB)] * 50
    ),
    "mp3: no end of frames": lambda: files.id3([b"TXXX\0\0\0\1\0\0\0"] * 120_000),
    "svg: only beginnings": lambda: (_SVG + "<" * 3 * _MB).encode(),
    "svg: only CDATA": lambda: (_SVG + "<![CDATA[" * 500_000).encode(),
    "svg: only comments": lambda: (_SVG + "<!--" * 500_000).encode(),
    "svg: one long name": lambda: (_SVG + "<" + "a" * 3 * _MB + ">").encode(),
    "svg: only attributes": lambda: (_SVG + "<a " + "b='{' " * 120_000 + ">").encode(),
    "svg: half an attribute": lambda: (_SVG + "<a " + 'b="' * 500_000).encode(),
    "svg: an entity for itself": lambda: (
        '<!DOCTYPE svg [<!ENTITY a "' + "b" * 9999 + '"><!ENTITY c "' + "&a;" * 9999 + '">]>' + _SVG + "&c;</svg>"
    ).encode(),
    "safetensors: a header beyond the file": lambda: struct.pack("<Q", 20 * _MB) + b"{" * 100,
    "safetensors: a header too long": lambda: struct.pack("<Q", 30 * _MB) + b"{" * 100,
    "safetensors: lists": lambda: struct.pack("<Q", 20 * _MB) + b'{"a":[' + b"[]," * 6_000_000,
    "glb: a chunk beyond the file": lambda: b"glTF" + struct.pack("<III4s", 2, 0, 0xFFFFFFFF, b"JSON") + b"{",
    "json: brackets": lambda: files.png((b"tEXt", b"workflow\0" + b"[" * 14 * _MB)),
    "json: many lists": lambda: files.png((b"tEXt", b'workflow\0{"nodes":[' + b"[]," * 4 * _MB + b"1]}")),
    "json: a long number": lambda: files.png((b"tEXt", b"workflow\0" + b"9" * 5 * _MB)),
    "json: in texts in texts": lambda: files.png((b"tEXt", b"workflow\0" + b'"' + b"\\" * 5 * _MB)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_an_answer(sandbox: Sandbox, name: str) -> None:
    content = HOSTILE[name]()
    deadline = time.monotonic() + 4 * PATIENCE_S
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        size = len(content)
        with pytest.raises(Refused) as refused:
            sandbox.read_embedded(file.fileno(), size=size, known=[(0, size)], deadline=deadline, turn="", owner="")
    # The reader's own bounds have held, and not the clock of the process.
    assert "processor time" not in str(refused.value)
    assert not refused.value.timed_out


def test_a_good_text_is_found_beside_what_is_too_much() -> None:
    content = files.png((b"tEXt", b"prompt\0" + files.PROMPT.encode()), (b"zTXt", b"comment\0\0" + _bomb(200 * _MB)))
    assert read_embedded(Window.over(content))["document"] == {"prompt": files.GRAPH}


def test_a_window_reads_so_much_and_no_more() -> None:
    for size, times in ((1, window.MOST_READS), (window.MOST_AT_ONCE, window.MOST_BYTES // window.MOST_AT_ONCE)):
        bounded = Window(lambda _size, _offset: b"", 1 << 40)
        for _ in range(times):
            bounded.read(0, size)
        with pytest.raises(Refused, match=r"to look through|more parts"):
            bounded.read(0, size)
    assert Window.over(b"abc").read(1, 1 << 60) == b"bc"
    assert Window.over(b"abc").read(-1, 2) == b""


_SAVED = [path.read_bytes() for path in files.SAVED.iterdir() if path.suffix != ".md"]
_ALL = [*_SAVED, *files.WITH_BOTH.values(), *files.WITH_PROMPT.values(), *files.WITH_WORKFLOW.values()]


def answer(content: bytes) -> dict[str, Any] | str:
    """The document, or the refusal; anything else is an error of the reader."""
    try:
        found = read_embedded(Window.over(content))
    except Refused as refused:
        return str(refused)
    assert set(found["document"]) <= {"prompt", "workflow"}
    assert found["document"]
    json.dumps(found, allow_nan=False)
    return found


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(st.data())
def test_a_damaged_file_has_its_workflow_or_is_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(_ALL)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["byte", "number", "cut", "insert", "double", "zeros"])):
            case "byte":
                content[at] = data.draw(st.integers(0, 255))
            case "number":
                content[at : at + 4] = data.draw(
                    st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"])
                )
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=20))
            case "double":
                content[at:at] = content[at : at + 200]
            case "zeros":
                content[at : at + 50] = b"\0" * 50
        if not content:
            content = bytearray(b"\0")
    answer(bytes(content))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([content[:24] for content in _ALL]), st.binary(max_size=300))
def test_a_beginning_and_then_anything_is_refused(beginning: bytes, rest: bytes) -> None:
    answer(beginning + rest)


@pytest.mark.parametrize("content", _ALL[:40], ids=range(40))
def test_a_file_that_breaks_off_anywhere_has_its_workflow_or_is_refused(content: bytes) -> None:
    for end in range(0, len(content), max(1, len(content) // 60)):
        answer(content[:end])


def test_random_bytes_are_refused() -> None:
    for size in (0, 1, 7, 8, 100, 5000):
        assert isinstance(answer(os.urandom(size)), str)


def test_a_good_prompt_is_found_beside_a_workflow_that_is_too_much() -> None:
    huge = '{"nodes":[' + "[]," * 1_000_001 + "1]}"
    found = read_embedded(Window.over(files.png_by_pillow(prompt=files.PROMPT, workflow=huge)))
    assert found["document"] == {"prompt": files.GRAPH}
    assert [warning for warning in found["warnings"] if "lists and objects" in warning]
