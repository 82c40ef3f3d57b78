"""Finds texts in Matroska and WebM: tags of the whole file, wherever they stand in it.

SaveWEBM and SaveVideo write `PROMPT` and `WORKFLOW` before the first picture; others write tags behind the last one,
where the index at the beginning (SeekHead) says so. Otherwise clusters are stepped over, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

from comfy_serverless.sandbox.embedded.finds import Finds, decoded
from comfy_serverless.sandbox.embedded.window import Window

HEAD = b"\x1a\x45\xdf\xa3"
_SEGMENT, _SEEK_HEAD, _CLUSTER, _TAGS = 0x18538067, 0x114D9B74, 0x1F43B675, 0x1254C367
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_TAG, _SIMPLE_TAG, _NAME, _TEXT, _BINARY = 0x7373, 0x67C8, 0x45A3, 0x4487, 0x4485
_DEEPEST = 6
_LONGEST_HEAD = 12


def find_in_matroska(window: Window, finds: Finds) -> None:
    """Look at the tags of each segment."""
    for kind, begin, end in _elements(window, 0, window.size):
        if kind == _SEGMENT:
            _segment(window, begin, end, finds)


def _segment(window: Window, begin: int, end: int, finds: Finds) -> None:
    seen: set[int] = set()
    told: list[int] = []
    for kind, inner, after in _elements(window, begin, end):
        if kind == _SEEK_HEAD:
            told += [begin + position for position in _tags_in_index(window, inner, after)]
        elif kind == _TAGS:
            seen.add(inner)
            _tags(window, inner, after, finds, depth=0)
        elif kind == _CLUSTER and (told or seen):
            break
    for place in told:
        for kind, inner, after in _elements(window, place, end):
            if kind == _TAGS and inner not in seen:
                seen.add(inner)
                _tags(window, inner, after, finds, depth=0)
            break


def _tags_in_index(window: Window, begin: int, end: int) -> Iterator[int]:
    for kind, inner, after in _elements(window, begin, end):
        if kind != _SEEK:
            continue
        entry = {field: window.read(at, min(to - at, 8)) for field, at, to in _elements(window, inner, after)}
        if int.from_bytes(entry.get(_SEEK_ID, b"")) == _TAGS:
            yield int.from_bytes(entry.get(_SEEK_POSITION, b""))


def _tags(window: Window, begin: int, end: int, finds: Finds, *, depth: int) -> None:
    """Look at tags, and at tags in tags."""
    name = ""
    for kind, inner, after in _elements(window, begin, end):
        if kind in (_TAG, _SIMPLE_TAG) and depth < _DEEPEST:
            _tags(window, inner, after, finds, depth=depth + 1)
        elif kind == _NAME:
            name = decoded(window.read(inner, min(after - inner, 200)))
        elif kind in (_TEXT, _BINARY):
            finds.add(name, window.read(inner, after - inner))


def _elements(window: Window, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, beginning and end of each element. One of unknown size (a video that was sent live) goes to the end."""
    while begin < end:
        head = window.read(begin, _LONGEST_HEAD)
        id_bytes = _length_of(head[:1])
        size_bytes = _length_of(head[id_bytes : id_bytes + 1])
        content = begin + id_bytes + size_bytes
        if not 1 <= id_bytes <= 4 or not size_bytes or content > min(end, begin + len(head)):
            return
        bits = 7 * size_bytes
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes]) & (1 << bits) - 1
        after = end if size == (1 << bits) - 1 else content + size
        yield int.from_bytes(head[:id_bytes]), content, min(after, end)
        begin = after


def _length_of(first: bytes) -> int:
    """The bytes of a number, by its first one; 0 if it begins none."""
    return 9 - first[0].bit_length() if first and first[0] else 0
