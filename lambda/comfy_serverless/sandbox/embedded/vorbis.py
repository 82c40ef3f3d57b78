"""Finds Vorbis comments, `NAME=value`: in FLAC, and in the second packets of the streams of Ogg (Vorbis, Opus, …)."""

from __future__ import annotations

from collections.abc import Iterator

from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.id3 import length_of_id3
from comfy_serverless.sandbox.embedded.window import MOST_AT_ONCE, Window, numbers

FLAC, OGG = b"fLaC", b"OggS"
_COMMENTS_BLOCK, _LAST_BLOCK = 4, 0x80
#: How the packet with the comments begins; in FLAC within Ogg it is a block of metadata.
_PACKETS = (b"\x03vorbis", b"OpusTags", b"\x81theora", b"OVP80\x02 ")
_FLAC_BLOCK_HEAD = 4
_SPEEX = b"Speex   "
_FLAC_IN_OGG = b"\x7fFLAC"
_PAGE_HEAD, _FIRST_PAGE = 27, 0x02
_MOST_STREAMS, _MOST_PACKETS = 32, 200


def find_in_flac(window: Window, finds: Finds) -> None:
    """Look at the comments of a FLAC, also behind an ID3 tag."""
    offset = length_of_id3(window) + len(FLAC)
    while head := window.whole(offset, _FLAC_BLOCK_HEAD):
        size = int.from_bytes(head[1:])
        if head[0] & ~_LAST_BLOCK == _COMMENTS_BLOCK:
            _comments(window.read(offset + _FLAC_BLOCK_HEAD, size), finds)
        if head[0] & _LAST_BLOCK:
            return
        offset += _FLAC_BLOCK_HEAD + size


def find_in_ogg(window: Window, finds: Finds) -> None:
    """Look at the comments of each stream. Ends with the last stream that has begun at the beginning."""
    waiting: dict[int, _Stream] = {}
    for serial, packet in _packets(window):
        if serial not in waiting:
            if len(waiting) == _MOST_STREAMS:
                return
            waiting[serial] = _Stream(packet)
        elif waiting[serial].take(packet, finds) and all(stream.is_done for stream in waiting.values()):
            return


class _Stream:
    """A stream of Ogg, by its first packet."""

    def __init__(self, first: bytes) -> None:
        self._is_speex = first.startswith(_SPEEX)
        self._is_flac = first.startswith(_FLAC_IN_OGG)
        self._packets = 0
        self.is_done = first.startswith(b"fishead")

    def take(self, packet: bytes, finds: Finds) -> bool:
        """Look at a packet; returns whether the comments are found, or cannot come any more."""
        self._packets += 1
        begins = next((begins for begins in _PACKETS if packet.startswith(begins)), None)
        if begins is not None:
            _comments(packet[len(begins) :], finds)
        elif self._is_speex and self._packets == 1:
            _comments(packet, finds)
        elif self._is_flac and packet and packet[0] & ~_LAST_BLOCK == _COMMENTS_BLOCK:
            _comments(packet[_FLAC_BLOCK_HEAD:], finds)
        elif self._packets < (_MOST_PACKETS if self._is_flac else 2):
            return self.is_done
        self.is_done = True
        return True


def _packets(window: Window) -> Iterator[tuple[int, bytes]]:
    """The packets of all streams, with the numbers of their streams, as far as headers may go."""
    parts: dict[int, bytearray] = {}
    held = offset = 0
    while (head := window.whole(offset, _PAGE_HEAD)) and head.startswith(OGG):
        (serial,) = numbers("<I", head, 14) or (0,)
        lacing = window.read(offset + _PAGE_HEAD, head[26])
        body = window.read(offset + _PAGE_HEAD + len(lacing), sum(lacing))
        offset += _PAGE_HEAD + len(lacing) + sum(lacing)
        held += len(body)
        if held > MOST_AT_ONCE:
            return
        part = parts.setdefault(serial, bytearray())
        at = 0
        for size in lacing:
            part += body[at : at + size]
            at += size
            if size < 255:
                yield serial, bytes(part)
                part.clear()
    for serial, part in parts.items():  # the file breaks off within them
        if part:
            yield serial, bytes(part)


def _comments(content: bytes, finds: Finds) -> None:
    (vendor,) = numbers("<I", content) or (0,)
    (count,) = numbers("<I", content, 4 + vendor) or (0,)
    at = 8 + vendor
    for _ in range(count):
        size = numbers("<I", content, at)
        if size is None:
            return
        finds.add_pair(content[at + 4 : at + 4 + size[0]])
        at += 4 + size[0]
