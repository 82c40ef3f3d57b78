"""Which lines of a report are run again, and why the others are not. No IO."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

from comfy_serverless.batches.cure import REPEATABLE, why_not
from comfy_serverless.batches.results import Row
from comfy_serverless.errors import STATUSES, InvalidRequest

#: What can be asked for, beside statuses, error codes and numbers of lines.
CURABLE, ALL = "curable", "all"
_LINES = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?")


@dataclass(frozen=True, slots=True)
class Selection:
    """The lines that are asked for: by words (`curable`, `all`, a status, an error code), or by their numbers."""

    words: frozenset[str]
    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str = CURABLE) -> Self:
        """Read `curable`, `all`, `canceled`, `out_of_memory,engine_crashed`, `12,40-60` …; commas mean "or".

        Raises InvalidRequest: there is no such status or code.
        """
        words, spans = set(), []
        for part in filter(None, map(str.strip, text.split(","))):
            if (match := _LINES.fullmatch(part)) is not None:
                first = int(match["first"])
                spans.append((first, int(match["last"] or first)))
            elif part in (CURABLE, ALL) or part in REPEATABLE or part in STATUSES:
                words.add(part)
            else:
                near = difflib.get_close_matches(part, [CURABLE, ALL, *REPEATABLE, *STATUSES], n=1)
                hint = f"did you mean {near[0]!r}?" if near else "see docs/errors.md for the codes."
                raise InvalidRequest(
                    f"{part[:100]!r} selects no lines: give curable, all, {', '.join(sorted(REPEATABLE))}, an error "
                    f"code, or numbers of lines like 12,40-60; {hint}"
                )
        return cls(frozenset(words), tuple(spans))

    def has(self, row: Row) -> bool:
        """Whether a line is asked for."""
        if any(first <= row.line <= last for first, last in self.spans):
            return True
        return bool(self.words & {ALL, row.status, row.code}) or (CURABLE in self.words and row.is_curable)


@dataclass(slots=True)
class Retry:
    """Goes through a report, and counts what it leaves out.

    Attributes:
        count: how many lines are run again.
        left_out: how many failed lines are not, by the reason in words.
    """

    selection: Selection
    count: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self, again: Iterable[tuple[Row, bytes]], *, bad_lines: int = 0) -> Iterator[bytes]:
        """The lines of the new manifest; `count` and `left_out` are complete when the last one has come.

        Args:
            again: `Results.again()`.
            bad_lines: how many lines were no requests (`bad_lines` of the summary). None of them is run again.
        """
        if bad_lines:
            self.left_out[why_not("bad", "")] += bad_lines
        for row, line in again:
            if self.selection.has(row):
                self.count += 1
                yield line + b"\n"
            elif CURABLE in self.selection.words:
                self.left_out[why_not(row.status, row.code)] += 1
            else:
                self.left_out[f"{row.code or row.status}: not asked for"] += 1
