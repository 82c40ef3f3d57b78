"""Decodes a BMP that is packed as runs, in time that its file explains. Runs in the child.

Pillow's own decoder fills up each line, and unpacks each run of half bytes, pixel by pixel in Python: a file of a
kilobyte takes it eight seconds. And it has no picture where runs end before the image does; to ComfyUI (0.33.0) what
they leave out is background.
"""

from __future__ import annotations

from PIL import Image, ImageFile

from comfy_serverless.sandbox.refused import Refused

#: Each takes Python a moment. A run has one pixel at least, and two bytes.
_MOST_RUNS = 4_000_000
_END_OF_LINE, _END, _MOVE = 0, 1, 2


class Runs(ImageFile.PyDecoder):
    """As Pillow's decoder of that name."""

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:  # noqa: ARG002  (as all)
        """As every decoder. Raises Refused if the file has too many runs."""
        assert self.fd is not None  # noqa: S101  (`_pulls_fd`)
        is_odd, has_halves = self.fd.tell() % 2, bool(self.args[1])
        pixels = _unpacked(self.fd.read(), self.state.xsize, self.state.ysize, is_odd=is_odd, has_halves=has_halves)
        rawmode = "L" if self.mode in {"1", "L"} else "P"
        self.set_as_raw(bytes(pixels), rawmode, (0, self.args[-1]))
        return -1, 0


def _unpacked(packed: bytes, width: int, height: int, *, is_odd: int, has_halves: bool) -> bytearray:
    """A byte for each pixel, from the lowest line on.

    Args:
        is_odd: whether the runs begin at an odd place in their file; what is not in runs ends at an even one.
        has_halves: each byte of a run has two pixels.
    """
    size, end = width * height, len(packed) - 1
    pixels = bytearray()
    position = column = runs = 0
    while len(pixels) < size and position < end:
        runs += 1
        if runs > _MOST_RUNS:
            raise Refused(f"is packed as more than {_MOST_RUNS:,} runs, the limit for a BMP: save it as PNG")
        count, value = packed[position], packed[position + 1]
        position += 2
        if count:
            count = max(0, min(count, width - column))
            run = bytes((value >> 4, value & 15)) if has_halves else packed[position - 1 : position]
            pixels += (run * count)[:count]
            column += count
        elif value == _END_OF_LINE:
            pixels += bytes(-len(pixels) % width)
            column = 0
        elif value == _END:
            break
        elif value == _MOVE:
            right, up = (*packed[position : position + 2], 0, 0)[:2]
            position += 2
            pixels += bytes(min(size - len(pixels), right + up * width))
            column = len(pixels) % width
        else:
            taken = packed[position : position + ((value + 1) // 2 if has_halves else value)]
            position += len(taken)
            position += (position + is_odd) % 2
            plain = bytes(half for byte in taken for half in (byte >> 4, byte & 15)) if has_halves else taken
            pixels += plain[:value]
            column += value
    pixels += bytes(max(0, size - len(pixels)))
    return pixels[:size]
