"""Tables that the code knows are committed as it knows them now."""

from __future__ import annotations

from dataclasses import fields

import pytest

from comfy_serverless import errors
from comfy_serverless.errors import ComfyError
from comfy_serverless.settings import Settings
from tests.doc_blocks import ROOT
from tools import docs_pages

PAGES = {"settings.md": {"settings"}, "errors.md": {"job_errors", "refusals"}, "operate.md": {"templates"}}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_it_would_be_generated(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert docs_pages.fill(page) == page, "run `make docs`, and commit what it has changed"
    assert all(docs_pages.TABLES[table]() in page for table in PAGES[name])


def test_every_setting_and_every_code_has_a_row() -> None:
    settings = docs_pages.settings_table()
    assert [s.name for s in fields(Settings) if f"| `{s.metadata['variable']}` |" not in settings] == []
    rows = docs_pages.job_errors_table() + docs_pages.refusals_table()
    codes = {error.code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, ComfyError)}
    assert [code for code in codes if code and f"| `{code}` |" not in rows] == []
