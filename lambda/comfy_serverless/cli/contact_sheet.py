"""One picture of many jobs: what went in beside what came out, a card for each; or of many pictures, side by side.

Knows pictures and captions only, nothing of jobs or S3.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH = 1600
MARGIN = 48  # around the sheet
GAP = 24  # between cards
PADDING = 22  # inside a card
PICTURE_HEIGHT = 210
PICTURE_MAX_WIDTH = 330
TEXT_TILE_WIDTH = 250
ALARM_TILE_WIDTH = 420
TILE_GAP = 18
ARROW_WIDTH = 30
CORNER = 12
_HEADER = MARGIN + 88
_TILE_ROW_HEIGHT = PICTURE_HEIGHT + 52 + GAP

PAPER = (243, 240, 234)
CARD = (255, 255, 255)
INK = (38, 36, 44)
FAINT = (128, 124, 134)
LINE = (226, 222, 214)
NOTE = (247, 245, 240)
ALARM = (176, 42, 48)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture, or a text in a picture's place, with a caption of two lines below."""

    content: Image.Image | str
    caption: str
    detail: str = ""
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """One job: a heading, what went in, what came out."""

    title: str
    detail: str
    inputs: Sequence[Tile]
    results: Sequence[Tile]


def contact_sheet(cards: Sequence[Card], *, title: str, subtitle: str) -> Image.Image:
    """Lay the cards out in rows that fill the width, under a title."""
    rows = list(_rows(cards))
    sheet = _titled(_HEADER + len(rows) * (_card_height() + GAP) - GAP + MARGIN, title, subtitle)
    y = _HEADER
    for row in rows:
        x = MARGIN
        spare = WIDTH - 2 * MARGIN - GAP * (len(row) - 1) - sum(map(_card_width, row))
        for number, card in enumerate(row):
            right = x + _card_width(card) + spare * (number + 1) // len(row) - spare * number // len(row)
            _draw_card(sheet, card, (x, y, right, y + _card_height()))
            x = right + GAP
        y += _card_height() + GAP
    return sheet


def tile_sheet(tiles: Sequence[Tile], *, title: str, subtitle: str) -> Image.Image:
    """Lay tiles out in rows, without cards around them, under a title: for very many pictures."""
    rows = list(_tile_rows(tiles))
    height = _HEADER + len(rows) * _TILE_ROW_HEIGHT + MARGIN
    sheet = _titled(height, title, subtitle)
    for number, row in enumerate(rows):
        x = MARGIN
        for tile in row:
            _draw_tile(sheet, tile, x, _HEADER + number * _TILE_ROW_HEIGHT)
            x += _tile_size(tile)[0] + GAP
    return sheet


def open_picture(path: Path) -> Image.Image:
    """A picture as a tile shows it: an animation as slices of its frames, side by side."""
    with Image.open(path) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames == 1:
            return picture.convert("RGB")
        slices = picture.convert("RGB")
        for number in range(1, frames):
            picture.seek(number)
            left = picture.width * number // frames
            right = picture.width * (number + 1) // frames
            slices.paste(picture.convert("RGB").crop((left, 0, right, picture.height)), (left, 0))
        return slices


def _titled(height: int, title: str, subtitle: str) -> Image.Image:
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    inner = WIDTH - 2 * MARGIN
    draw.text((MARGIN, MARGIN - 6), _shortened(title, _font(40), inner), INK, _font(40), stroke_width=0.6)
    draw.text((MARGIN, MARGIN + 46), _shortened(subtitle, _font(20), inner), FAINT, _font(20))
    return sheet


def _tile_rows(tiles: Iterable[Tile]) -> Iterable[list[Tile]]:
    """Tiles in their order, as many to a row as fit."""
    row: list[Tile] = []
    left = WIDTH - 2 * MARGIN
    for tile in tiles:
        width = _tile_size(tile)[0]
        if row and width > left:
            yield row
            row, left = [], WIDTH - 2 * MARGIN
        row.append(tile)
        left -= width + GAP
    if row:
        yield row


def _rows(cards: Iterable[Card]) -> Iterable[list[Card]]:
    """Cards in their order, as many to a row as fit."""
    row: list[Card] = []
    left = WIDTH - 2 * MARGIN
    for card in cards:
        width = _card_width(card) + (GAP if row else 0)
        if row and width > left:
            yield row
            row, left, width = [], WIDTH - 2 * MARGIN, _card_width(card)
        row.append(card)
        left -= width
    if row:
        yield row


