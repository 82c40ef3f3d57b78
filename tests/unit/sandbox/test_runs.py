"""BMPs of runs become the pictures that Pillow makes of them, in steps that are as many as their runs."""

from __future__ import annotations

import io
import random
import sys
from types import FrameType
from typing import Any

import pytest
from PIL import BmpImagePlugin, Image

from comfy_serverless.sandbox import runs
from tests.unit.picture_files import bmp_of_runs


def decoded(content: bytes, decoder: Any, monkeypatch: pytest.MonkeyPatch) -> bytes | None:
    """The pixels; None if there are too few."""
    monkeypatch.setitem(Image.DECODERS, "bmp_rle", decoder)
    try:
        return Image.open(io.BytesIO(content), formats=["BMP"]).tobytes()
    except ValueError:
        return None


@pytest.mark.parametrize("has_halves", [False, True], ids=["bytes", "halves"])
def test_any_runs_are_what_pillow_makes_of_them(has_halves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    compared = 0
    for _ in range(2000):
        packed = bytes(chance.choice((0, 0, 1, 2, 3, 4, 7, chance.randrange(256))) for _ in range(chance.randrange(90)))
        content = bmp_of_runs(packed, (chance.randrange(1, 20), chance.randrange(1, 6)), has_halves=has_halves)
        expected = decoded(content, BmpImagePlugin.BmpRleDecoder, monkeypatch)
        found = decoded(content, runs.Runs, monkeypatch)
        assert found is not None
        if expected is not None:
            assert found == expected, packed.hex()
            compared += 1
    assert compared > 500


def steps(packed: bytes, width: int, *, has_halves: bool) -> int:
    """How many lines of Python unpacking takes."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        runs._unpacked(packed, width, 10, is_odd=0, has_halves=has_halves)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("has_halves", [False, True], ids=["bytes", "halves"])
@pytest.mark.parametrize("line", [b"\x01\x05\0\0", b"\xff\x12\0\0", b"\0\2\1\1"], ids=["short", "run", "move"])
def test_pixels_cost_no_steps(line: bytes, has_halves: bool) -> None:
    assert steps(line * 9, 300, has_halves=has_halves) == steps(line * 9, 300_000, has_halves=has_halves)
