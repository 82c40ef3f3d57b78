"""Paint `events/photo.jpg`, the photo of the sample events: our own, and the same on every machine.

python -m local.make_photo [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 768, 512
HORIZON = 330  # the row where the lake begins
SUN = (352, 200)
PHOTO = Path(__file__).parent.parent / "events" / "photo.jpg"

Field = npt.NDArray[np.float64]


def paint(seed: int = 7) -> Image.Image:
    """A sunset: a sky with clouds, four ranges of hills, and a lake that mirrors them."""
    random = np.random.default_rng(seed)
    land = _hills(_sky(random), random)
    picture = _lake(land, random)
    picture += random.normal(0, 0.012, (HEIGHT, WIDTH, 1))  # grain
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


def _sky(random: np.random.Generator) -> Field:
    rows = np.linspace(0, 1, HORIZON)[:, None, None]
    stops = np.array([0.0, 0.45, 0.75, 1.0])
    colours = np.array([[0.16, 0.20, 0.42], [0.55, 0.36, 0.52], [0.95, 0.55, 0.36], [1.0, 0.80, 0.48]])
    sky = np.concatenate([np.interp(rows, stops, colours[:, channel]) for channel in range(3)], axis=2)
    sky = np.repeat(sky, WIDTH, axis=1)

    y, x = np.mgrid[0:HORIZON, 0:WIDTH]
    distance = np.hypot(x - SUN[0], (y - SUN[1]) * 1.15)
    glow = np.exp(-distance / 120)[..., None]
    disc = np.clip((30 - distance) / 3, 0, 1)[..., None]

    clouds = _noise(random, (HORIZON, WIDTH), stretch=4)
    thickness = (np.clip((clouds - 0.52) * 3.4, 0, 1) * np.clip(1.25 - rows[..., 0], 0, 1))[..., None]
    lit = np.array([1.0, 0.60, 0.56]) * (0.78 + 0.4 * glow)
    sky = sky * (1 - 0.75 * thickness) + lit * 0.75 * thickness
    sky = 1 - (1 - np.clip(sky, 0, 1)) * (1 - glow * np.array([0.75, 0.48, 0.20]))
    return np.asarray(sky * (1 - disc) + np.array([1.0, 0.96, 0.80]) * disc)


def _hills(sky: Field, random: np.random.Generator) -> Field:
    """Ranges from far to near: each darker, bluer in its depth, rougher at its edge."""
    land = sky.copy()
    y = np.arange(HORIZON)[:, None]
    ranges = [
        (0.72, 22, (0.80, 0.46, 0.42)),
        (0.80, 30, (0.52, 0.32, 0.38)),
        (0.88, 34, (0.29, 0.20, 0.29)),
        (0.96, 26, (0.12, 0.10, 0.17)),
    ]
    for height, relief, colour in ranges:
        ridge = HORIZON * height - (_noise(random, (1, WIDTH), stretch=1)[0] - 0.5) * relief * 3
        cover = np.clip(y - ridge[None, :], 0, 1)[..., None]
        mist = np.clip((y - ridge[None, :]) / 70, 0, 0.35)[..., None]
        shade = np.array(colour) * (1 - mist) + np.array([0.86, 0.52, 0.42]) * mist
        land = land * (1 - cover) + shade * cover
    return land


def _lake(land: Field, random: np.random.Generator) -> Field:
    """The land above its mirror image, which waves shift sideways and the depth darkens."""
    depth = HEIGHT - HORIZON
    rows = np.clip(HORIZON - 1 - np.arange(depth) * 1.75, 0, HORIZON - 1).astype(int)
    ripples = _noise(random, (depth, WIDTH), stretch=14) - 0.5
    strength = np.linspace(2, 46, depth)[:, None]
    x = np.clip(np.arange(WIDTH)[None, :] + ripples * strength, 0, WIDTH - 1).astype(int)
    y = np.clip(rows[:, None] + ripples * strength * 0.9, 0, HORIZON - 1).astype(int)
    water = land[y, x] * np.linspace(0.86, 0.45, depth)[:, None, None]
    water = water + np.array([0.02, 0.03, 0.07])
    sparkle = np.clip(ripples - 0.17, 0, 1) * np.exp(-np.abs(np.arange(WIDTH) - SUN[0]) / 60)[None, :]
    water = water + sparkle[..., None] * np.array([3.2, 2.4, 1.4])
    return np.concatenate([land, water])


def _noise(random: np.random.Generator, shape: tuple[int, int], *, stretch: int) -> Field:
    """Fractal noise from 0 to 1, `stretch` times wider than high: octaves of random values, interpolated."""
    total: Field = np.zeros(shape)
    weight = 0.0
    for octave in range(1, 8):
        cells = 2**octave
        grid = random.random((max(2, cells * (1 if shape[0] == 1 else stretch) // 2 + 2), cells + 2))
        total += _smooth(grid, shape) * 0.55**octave
        weight += 0.55**octave
    total /= weight
    return np.asarray((total - total.min()) / (total.max() - total.min()))


def _smooth(grid: Field, shape: tuple[int, int]) -> Field:
    """A grid of values interpolated to `shape`, without edges where the cells meet."""

    def places(size: int, cells: int) -> tuple[npt.NDArray[np.int64], Field]:
        at = np.linspace(0, cells - 1.001, size)
        whole = at.astype(np.int64)
        part = at - whole
        return whole, np.asarray(part * part * (3 - 2 * part))

    (row, down), (column, along) = places(shape[0], grid.shape[0]), places(shape[1], grid.shape[1])
    top = grid[row][:, column] * (1 - along) + grid[row][:, column + 1] * along
    bottom = grid[row + 1][:, column] * (1 - along) + grid[row + 1][:, column + 1] * along
    return np.asarray(top * (1 - down[:, None]) + bottom * down[:, None])


if __name__ == "__main__":
    paint().save(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTO, quality=88, optimize=True)
