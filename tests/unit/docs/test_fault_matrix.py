"""The fault matrix of the documentation is the one that the tests prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.faults import matrix

DOCUMENT = Path(__file__).parents[3] / "docs" / "reliability.md"


@pytest.mark.parametrize("title", matrix.SECTIONS)
def test_every_test_of_a_fault_says_what_it_proves(title: str) -> None:
    rows = matrix.rows_of(matrix.SECTIONS[title])
    assert rows
    assert [name for name, row in rows.items() if row is None] == []


def test_every_module_of_faults_is_in_the_matrix() -> None:
    folder = Path(matrix.__file__).parent
    modules = {module.__name__.rpartition(".")[2] for module in matrix.SECTIONS.values()}
    assert {path.stem for path in folder.glob("test_*.py")} == modules


def test_the_documentation_has_the_whole_matrix() -> None:
    assert matrix.markdown() in DOCUMENT.read_text(), "paste what `python -m tests.contract.faults.matrix` prints"
