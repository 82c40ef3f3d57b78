"""Takes the folders of a machine out of a text, and leaves the names of its files. No IO.

    /opt/comfyui/models/a.safetensors        ──► …/a.safetensors
    '/Users/Jane Doe/ComfyUI/my input/a.png' ──► '…/a.png'
    C:\\Users\\Jane Doe\\a.png, D:/ai/a.png  ──► …/a.png
    \\\\server\\share\\a.png                 ──► …/a.png

Where a path ends is known between quotes, which is how Python writes one. Elsewhere a folder may have spaces only where
people name folders, and if more of the path follows, for a sentence goes on behind a path. All of it takes time in
proportion to the text, whatever that is: what is repeated gives nothing back, or a word.
"""

from __future__ import annotations

import re
from typing import Final

#: Folders at the root of a machine, or of a container with ComfyUI; of the first the folders in them have any names.
_OF_PEOPLE: Final = "applications|home|library|media|mnt|private|run|system|users|volumes|[a-z]/users"
_OF_MACHINES: Final = (
    "app|bin|boot|code|comfyui|content|data|dev|efs|etc|lib|lib64|models|nix|opt|proc|root|sbin|scratch|shared|srv"
    "|storage|sys|tmp|usr|var|workspaces?"
)
#: A letter of a name, and of one without dots: behind `a.txt` the sentence goes on.
_L, _PLAIN = (rf"[^\s/\"'`<>|:;,()\[\]{{}}{dot}]" for dot in ("", "."))
#: The same of Windows; in a word of a name brackets go together, as in `Program Files (x86)`.
_W, _BARE_W = r"[^\s\\/\"'`<>|:*?;,\[\]{}]", r"[^\s\\/\"'`<>|:*?;,\[\]{}().]"
_WORD_W: Final = rf"(?:{_BARE_W}|\({_BARE_W}++\))++"
#: Words that lead from a path to another one in a sentence: a folder with one of them is known between quotes only.
_JOINING: Final = "(?!(?:and|are|as|at|but|for|from|in|instead|into|is|nor|not|or|than|then|to|was|with)[ /])"
#: In a text in a text, `\\` stands for each `\`.
_BACK: Final = r"\\{1,2}+"
_FOLDER: Final = rf"(?:{_L}*+|{_PLAIN}++(?: {_JOINING}{_PLAIN}++){{1,3}})/"
_FOLDER_W: Final = (
    rf"(?:{_W}++(?:{_BACK}|/)|{_WORD_W}(?: {_WORD_W})++{_BACK}|{_WORD_W}(?: {_JOINING}{_WORD_W}){{1,3}}/)"
)
_LAST_W: Final = r"[^\s\\/\"'`<>|:*?;,\[\]{}()]*+"
#: A machine in a network. One letter is none: `\\d\w` is an expression.
_SERVER: Final = r"(?:[?.]|[a-z0-9][\w.$@-]++)"
_DRIVE: Final = rf"[a-z]:(?:{_BACK}|/(?!/))"
_SHARE: Final = rf"\\\\{_SERVER}\\(?!\\)|\\\\\\\\{_SERVER}\\\\(?!\\)"
#: What `*` or `?` stands behind is an expression, and no path; and `{` behind a command of TeX.
_NO_EXPRESSION: Final = r"(?![*?\\{])"
_PATH: Final = re.compile(
    # Between quotes: all up to the next one, unless another path or a sentence begins in it.
    rf"(?P<quote>[\"'`])(?P<start>/(?:{_OF_PEOPLE}|{_OF_MACHINES})/|(?:\\{{2,4}}[?.]{_BACK})?{_DRIVE}|{_SHARE})"
    r"(?P<whole>(?:(?!(?P=quote)| /)[^\n:;<>|*?])*+)(?P=quote)"
    rf"|(?<![\w.:/~*…#-])/(?:(?:{_OF_PEOPLE})/(?:{_FOLDER})*+|(?:{_OF_MACHINES})/(?:{_L}*+/)*+)(?P<file>{_L}*+)"
    rf"|(?<![\w/])(?:\\{{2,4}}[?.]{_BACK})?{_DRIVE}(?:{_FOLDER_W})++(?P<of_drive>{_LAST_W}){_NO_EXPRESSION}"
    rf"|(?<![\w\\:])(?:{_SHARE})(?P<folders>(?:{_FOLDER_W})*+)(?P<of_share>{_LAST_W}){_NO_EXPRESSION}"
    rf"|(?<![\w.:/\\~*…-])//[a-z0-9][\w.$@-]++/(?!/)(?:{_FOLDER})++(?P<of_server>{_L}*+)",
    re.IGNORECASE,
)
_SEPARATORS: Final = re.compile(r"[/\\]+")


def without_folders(text: str) -> str:
    """A text with `…` in place of the folders of paths; a file keeps its name, and so does what is no path."""
    return _PATH.sub(_shown, text) if "/" in text or "\\" in text else text


def _shown(found: re.Match[str]) -> str:
    if found["quote"] is not None:
        return _shown_in_quotes(found)
    if found["folders"] == "":  # a share alone: its name is no file's
        return "…"
    name = next(name for name in found.group("file", "of_drive", "of_share", "of_server") if name is not None)
    return f"…/{name}"


def _shown_in_quotes(found: re.Match[str]) -> str:
    quote, start, whole = found.group("quote", "start", "whole")
    path = whole.rstrip("\\")  # of a text in a text, where `\"` ends it
    *folders, name = _SEPARATORS.split(path)
    if not folders and not start.startswith(("/", "\\")):
        return found[0]  # C:\a.png
    is_share = not folders and start.startswith("\\")
    return f"{quote}{'…' if is_share else f'…/{name}'}{whole[len(path) :]}{quote}"
