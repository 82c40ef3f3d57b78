"""Names for inputs and outputs: short words in snake_case, made of titles that somebody gave. No IO."""

from __future__ import annotations

import keyword
import re
import unicodedata
from typing import Final

#: What people may call an input or an output.
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
#: Not as names of inputs: a run's body has its inputs under this one.
RESERVED: Final = frozenset({"inputs"})
_LONGEST: Final = 40
#: What titles have beside what is meant.
_NOISE: Final = frozenset(
    {"load", "loader", "upload", "input", "node", "primitive", "select", "enter", "your", "the", "a"}
)
_LETTERS: Final = str.maketrans(
    {
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ı": "i",
    }
)
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_CALLED: Final = {("positive",): "prompt", ("positive", "prompt"): "prompt", ("negative",): "negative_prompt"}


def unfit(name: object) -> str:
    """Why no input may be called so, as the rest of a sentence; "" if one may."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "is no name: it has 1 to 64 letters, digits or '_', and begins with a letter"
    return "is reserved: a run's body has its inputs under it" if name in RESERVED else ""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in small Latin letters; those of other scripts are left out."""
    plain = unicodedata.normalize("NFKD", text[:500].translate(_LETTERS)).encode("ascii", "ignore").decode()
    return tuple(word.lower() for word in _WORD.findall(_HUMP.sub(" ", plain)))


def name_of(text: str, *, noise: frozenset[str] = _NOISE) -> str:
    """A name made of a title or a label; "" if there is nothing in it to make one of."""
    words = words_of(text)
    words = tuple(word for word in words if word not in noise) or words
    if words in _CALLED:
        return _CALLED[words]
    first = next((place for place, word in enumerate(words) if word[0].isalpha()), len(words))
    words = (*words[first:], *words[:first]) if first < len(words) else ()  # `3D model` is `model_3d`
    name = ""
    for word in words:
        longer = f"{name}_{word}" if name else word
        if len(longer) > _LONGEST:
            break
        name = longer
    return f"{name}_value" if name in RESERVED or keyword.iskeyword(name) else name


class Names:
    """The names that are given out: each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def take(self, *wishes: str) -> str:
        """The first wish that is free; else the first one with a number. One wish at least is a name."""
        good = [wish for wish in wishes if wish]
        free = next((wish for wish in good if wish not in self._taken), None)
        while free is None:
            number = self._numbers[good[0]] = self._numbers.get(good[0], 1) + 1
            numbered = f"{good[0]}_{number}"
            free = numbered if numbered not in self._taken else None
        self._taken.add(free)
        return free
