r"""Dynamic prompts: comments are removed, and of `{a|b}` one alternative is taken. No IO.

Observed of the official editor 1.49.6: `/* … */` and `// …` to the end of the line go first, so an address loses what
stands after `http:`. `{a|b|c}` becomes one of them, also nested; `{x}` becomes x; `\{`, `\}` and `\|` the plain
character; other backslashes stay.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

_OPENS, _LINE_OPENS = re.compile(r"/[*/]"), re.compile(r"//")
_LINE_END = re.compile(r"[\n\r\u2028\u2029]|\Z")
_TOKEN = re.compile(r"\\[\s\S]|[{}|]")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A text as it is sent, whether a choice was made, and whether comments were removed."""

    text: str
    rolled: bool
    lost_comments: bool


class Dice:
    """Chooses between alternatives: the same for the same seed and place, on every machine. None: always the first."""

    def __init__(self, seed: str | None, place: str) -> None:
        self._seed, self._place, self._rolls = seed, place, 0

    def roll(self, sides: int) -> int:
        """A number from 0 to `sides` - 1."""
        if self._seed is None or sides == 1:
            return 0
        self._rolls += 1
        digest = hashlib.sha256(f"{self._seed}\n{self._place}\n{self._rolls}".encode(errors="replace")).digest()
        return int.from_bytes(digest[:16], "big") % sides


#: Texts, and what was chosen within them. Put together at the end only: each level would copy what is nested in it.
_Pieces = list[Any]


@dataclass(slots=True)
class _Choice:
    """A `{…|…}` that is being read: the alternatives before, and the pieces of the one at hand."""

    alternatives: list[_Pieces] = field(default_factory=list)
    pieces: _Pieces = field(default_factory=list)

    def end_alternative(self) -> None:
        self.alternatives.append(self.pieces)
        self.pieces = []


def without_comments(text: str) -> str:
    """A text without its comments, in one pass: a block that nobody closes is none."""
    kept: list[str] = []
    at = look_from = 0
    opens = _OPENS
    while (opened := opens.search(text, look_from)) is not None:
        if opened[0] == "//":
            close = _LINE_END.search(text, opened.end())
            after = len(text) if close is None else close.start()
        else:
            after = text.find("*/", opened.end()) + len("*/")
            if after < len("*/"):  # none is closed from here on, so only lines are left
                opens = _LINE_OPENS
                continue
        kept.append(text[at : opened.start()])
        at = look_from = after
    return "".join([*kept, text[at:]])


def choose(text: str, dice: Dice) -> Chosen:
    """A text with its comments removed, and with one alternative of each choice."""
    plain = without_comments(text)
    lost, rolled = plain != text, False
    open_choices = [_Choice()]
    at = 0
    for token in _TOKEN.finditer(plain):
        current = open_choices[-1]
        current.pieces.append(plain[at : token.start()])
        at, found = token.end(), token[0]
        if found == "{":
            open_choices.append(_Choice())
        elif found == "|" and len(open_choices) > 1:
            current.end_alternative()
        elif found == "}" and len(open_choices) > 1:
            current.end_alternative()
            open_choices.pop()
            rolled = rolled or len(current.alternatives) > 1
            open_choices[-1].pieces.append(current.alternatives[dice.roll(len(current.alternatives))])
        else:  # two backslashes are no escape of what follows them
            current.pieces.append(found[-1] if found[-1] in "{}|" else found)
    open_choices[-1].pieces.append(plain[at:])
    while len(open_choices) > 1:  # a brace that nobody closes ends with the text
        unclosed = open_choices.pop()
        unclosed.end_alternative()
        rolled = rolled or len(unclosed.alternatives) > 1
        open_choices[-1].pieces.append(unclosed.alternatives[dice.roll(len(unclosed.alternatives))])
    return Chosen(_joined(open_choices[0].pieces), rolled, lost)


def _joined(pieces: _Pieces) -> str:
    """The text of pieces, at any depth."""
    texts: list[str] = []
    pending: list[Any] = [pieces]
    while pending:
        piece = pending.pop()
        if isinstance(piece, str):
            texts.append(piece)
        else:
            pending += reversed(piece)
    return "".join(texts)
