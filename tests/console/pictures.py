"""Pictures of the pages: taken, kept, and compared with what was kept.

`shoot` leaves each in `out/console`. Those in `tests/console/pictures` are what a page shall look like, and what the
docs show. `make test-console UPDATE_PICTURES=1` keeps what is there now: look at it before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageChops, ImageDraw
from playwright.sync_api import Page, ViewportSize

from tests.console.browsing import PHONE, WIDE

KEPT = Path(__file__).with_name("pictures")
TAKEN = Path(__file__).parents[2] / "out" / "console"
#: What differs from run to run. A page marks its own with `data-varies`.
VARYING = ("time", "[data-varies]")
#: The parts of a picture that may look otherwise: another version of the browser draws letters a little differently.
MAX_DIFFERENT = 0.01
#: From which difference of a color (of 255) on a part is another one.
_NOTICED = 48
#: Letters are drawn anew with each version: parts of this many pixels are compared.
_PART = 4
_ALL_LOADED = """
() => Promise.all([...document.images]
  .filter((image) => image.getBoundingClientRect().top < innerHeight)
  .map((image) => image.decode().catch(() => null)))
"""


class Look(NamedTuple):
    """On what a page is looked at."""

    name: str
    viewport: ViewportSize
    scheme: Literal["light", "dark"]


LOOKS = (
    Look("wide", WIDE, "light"),
    Look("wide-dark", WIDE, "dark"),
    Look("phone", PHONE, "light"),
    Look("phone-dark", PHONE, "dark"),
)


def shoot(page: Page, name: str, *, varying: Sequence[str] = (), looks: Sequence[Look] = LOOKS) -> None:
    """Take pictures of what a page shows now, and compare each with the one that is kept.

    Args:
        page: it has the first look's size and colors afterwards.
        name: "jobs": the pictures are `jobs.wide.webp`, `jobs.phone-dark.webp`, …
        varying: selectors of what is another with each run, beside VARYING.
        looks: on what it is looked at.
    """
    problems = [problem for look in looks if (problem := _shoot(page, f"{name}.{look.name}", look, varying))]
    _look_at(page, LOOKS[0])
    assert not problems, "\n".join(problems)


def _shoot(page: Page, name: str, look: Look, varying: Sequence[str]) -> str | None:
    _look_at(page, look)
    page.evaluate(_ALL_LOADED)
    TAKEN.mkdir(parents=True, exist_ok=True)
    path = TAKEN / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    taken = Image.open(path).convert("RGB")
    kept_at = KEPT / f"{name}.webp"
    if os.environ.get("UPDATE_PICTURES"):
        KEPT.mkdir(exist_ok=True)
        taken.save(kept_at, quality=90, method=6)
        return None
    if not kept_at.is_file():
        return f"{name}: no picture is kept of it: make test-console UPDATE_PICTURES=1 keeps {path}."
    kept = Image.open(kept_at).convert("RGB")
    different = difference(taken, kept, _boxes(page, (*VARYING, *varying)))
    if different <= MAX_DIFFERENT:
        return None
    side = Image.new("RGB", (taken.width + kept.width, max(taken.height, kept.height)))
    side.paste(kept, (0, 0))
    side.paste(taken, (kept.width, 0))
    side.save(beside := TAKEN / f"{name}.differs.png")
    return (
        f"{name}: {different:.1%} looks otherwise than it did ({MAX_DIFFERENT:.1%} may): {beside} has what was kept, "
        "and what is now. If that is meant: make test-console UPDATE_PICTURES=1"
    )


def difference(one: Image.Image, other: Image.Image, boxes: Sequence[tuple[float, float, float, float]] = ()) -> float:
    """How much of two pictures looks different, from 0 to 1; 1 if their sizes do. What lies in boxes is the same."""
    if one.size != other.size:
        return 1.0
    small = [_without(picture, boxes).reduce(_PART) for picture in (one, other)]
    channels = ImageChops.difference(*small).split()
    most = ImageChops.lighter(ImageChops.lighter(channels[0], channels[1]), channels[2])
    return sum(most.histogram()[_NOTICED:]) / (most.width * most.height)


def _without(picture: Image.Image, boxes: Sequence[tuple[float, float, float, float]]) -> Image.Image:
    covered = picture.copy()
    draw = ImageDraw.Draw(covered)
    for left, top, width, height in boxes:
        draw.rectangle((left - 2, top - 2, left + width + 2, top + height + 2), fill="gray")
    return covered


def _boxes(page: Page, selectors: Sequence[str]) -> list[tuple[float, float, float, float]]:
    found: list[list[float]] = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].map((element) => {
          const {left, top, width, height} = element.getBoundingClientRect();
          return [left, top, width, height];
        })""",
        ", ".join(selectors),
    )
    return [(left, top, width, height) for left, top, width, height in found if width and height]


def _look_at(page: Page, look: Look) -> None:
    page.emulate_media(color_scheme=look.scheme)
    page.set_viewport_size(look.viewport)
