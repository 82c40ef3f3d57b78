"""What the console's forms, tables and archives decide without a page, under Node."""

from __future__ import annotations

from pathlib import Path

from tests.typescript import run

HERE = Path(__file__).with_name("js")


def test_the_pure_parts_do_what_their_tests_say() -> None:
    told = run("--test", "--test-reporter=tap", *sorted(HERE.glob("*.test.mjs")), cwd=HERE)
    assert "# fail 0" in told, told
    assert "# skipped 0" in told, told
