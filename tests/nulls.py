"""Nulls in a template: CloudFormation refuses one anywhere, and no linter says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where there is a null: `/Resources/X/Properties/Y/0`."""
    match value:
        case None:
            yield path
        case dict():
            for name, entry in value.items():
                yield from nulls(entry, f"{path}/{name}")
        case list():
            for index, entry in enumerate(value):
                yield from nulls(entry, f"{path}/{index}")
