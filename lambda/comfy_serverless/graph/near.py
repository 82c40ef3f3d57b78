"""The names that were probably meant by one that is none. The work is bounded, whatever was sent."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

#: Longer names are not compared: letter by letter that takes time by the third power of their length.
LONGEST_NAME = 100
#: Of the candidates with the most letters in common, so many are compared letter by letter.
_COMPARED = 10
#: The work for all questions of one request, in letters that are looked at: below a second.
_BUDGET = 1_000_000
#: What a candidate costs beside its letters.
_EACH = 20


class Guesses:
    """Answers for one request. When it has worked for too long, it knows no more names: a hint is not worth it."""

    def __init__(self) -> None:
        self._left = _BUDGET

    def near(
        self,
        meant: str,
        known: Iterable[str],
        *,
        at_most: int = 1,
        likeness: float = 0.6,
        bare: Callable[[str], str] = str,
    ) -> list[str]:
        """The names that come nearest, the nearest first; none if none comes near.

        Args:
            likeness: how much of two names must be the same, from 0 to 1.
            bare: returns the part of a name that is compared.
        """
        pattern = bare(meant[: LONGEST_NAME + 1])
        if len(pattern) > LONGEST_NAME:
            return []
        matcher = SequenceMatcher(b=pattern)
        similar: list[tuple[float, str]] = []
        for name in known:
            if self._left <= 0:
                break
            self._left -= _EACH
            if len(name) > 2 * LONGEST_NAME:
                continue
            matcher.set_seq1(bare(name))
            if matcher.real_quick_ratio() >= likeness:
                self._left -= len(name)
                if (common := matcher.quick_ratio()) >= likeness:
                    similar.append((common, name))
        found: list[tuple[float, str]] = []
        for _, name in heapq.nlargest(_COMPARED, similar):
            self._left -= len(name) * len(pattern) // 4
            matcher.set_seq1(bare(name))
            if (ratio := matcher.ratio()) >= likeness:
                found.append((ratio, name))
        return [name for _, name in heapq.nlargest(at_most, found)]
