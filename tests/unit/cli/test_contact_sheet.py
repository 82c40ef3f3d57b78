"""The contact sheet: where things stand, and what happens to texts that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from comfy_serverless.cli import contact_sheet as sheets
from comfy_serverless.cli.contact_sheet import CARD, MARGIN, PAPER, WIDTH, Card, Tile, contact_sheet, open_picture

RED, BLUE = (250, 0, 0), (0, 0, 250)


def picture(colour: tuple[int, int, int], width: int = 300, height: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def card(title: str = "a job", inputs: int = 1, results: int = 1) -> Card:
    return Card(
        title,
        "succeeded",
        [Tile(picture(RED), "before")] * inputs,
        [Tile(picture(BLUE), "after")] * results,
    )


def columns_of(sheet: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """The columns in which a colour is seen, somewhere."""
    mask = Image.new("L", sheet.size)
    mask.putdata([255 if pixel == colour else 0 for pixel in sheet.get_flattened_data()])
    box = mask.getbbox()
    return [] if box is None else list(range(box[0], box[2]))


def test_inputs_stand_left_of_the_results() -> None:
    sheet = contact_sheet([card()], title="Title", subtitle="")
    before, after = columns_of(sheet, RED), columns_of(sheet, BLUE)
    assert before
    assert after
    assert max(before) < min(after)


def test_pictures_keep_their_proportions() -> None:
    sheet = contact_sheet([Card("wide", "", (), [Tile(picture(BLUE, 1000, 100), "")])], title="", subtitle="")
    columns = columns_of(sheet, BLUE)
    rows = columns_of(sheet.transpose(Image.Transpose.TRANSPOSE), BLUE)
    assert len(columns) / len(rows) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_row_fills_the_width_between_the_margins(count: int) -> None:
    sheet = contact_sheet([card()] * count, title="", subtitle="")
    for y in range(MARGIN + 88 + 40, sheet.height - MARGIN, sheets._card_height() + sheets.GAP):
        assert sheet.getpixel((MARGIN - 2, y)) == PAPER
        assert sheet.getpixel((MARGIN + 3, y)) == CARD
        assert sheet.getpixel((WIDTH - MARGIN - 3, y)) == CARD
        assert sheet.getpixel((WIDTH - MARGIN + 2, y)) == PAPER


def test_a_card_that_no_longer_fits_begins_a_new_row() -> None:
    one = contact_sheet([card(results=3)], title="", subtitle="").height
    two = contact_sheet([card(results=3)] * 2, title="", subtitle="").height
    assert two - one == sheets._card_height() + sheets.GAP


def test_no_cards_are_a_sheet_with_a_title_alone() -> None:
    assert contact_sheet([], title="Nothing", subtitle="came back").width == WIDTH


def test_long_names_are_shortened_in_the_middle() -> None:
    font = sheets._font(16)
    shortened = sheets._shortened("a_very_long_name_of_a_file_00001_.png", font, 120)
    assert shortened.startswith("a_")
    assert shortened.endswith(".png")
    assert "…" in shortened
    assert font.getlength(shortened) <= 120


def test_long_texts_end_with_an_ellipsis() -> None:
    lines = sheets._wrapped("word " * 200, sheets._font(17), 200, max_lines=5)
    assert len(lines) == 5
    assert lines[-1].endswith("…")


def test_letters_that_the_font_does_not_have_are_replaced() -> None:
    assert sheets._plain("Grüße 3 × 4") == "Gruße 3 x 4"


def test_an_animation_is_shown_as_slices_of_its_frames(tmp_path: Path) -> None:
    first, second = picture(RED), picture(BLUE)
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], duration=100, lossless=True)
    shown = open_picture(tmp_path / "a.webp")
    assert shown.size == (300, 200)
    assert shown.getpixel((10, 100)) == RED
    assert shown.getpixel((290, 100)) == BLUE


def test_transparent_pictures_are_shown_without_transparency(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (250, 0, 0, 0)).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").mode == "RGB"