def _card_width(card: Card) -> int:
    tiles = [*card.inputs, *card.results]
    arrow = ARROW_WIDTH + TILE_GAP if card.inputs and card.results else 0
    inner = sum(_tile_size(tile)[0] for tile in tiles) + TILE_GAP * (len(tiles) - 1) + arrow
    heading = max(_font(22).getlength(card.title), _font(16).getlength(card.detail))
    return 2 * PADDING + max(inner, int(heading) + 1)


def _card_height() -> int:
    return PADDING + 64 + PICTURE_HEIGHT + 52 + PADDING


def _tile_size(tile: Tile) -> tuple[int, int]:
    if isinstance(tile.content, str):
        return ALARM_TILE_WIDTH if tile.alarm else TEXT_TILE_WIDTH, PICTURE_HEIGHT
    scale = min(PICTURE_HEIGHT / tile.content.height, PICTURE_MAX_WIDTH / tile.content.width)
    return max(1, round(tile.content.width * scale)), max(1, round(tile.content.height * scale))


def _draw_card(sheet: Image.Image, card: Card, box: tuple[int, int, int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rounded_rectangle(box, CORNER, CARD, LINE)
    left, top, right, _ = box
    draw.text((left + PADDING, top + PADDING - 4), _plain(card.title), INK, _font(22), stroke_width=0.3)
    draw.text((left + PADDING, top + PADDING + 26), _plain(card.detail), FAINT, _font(16))
    x, y = left + PADDING, top + PADDING + 64
    tiles = [*card.inputs, *card.results]
    spare = right - left - _card_width(card)
    for number, tile in enumerate(tiles):
        if card.inputs and number == len(card.inputs):
            x += _draw_arrow(draw, x, y + PICTURE_HEIGHT // 2, room=spare // 2)
        _draw_tile(sheet, tile, x, y)
        x += _tile_size(tile)[0] + TILE_GAP


def _draw_arrow(draw: ImageDraw.ImageDraw, x: int, y: int, *, room: int) -> int:
    """An arrow in the middle of its place, which takes up to 60 pixels of spare room; returns its width."""
    room = min(60, room)
    start = x + room // 2
    end = start + ARROW_WIDTH
    draw.line((start, y, end - 4, y), FAINT, 3)
    draw.polygon([(end, y), (end - 11, y - 7), (end - 11, y + 7)], FAINT)
    return ARROW_WIDTH + TILE_GAP + room


def _draw_tile(sheet: Image.Image, tile: Tile, x: int, y: int) -> None:
    draw = ImageDraw.Draw(sheet)
    width, height = _tile_size(tile)
    top = y + (PICTURE_HEIGHT - height) // 2
    if isinstance(tile.content, str):
        colour = ALARM if tile.alarm else INK
        draw.rounded_rectangle((x, top, x + width - 1, top + height - 1), 8, NOTE, ALARM if tile.alarm else LINE)
        lines = _wrapped(tile.content, _font(17), width - 32, max_lines=(height - 28) // 24)
        for number, line in enumerate(lines):
            draw.text((x + 16, top + 14 + 24 * number), line, colour, _font(17))
    else:
        sheet.paste(tile.content.resize((width, height), Image.Resampling.LANCZOS), (x, top))
        draw.rectangle((x - 1, top - 1, x + width, top + height), outline=LINE)
    below = y + PICTURE_HEIGHT + 10
    draw.text((x, below), _shortened(tile.caption, _font(16), width), INK, _font(16))
    draw.text((x, below + 21), _shortened(tile.detail, _font(14), width), FAINT, _font(14))


def _plain(text: str) -> str:
    """The text in the letters of Pillow's built-in font, which has no accents: every machine has that one."""
    letters = unicodedata.normalize("NFD", text.replace("×", "x"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _wrapped(text: str, font: Font, width: int, *, max_lines: int) -> list[str]:
    lines: list[str] = []
    for word in _plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, font, width))
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], _shortened(lines[max_lines - 1] + " …", font, width)]
    return lines


def _shortened(text: str, font: Font, width: int) -> str:
    """The text if it fits, otherwise as much of it as does, with an ellipsis in the middle."""
    text = shortened = _plain(text)
    keep = len(text)
    while keep > 2 and font.getlength(shortened) > width:
        keep -= 1
        shortened = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return shortened


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
