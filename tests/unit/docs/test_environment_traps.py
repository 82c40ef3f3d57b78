"""What docs/environments.md quotes of broken environments is what was recorded of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.doc_blocks import ROOT
from tests.environments import broken

PAGE = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
TABLES = re.findall(r"\| trap \| what you read \|\n\|---\|---\|\n((?:\|.*\|\n)+)", PAGE)
FILES = (broken.RECORDED, broken.RECORDED.with_name("not_imported.txt"))


def rows(table: str) -> list[tuple[str, list[str]]]:
    cells = [line.strip("|").split(" | ") for line in table.splitlines()]
    return [(trap.strip(), re.findall(r"`([^`]+)`", said.partition("; `env lock`")[0])) for trap, said in cells]


ROWS = [(file, trap, quoted) for file, table in zip(FILES, TABLES, strict=True) for trap, quoted in rows(table)]


def test_there_are_more_than_ten() -> None:
    assert len(ROWS) > 10
    assert all(quoted for _, _, quoted in ROWS)


@pytest.mark.parametrize(("file", "trap", "quoted"), ROWS, ids=[trap for _, trap, _ in ROWS])
def test_a_trap_says_what_the_page_says_that_it_says(file: Path, trap: str, quoted: list[str]) -> None:
    said = [text.replace("`", "") for text in broken.recorded(file).values()]
    assert any(all(part.strip() in text for part in quoted) for text in said), quoted
