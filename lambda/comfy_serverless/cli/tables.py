"""Tables and texts of the commands, for people: nothing is left out, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        min_width: how far its texts may be folded, in characters; 0: they are never folded.
        is_number: whether it is flush right.
    """

    title: str
    min_width: int = 0
    is_number: bool = False


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below each other; where they do not fit, each one as a paragraph with a line for each of its cells."""
    texts = [[printable(text) for text in row] for row in rows]
    longest = [max(map(len, (column.title, *cells))) for column, cells in zip(columns, _columns(texts), strict=True)]
    least = [
        min(width, max(column.min_width, len(column.title))) if column.min_width else width
        for column, width in zip(columns, longest, strict=True)
    ]
    if sum(least) + _GAP * (len(columns) - 1) > console.width:
        _print_paragraphs(console, [column.title for column in columns], texts)
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, least, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=not column.min_width,
            overflow="fold",
            min_width=width,
        )
    for row in texts:
        table.add_row(*row)
    console.print(table, markup=False, highlight=False)


def printable(text: str) -> str:
    """Without characters that a terminal obeys: names and messages come from elsewhere."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    return list(zip(*rows, strict=True))


def _print_paragraphs(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    width = max(map(len, titles))
    for number, row in enumerate(rows):
        lines = [f"{title:<{width}}  {text}" for title, text in zip(titles, row, strict=True)]
        console.print("\n".join([*([""] if number else []), *lines]), markup=False, highlight=False, soft_wrap=True)
