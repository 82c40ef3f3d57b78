"""Which classes a pack declares that did not import: its source is all there is to ask. Reads files, runs none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

#: `"Name": Class` as in NODE_CLASS_MAPPINGS, `node_id="Name"` as in a V3 schema, and the classes themselves: packs that
#: make their mapping by a program mostly use the classes' names.
_NAMES = re.compile(
    r"""(?P<quote>["'])(?P<key>[^"'\\\n]{1,120})(?P=quote)\s*:\s*(?!(?:True|False|None)\b)[A-Za-z_][\w.]*\s*[,}\n]"""
    r"""|\bnode_id\s*=\s*(?P<quote2>["'])(?P<id>[^"'\\\n]{1,120})(?P=quote2)"""
    r"""|^class\s+(?P<name>\w{1,120})""",
    re.MULTILINE,
)
_MOST_FILES = 500
_LARGEST_BYTES = 1 << 20
_MOST_NAMES = 2000


def declared_classes(pack: Path) -> frozenset[str]:
    """The names that the source of a pack seems to declare: all of its classes, and some names more.

    It has bounds, and nothing is raised: what cannot be read declares nothing.
    """
    return _names_in(pack, "key", "id", "name")


def mapped_names(pack: Path) -> frozenset[str]:
    """The names under which a pack seems to declare its classes; keys of other mappings are among them."""
    return _names_in(pack, "key", "id")


def _names_in(pack: Path, *groups: str) -> frozenset[str]:
    names: set[str] = set()
    for file in _sources(pack):
        for found in _NAMES.finditer(_text(file)):
            if len(names) >= _MOST_NAMES:
                return frozenset(names)
            names |= {found[group] for group in groups if found[group]}
    return frozenset(names)


def _sources(pack: Path) -> Iterator[Path]:
    """The pack's files of Python, those nearest to its top first."""
    if pack.is_file():
        yield pack
        return
    count = 0
    for folder, folders, names in os.walk(pack):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(folder, name)
                count += 1
                if count >= _MOST_FILES:
                    return


def _text(file: Path) -> str:
    try:
        with file.open("rb") as source:
            return source.read(_LARGEST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
