"""Writes values as YAML that every reader takes alike (1.1 and 1.2). No IO."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

#: What a file says: texts, whole numbers, null, and mappings and lists of them.
Value = str | int | None | Mapping[str, "Value"] | Sequence["Value"]

#: A text that needs no quotes, wherever it stands outside brackets.
_PLAIN = re.compile(r"[A-Za-z0-9_./(][A-Za-z0-9_./()+@=~<>-]*(?:[ :][A-Za-z0-9_./()+@=~<>-]+)*", re.ASCII)
#: What YAML 1.1 or 1.2 takes for a number, a time or a truth.
_OTHER_KINDS = re.compile(
    r"[-+]?[0-9][0-9_]*(?:[.:][0-9_:.]*)?(?:e[-+]?[0-9]+)?|[-+]?\.[0-9_]*(?:e[-+]?[0-9]+)?|[-+]?\.(?:inf|nan)"
    r"|0[box][0-9a-f_]+|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*|null|true|false|yes|no|on|off|y|n",
    re.IGNORECASE | re.ASCII,
)
_THREE_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){2,}", re.ASCII)
#: A line of a block: what YAML can show, without what some readers take for the end of a line.
_BLOCK_LINE = re.compile("[\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
STEP: Final = 2


def scalar(value: str | int | None, *, style: str = "") -> str:
    """A value in one line. `style` is the quote that the text had before: "'", '"' or none."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if style == '"' or not value.isprintable():
        return _in_double_quotes(value)
    if style != "'" and _PLAIN.fullmatch(value) and not _is_other_kind(value):
        return value
    return "'" + value.replace("'", "''") + "'"


def flow(value: Value) -> str:
    """A value as JSON has it, which is YAML, too: for what stands in brackets."""
    if isinstance(value, str):
        return _in_double_quotes(value)
    if value is None or isinstance(value, int):
        return scalar(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_in_double_quotes(key)}: {flow(one)}" for key, one in value.items()) + "}"
    return "[" + ", ".join(map(flow, value)) + "]"


def block(value: Mapping[str, Value], indent: int) -> list[str]:
    """The lines of a mapping."""
    return [line for key, one in value.items() for line in keyed(key, one, indent)]


def keyed(key: str, value: Value, indent: int) -> list[str]:
    """The lines of a key and its value."""
    blanks = " " * indent
    if isinstance(value, str) and is_block_text(value):
        return [f"{blanks}{key}: {header(value)}", *text_lines(value, indent + STEP)]
    if isinstance(value, Mapping) and value:
        return [f"{blanks}{key}:", *block(value, indent + STEP)]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [f"{blanks}{key}:", *(line for one in value for line in item(one, indent + STEP))]
    if isinstance(value, str | int) or value is None:
        return [f"{blanks}{key}: {scalar(value)}"]
    return [f"{blanks}{key}: {flow(value)}"]


def item(value: Value, indent: int) -> list[str]:
    """The lines of an entry of a list, whose dash stands after `indent` blanks."""
    blanks = " " * indent
    if isinstance(value, Mapping) and value:
        first, *rest = block(value, indent + STEP)
        return [f"{blanks}- {first[indent + STEP :]}", *rest]
    return [f"{blanks}- {scalar(value) if isinstance(value, str | int) or value is None else flow(value)}"]


def is_block_text(text: str) -> bool:
    """Whether a text is written as a block, line by line."""
    return "\n" in text and bool(text.strip("\n")) and all(map(_BLOCK_LINE.fullmatch, text.split("\n")))


def header(text: str) -> str:
    """What stands before the lines of a block."""
    indented = str(STEP) if text[0] in " \t\n" else ""
    kept = "" if re.search(r"[^\n]\n\Z", text) else "+" if text.endswith("\n") else "-"
    return f"|{indented}{kept}"


def text_lines(text: str, indent: int) -> list[str]:
    """The lines of a block, without its header; an empty one has no blanks."""
    lines = text.removesuffix("\n").split("\n")
    return [" " * indent + line if line else "" for line in lines]


def _is_other_kind(text: str) -> bool:
    return bool(_OTHER_KINDS.fullmatch(text)) and not _THREE_NUMBERS.fullmatch(text)


def _in_double_quotes(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", shown)
