"""Colours of thumbnails: a profile's are brought to sRGB, and a profile that is no good changes none."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from comfy_serverless.sandbox import colours
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S
from tests.unit.picture_files import DISPLAY_P3, SRGB, profile

COLOUR = (200, 80, 60)
#: Red and green have changed their places: whoever knows profiles sees it at once.
SWAPPED = profile(SRGB[1], SRGB[0], SRGB[2])
Shows = Callable[[Image.Image, bytes | None], object]


@pytest.fixture
def shows(sandbox: Sandbox, tmp_path: Path) -> Shows:
    """The colour in a thumbnail's middle."""

    def show(image: Image.Image, icc: bytes | None, image_format: str = "PNG") -> object:
        path = tmp_path / "made"
        image.save(path, image_format, icc_profile=icc)
        with path.open("rb") as file:
            until = time.monotonic() + PATIENCE_S
            webp = sandbox.make_thumbnail(file.fileno(), is_video=False, deadline=until, turn="", owner="")
        small = Image.open(io.BytesIO(webp))
        assert "icc_profile" not in small.info
        return small.getpixel((small.width // 2, small.height // 2))

    return show


def is_near(seen: object, meant: tuple[int, ...], within: int = 12) -> bool:
    assert isinstance(seen, tuple)
    return len(seen) == len(meant) and all(abs(a - b) <= within for a, b in zip(seen, meant, strict=True))


def plain(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (64, 48), COLOUR).convert(mode)


def test_colours_of_a_profile_are_those_of_srgb(shows: Shows) -> None:
    assert is_near(shows(plain(), None), COLOUR)
    assert is_near(shows(plain(), profile(*SRGB)), COLOUR)
    assert is_near(shows(plain(), SWAPPED), (80, 200, 60))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_in_every_format(shows: Callable[..., object], image_format: str) -> None:
    assert is_near(shows(plain(), SWAPPED, image_format), (80, 200, 60), within=20)


def test_a_wide_gamut_is_as_strong_as_it_was(shows: Shows) -> None:
    """Display P3's (200, 80, 60) is more than its numbers say: in sRGB it has more red, and less of the others."""
    seen = shows(plain(), profile(*DISPLAY_P3))
    assert isinstance(seen, tuple)
    assert seen[0] > COLOUR[0] + 8
    assert seen[1] < COLOUR[1] - 4


def test_what_is_transparent_stays_so(shows: Shows) -> None:
    image = plain("RGBA")
    image.putalpha(128)
    assert is_near(shows(image, SWAPPED), (80, 200, 60, 128))


def hostile() -> dict[str, bytes]:
    """Profiles that are none, or say what is not so."""
    count_at, first_tag = 128, 132
    return {
        "short": SWAPPED[:100],
        "cut off": SWAPPED[:-40],
        "another mark": SWAPPED[:36] + b"none" + SWAPPED[40:],
        "of inks": SWAPPED[:16] + b"CMYK" + SWAPPED[20:],
        "a link of devices": SWAPPED[:12] + b"link" + SWAPPED[16:],
        "four billion tags": SWAPPED[:count_at] + b"\xff" * 4 + SWAPPED[count_at + 4 :],
        "a tag behind its end": SWAPPED[: first_tag + 4] + struct.pack(">I", 1 << 30) + SWAPPED[first_tag + 8 :],
        "a tag in its head": SWAPPED[: first_tag + 4] + struct.pack(">I", 4) + SWAPPED[first_tag + 8 :],
        "huge": SWAPPED + bytes(colours.MAX_BYTES),
    }


@pytest.mark.parametrize("name", sorted(hostile()))
def test_a_profile_that_is_none_changes_nothing_and_loses_nothing(shows: Callable[..., object], name: str) -> None:
    assert not colours.is_sound(hostile()[name], b"RGB ")
    assert is_near(shows(plain(), hostile()[name], "WEBP"), COLOUR, within=20)


def test_whatever_is_in_a_profile_there_is_a_picture(shows: Shows) -> None:
    """Bytes of a good one, changed at random: its table of contents may be good, and what it names nonsense."""
    chance = random.Random(19)
    for _ in range(60):
        changed = bytearray(SWAPPED)
        for _ in range(chance.randint(1, 12)):
            changed[chance.randrange(132, len(changed))] = chance.randrange(256)
        assert isinstance(shows(plain(), bytes(changed)), tuple)


def test_without_littlecms_colours_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colours, "ImageCms", None)
    assert colours.in_srgb(plain(), SWAPPED).getpixel((1, 1)) == COLOUR


@pytest.mark.parametrize("value", ["x" * 400, 5, 1.5, (1, 2), None], ids=["text", "number", "float", "several", "none"])
def test_what_a_tiff_has_in_a_profiles_place_may_be_anything(value: object) -> None:
    assert colours.in_srgb(plain(), value).getpixel((1, 1)) == COLOUR
