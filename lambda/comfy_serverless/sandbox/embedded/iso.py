"""Finds texts in files of boxes (ISO 14496-12): MP4, MOV, M4V, M4A, and AVIF and HEIF, which are pictures.

    moov/udta/meta   hdlr `mdta`, keys, ilst     what ComfyUI writes (ffmpeg's `use_metadata_tags`)
    moov/meta        the same, in QuickTime
    …/ilst           `©cmt`, `desc`, and `----` with mean, name and data, as iTunes writes them
    moov/udta        `©cmt` with a length and a language, in QuickTime
    meta             iinf, iloc: items of a picture, of them Exif and XMP
    uuid             XMP

Boxes are stepped over by their sizes: of a video of two gigabytes some kilobytes are read, wherever `moov` stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from comfy_serverless.sandbox.embedded.exif import find_in_exif
from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.markup import find_in_xmp
from comfy_serverless.sandbox.embedded.window import Window, numbers

MARK = b"ftyp"
#: What MOV of old may begin with instead.
OLD_MARKS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_DEEPEST = 8
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_HOLDERS = (b"moov", b"udta", b"trak", b"meta", b"ilst", b"mdia")
_NAMES = {b"\xa9cmt": "comment", b"desc": "description", b"ldes": "description", b"\xa9des": "description"}
_MOST_KEYS, _MOST_ITEMS = 1000, 1000


@dataclass(frozen=True, slots=True)
class _Box:
    """A box: its kind, and where its content is."""

    kind: bytes
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass(slots=True)
class _Picture:
    """What `meta` says of the items of a picture: kinds by their ids, and where their parts are."""

    kinds: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    data: int | None = None


def find_in_iso(window: Window, finds: Finds) -> None:
    """Look at each text of a file of boxes."""
    _boxes_of(window, 0, window.size, finds, depth=0)


def _boxes(window: Window, begin: int, end: int) -> Iterator[_Box]:
    while begin < end and (head := window.whole(begin, 8)):
        size, kind = int.from_bytes(head[:4]), head[4:]
        content = begin + 8
        if size == 1:
            size = int.from_bytes(window.read(content, 8))
            content += 8
        after = end if size == 0 else begin + size
        if after < content:
            return
        yield _Box(kind, content, min(after, end))
        begin = after


def _boxes_of(
    window: Window, begin: int, end: int, finds: Finds, *, depth: int, keys: Mapping[int, str] | None = None
) -> None:
    keys = keys or {}
    for box in _boxes(window, begin, end):
        if box.kind == b"uuid" and window.read(box.begin, 16) == _XMP:
            find_in_xmp(window.read(box.begin + 16, box.size - 16), finds)
        elif box.kind == b"XMP_":
            find_in_xmp(window.read(box.begin, box.size), finds)
        elif box.kind == b"keys":
            keys = _keys(window, box)
        elif box.kind == b"ilst":
            for item in _boxes(window, box.begin, box.end):
                _item(window, item, keys, finds)
        elif box.kind[:1] == b"\xa9":
            _quicktime_text(window, box, finds)
        elif box.kind in _HOLDERS and depth < _DEEPEST:
            inner = _begin_of_meta(window, box) if box.kind == b"meta" else box.begin
            _boxes_of(window, inner, box.end, finds, depth=depth + 1, keys=keys)
            if box.kind == b"meta" and depth == 0:
                _picture(window, inner, box.end, finds)


def _begin_of_meta(window: Window, box: _Box) -> int:
    """Where its boxes begin: behind four bytes of version and flags, which QuickTime has not."""
    return box.begin if window.read(box.begin + 4, 4) == b"hdlr" else box.begin + 4


def _keys(window: Window, box: _Box) -> dict[int, str]:
    """Names by the numbers that `ilst` calls them by."""
    found: dict[int, str] = {}
    for number, key in enumerate(_boxes(window, box.begin + 8, box.end), start=1):
        if number > _MOST_KEYS:
            break
        name = window.read(key.begin, min(key.size, 200)).decode("utf-8", "replace")
        found[number] = name.removeprefix("com.apple.quicktime.")
    return found


def _item(window: Window, item: _Box, keys: Mapping[int, str], finds: Finds) -> None:
    name = keys.get(int.from_bytes(item.kind)) or _NAMES.get(item.kind) or item.kind.decode("latin-1")
    for part in _boxes(window, item.begin, item.end):
        if part.kind == b"name":
            name = window.read(part.begin + 4, min(part.size - 4, 200)).decode("utf-8", "replace")
        elif part.kind == b"data":
            finds.add(name, window.read(part.begin + 8, part.size - 8))


def _quicktime_text(window: Window, box: _Box, finds: Finds) -> None:
    """A text with its length and its language before it, several of them in one box; or with neither."""
    content = window.read(box.begin, box.size)
    name = _NAMES.get(box.kind, box.kind[1:].decode("latin-1"))
    at = 0
    while (fields := numbers(">HH", content, at)) and 0 < fields[0] <= len(content) - at - 4:
        finds.add(name, content[at + 4 : at + 4 + fields[0]])
        at += 4 + fields[0]
    if at == 0:
        finds.add(name, content)


def _picture(window: Window, begin: int, end: int, finds: Finds) -> None:
    """Look at the items of a picture that are Exif or XMP."""
    picture = _Picture()
    for box in _boxes(window, begin, end):
        if box.kind == b"iinf":
            picture.kinds = _kinds(window, box)
        elif box.kind == b"iloc":
            picture.parts = _places(window.read(box.begin, box.size))
        elif box.kind == b"idat":
            picture.data = box.begin
    for item, kind in picture.kinds.items():
        content = b"".join(
            window.read(at if method == 0 else at + (picture.data or 0), size)
            for method, at, size in picture.parts.get(item, ())
        )
        if kind == b"Exif":
            find_in_exif(content[4 + int.from_bytes(content[:4]) :], finds)
        elif content:
            find_in_xmp(content, finds)


def _kinds(window: Window, box: _Box) -> dict[int, bytes]:
    """The items whose content may have texts: their kinds by their ids."""
    found: dict[int, bytes] = {}
    is_short = window.read(box.begin, 1) == b"\0"
    for entry in _boxes(window, box.begin + (6 if is_short else 8), box.end):
        content = window.read(entry.begin, min(entry.size, 64))
        long_id = content[:1] > b"\x02"
        (item,) = numbers(">I" if long_id else ">H", content, 4) or (0,)
        kind = content[10:14] if long_id else content[8:12]
        if kind in (b"Exif", b"mime") and len(found) < _MOST_ITEMS:
            found[item] = kind
    return found


def _places(content: bytes) -> dict[int, list[tuple[int, int, int]]]:
    """Where the parts of items are, by the items' ids: in the file (0) or in `idat` (1), from where, how long."""
    if len(content) < 8:
        return {}
    version, sizes = content[0], int.from_bytes(content[4:6])
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version in (1, 2) else 0
    reader = _Numbers(content, 6)
    found: dict[int, list[tuple[int, int, int]]] = {}
    for _ in range(min(reader.take(4 if version == 2 else 2), _MOST_ITEMS)):
        item = reader.take(4 if version == 2 else 2)
        method = reader.take(2) & 15 if version in (1, 2) else 0
        reader.take(2)
        base = reader.take(base_size)
        parts = found.setdefault(item, [])
        for _ in range(min(reader.take(2), _MOST_ITEMS)):
            reader.take(index_size)
            at, size = base + reader.take(offset_size), reader.take(length_size)
            if reader.is_over:
                return found
            parts.append((method, at, size))
    return found


class _Numbers:
    """Takes one number of some bytes behind another; 0 beyond the end."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content = content
        self._at = at

    def take(self, size: int) -> int:
        self._at += size
        return int.from_bytes(self._content[self._at - size : self._at])

    @property
    def is_over(self) -> bool:
        return self._at > len(self._content)
