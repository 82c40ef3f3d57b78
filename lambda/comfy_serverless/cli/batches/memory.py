"""A folder remembers the template by which a batch's files were named in it: all commands name them the same."""

from __future__ import annotations

import json
from pathlib import Path

FILE = ".comfy-serverless.json"


def template_in(folder: Path, batch_id: str) -> str | None:
    """The template of a batch's files in this folder; None if they were never fetched there."""
    template = _read(folder).get(batch_id)
    return template if isinstance(template, str) else None


def remember(folder: Path, batch_id: str, template: str) -> None:
    """Write it down. Raises OSError if the folder cannot be written."""
    known = _read(folder)
    if known.get(batch_id) != template:
        part = folder / f"{FILE}.part"
        part.write_text(json.dumps({**known, batch_id: template}, indent=1), encoding="utf-8")
        part.replace(folder / FILE)


def _read(folder: Path) -> dict[str, object]:
    try:
        known = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
