"""Paints the stand-in for a model's picture: a landscape drawn from a text and a seed, with a band that says so.

All randomness comes from SHAKE-256 of the text and the seed: the same picture on every machine and in every release
of numpy. Positions are fractions of the picture: a small painting is the large one seen from afar.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

from comfy_lite.node import Pixels
from comfy_lite.nodes.pixels import from_pillow, to_pillow

STATEMENT = "comfy_lite stand-in · no model was run"

_Floats = npt.NDArray[np.float32]
_RIDGES = 6
_BAND = (12, 14, 20, 205)
_SMALLEST_TEXT, _LARGEST_TEXT = 8, 26


@dataclass(frozen=True, slots=True)
class Motif:
    """What a painting shows. Equal motifs give equal paintings."""

    text: str
    seed: int
    steps: int

    def drawn(self, purpose: str, count: int) -> _Floats:
        """`count` numbers from 0 to 1, unique to this motif and purpose."""
        # JSON can carry half a character (a lone surrogate), which UTF-8 cannot.
        key = f"{self.seed}/{purpose}/{self.text}".encode(errors="surrogatepass")
        integers = np.frombuffer(hashlib.shake_256(key).digest(2 * count), "<u2")
        return integers.astype(np.float32) / np.float32(65535)


def paint(motif: Motif, width: int, height: int) -> Pixels:
    """Paint the landscape: one image (height, width, 3). More steps, more detail."""
    mood, warmth, daylight, sun_x, sun_y = motif.drawn("mood", 5)
    sky_hue, sun_hue = 0.5 + 0.25 * mood, 0.02 + 0.12 * warmth
    zenith, horizon = _rgb(sky_hue, 0.75, 0.25 + 0.45 * daylight), _rgb(sun_hue, 0.35, 0.75 + 0.25 * daylight)
    x = ((np.arange(width) + 0.5) / width).astype(np.float32)
    y = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, np.newaxis]
    # How many changes per picture height still look smooth.
    sharpness = height / 1.5

    image = np.empty((height, width, 3), np.float32)
    image[...] = _mix(zenith, horizon, np.clip(y / 0.62, 0, 1) ** 1.4)[:, np.newaxis]
    distance = np.hypot((x - 0.15 - 0.7 * sun_x) * (width / height), y - 0.12 - 0.28 * sun_y)
    _cover(image, _rgb(sun_hue, 0.75, 1.0), 0.75 * np.exp(-5 * distance))
    _cover(image, _rgb(sun_hue, 0.0, 1.0), np.clip((0.055 - distance) * sharpness, 0, 1))
    for depth in range(1, _RIDGES + 1):
        nearness = depth / _RIDGES
        ridge = 0.34 + 0.56 * nearness**1.3 - (0.30 - 0.12 * nearness) * _noise(motif, f"ridge {depth}", x, depth)
        color = _mix(horizon, _rgb(sky_hue, 0.65, 0.12), np.array(0.25 + 0.75 * nearness))
        below = slice(int(ridge.min() * height), None)
        slope = y[below] - ridge.astype(np.float32)
        mist = np.clip(2.2 * slope, 0, 1) * np.float32(0.8 * (1 - nearness))
        _cover(image[below], _mix(color, horizon, mist[..., np.newaxis]), np.clip(slope * sharpness, 0, 1))
    return np.clip(image, 0, 1)


def static(motif: Motif, width: int, height: int) -> Pixels:
    """The noise that a sampler starts from."""
    return motif.drawn("static", width * height * 3).reshape(height, width, 3)


def signed(image: Pixels, lines: tuple[str, ...]) -> Pixels:
    """The image with a band at its foot that says it is a stand-in, followed by as many of `lines` as fit."""
    height, width = image.shape[:2]
    size = min(max(width // 26, _SMALLEST_TEXT), _LARGEST_TEXT)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels bring FreeType"  # noqa: S101
    margin, line_height = size // 3, round(size * 1.3)
    statement = list(_wrap(STATEMENT, font, width - 2 * margin))
    room = max(int(height * 0.6) // line_height - len(statement), 0)
    details = [_shorten(line, font, width - 2 * margin) for line in lines if line][:room]

    picture = to_pillow(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    top = max(height - line_height * len(statement + details) - 2 * margin, 0)
    draw.rectangle((0, top, width, height), fill=_BAND)
    for number, line in enumerate(statement + details):
        color = (255, 255, 255) if number < len(statement) else (205, 205, 205)
        draw.text((margin, top + margin + number * line_height), line, font=font, fill=color)
    return from_pillow(picture)


def _noise(motif: Motif, purpose: str, x: _Floats, depth: int) -> _Floats:
    """Value noise of several octaves along x, from 0 to 1."""
    total, weight = np.zeros_like(x), 0.0
    for octave in range(min(3 + motif.steps // 4, 8)):
        cells = (2 + depth // 3) * 2**octave
        knots = motif.drawn(f"{purpose} {octave}", cells + 1)
        position = x * cells
        cell = position.astype(np.intp)
        t = position - cell
        t = t * t * (3 - 2 * t)
        total += (knots[cell] * (1 - t) + knots[cell + 1] * t) / 2**octave
        weight += 1 / 2**octave
    return np.asarray(total / weight, np.float32)


def _cover(image: _Floats, color: _Floats, opacity: _Floats) -> None:
    image += (color - image) * opacity[..., np.newaxis]


def _mix(first: _Floats, second: _Floats, share: _Floats) -> _Floats:
    """Blend from the first (share 0) to the second (share 1)."""
    return np.asarray(first + (second - first) * share, np.float32)


def _rgb(hue: float, saturation: float, value: float) -> _Floats:
    offsets = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    channels = value - value * saturation * np.clip(np.minimum(offsets, 4 - offsets), 0, 1)
    return np.asarray(channels, np.float32)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        line = longer
    yield line


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text as one line that fits, in letters that the built-in font has."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split())).encode("ascii", "ignore").decode()
    if font.getlength(plain) <= width:
        return plain
    plain = plain[:width]  # no letter is narrower than a pixel
    while plain and font.getlength(f"{plain}…") > width:
        plain = plain[:-1]
    return f"{plain}…"
