"""What all commands have in common: tables that lose nothing, and texts that harm no terminal."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.cli.habits import one_line, seconds, size_in_words, table_lines, time_in_words

KEYS = ("id", "name", "owner", "created", "state", "jobs", "per min")
ROW = ["k_0123456789", "n" * 64, "o" * 64, "2026-11-29", "until 2026-12-29", "1000", "60000"]


def kept(lines: list[str]) -> str:
    """Everything that is printed, without the blanks."""
    return "".join("".join(lines).split())


def test_a_table_that_fits_has_a_line_for_each_row() -> None:
    lines = table_lines(("id", "jobs"), [["a", "2"], ["bcd", "1000"]], width=80, right={"jobs"})
    assert lines == ["id   jobs", "a       2", "bcd  1000"]


def test_a_reader_that_is_no_terminal_gets_each_row_in_one_line() -> None:
    assert len(table_lines(KEYS, [ROW], width=None, folds={"name", "owner"})) == 2


@pytest.mark.parametrize("width", [100, 80, 77])
def test_columns_that_may_be_folded_give_way(width: int) -> None:
    lines = table_lines(KEYS, [ROW], width=width, folds={"name", "owner"}, right={"jobs", "per min"})
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["id", "name", "owner", "created", "state", "jobs", "per", "min"]
    assert all(cell in "".join(line.ljust(width) for line in lines) for cell in (ROW[0], *ROW[3:]))
    assert kept(lines[1:]).count("o") == 64


@pytest.mark.parametrize("width", [60, 40, 20, 1])
def test_in_a_narrow_terminal_a_row_becomes_a_list_of_all_its_cells(width: int) -> None:
    lines = table_lines(KEYS, [ROW, ROW], width=width, folds={"name", "owner"})
    assert lines[: len(KEYS)] == [f"{title:<7}  {cell}" for title, cell in zip(KEYS, ROW, strict=True)]
    assert lines[len(KEYS)] == ""
    assert lines[len(KEYS) + 1 :] == lines[: len(KEYS)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(
    st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=4),
    st.integers(1, 120),
    st.sets(st.sampled_from(["a", "bb", "ccc"])),
)
def test_no_width_loses_a_letter(rows: list[list[str]], width: int, folds: set[str]) -> None:
    lines = table_lines(("a", "bb", "ccc"), rows, width=width, folds=folds)
    for letter in {letter for row in rows for cell in row for letter in one_line(cell) if not letter.isspace()}:
        wanted = sum(one_line(cell).count(letter) for row in rows for cell in row)
        assert kept(lines).count(letter) >= wanted


def test_a_letter_without_a_width_of_its_own_is_kept() -> None:
    assert "\U0001f3fb" in kept(table_lines(("a", "b"), [["\U0001f3fb", "x"]], width=80))


def test_control_characters_are_shown_and_do_nothing() -> None:
    assert one_line("a\x1b[31m\nb\u202e\ud800 ü狐") == r"a\x1b[31m\nb\u202e\ud800 ü狐"


@pytest.mark.parametrize(
    ("given_s", "words"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (151, "2:31"), (3723, "1:02:03"), (-1, "0 s")]
)
def test_times_are_read_at_a_glance(given_s: float, words: str) -> None:
    assert time_in_words(given_s) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (1_234_567, "1.2 MB"), (5e12, "5000.0 GB")],
)
def test_sizes_likewise(size: float, words: str) -> None:
    assert size_in_words(size) == words


@pytest.mark.parametrize("text", ["abc", "", "0", "-1", "nan", "inf", "1e300", "5s"])
def test_seconds_are_a_number_above_zero_and_it_is_said_in_words(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds above 0"):
        seconds(text)
    assert seconds("0.5") == 0.5
