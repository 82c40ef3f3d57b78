"""The fenced blocks of the documentation, each with the comment above it that says how it is tested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

_FENCED = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        kind: the marker's word before the colon: "run", "tested by", "not run", "request", …; empty without a marker.
        argument: what stands behind the colon.
    """

    page: Path
    line: int
    kind: str
    argument: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    """All blocks, in order. A `mermaid` block is a drawing without being told."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCED.finditer(text):
            kind, _, argument = (found[1] or ("drawing" if found[2] == "mermaid" else "")).partition(":")
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page, line, kind.strip(), argument.strip(), found[2], found[3])
