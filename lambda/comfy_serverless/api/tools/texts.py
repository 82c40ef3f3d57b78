"""Texts and schemas of other people, made safe to show to an agent. No IO.

What an author has written is data: it is shortened, its invisible characters go, and of a schema only keywords that
describe a value stay. A call is checked by the workflow's own schema, whatever is shown of it.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from comfy_serverless.workflows.naming import NAME

#: Letters of a title, of a description, and of a text that stands in a schema.
LONGEST_TITLE, LONGEST_DESCRIPTION, LONGEST_TEXT = 100, 2_000, 500
#: Choices that a schema lists; of more it only says how many there are.
MOST_CHOICES: Final = 200
#: Bytes of a schema, as JSON; a larger one loses its descriptions first, then its choices.
MOST_SCHEMA_BYTES: Final = 30_000
#: Control characters, halves of characters, private ones, and what has no meaning yet. Format characters (Cf) hide
#: texts from people (tags, zero-width letters) or turn them around.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BLANKS: Final = re.compile(r"[^\S\n]+")
_LINES: Final = re.compile(r"\n{3,}")
_VALUES: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS: Final = ("minItems", "maxItems")
_LEVELS: Final = 4
_NAMES: Final = ("format", "contentMediaType", "contentEncoding")
_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


def plain(text: object, most: int, *, is_line: bool = False) -> str:
    """A text as people see it, at most so long: no control or invisible characters. A line has no ends of lines."""
    seen = "".join(
        sign if sign == "\n" or unicodedata.category(sign) not in _UNSEEN else " " if sign in "\t\r" else ""
        for sign in str(text)[: 4 * most]
    )
    if is_line:
        seen = seen.replace("\n", " ")
    seen = _LINES.sub("\n\n", _BLANKS.sub(" ", seen)).strip()
    return seen if len(seen) <= most else f"{seen[: most - 1].rstrip()}…"


def shown_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a workflow's inputs as a tool's: an object of these properties and no other, not too large."""
    properties = schema.get("properties")
    given = {name: one for name, one in properties.items() if NAME.fullmatch(name)} if properties else {}
    required = [name for name in schema.get("required", ()) if name in given]
    for keeps in ((True, True, True), (False, True, True), (False, False, True), (False, False, False)):
        shown: dict[str, Any] = {
            "type": "object",
            "properties": {name: _value(value, *keeps) for name, value in given.items()},
            "additionalProperties": False,
        }
        if required:
            shown["required"] = required
        if len(json.dumps(shown)) <= MOST_SCHEMA_BYTES:
            break
    return shown


def _value(
    schema: object, has_texts: bool, has_choices: bool, has_default: bool, levels: int = _LEVELS
) -> dict[str, Any]:
    """The part of a schema that is about one value, with the keywords that we know."""
    if not isinstance(schema, Mapping) or not levels:
        return {}
    shown: dict[str, Any] = {}
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if kinds and all(isinstance(one, str) and one in _TYPES for one in kinds) and len(set(kinds)) == len(kinds):
        shown["type"] = kind
    if has_texts:
        shown |= _texts(schema)
    shown |= {name: schema[name] for name in _VALUES if _is_number(schema.get(name))}
    shown |= {name: schema[name] for name in _COUNTS if type(schema.get(name)) is int and schema[name] >= 0}
    shown |= {name: plain(schema[name], 100, is_line=True) for name in _NAMES if isinstance(schema.get(name), str)}
    if isinstance(items := schema.get("items"), Mapping):
        shown["items"] = _value(items, has_texts, has_choices, has_default, levels - 1)
    if isinstance(ways := schema.get("anyOf"), list):
        # Files can be given as objects, too: agents have addresses and names.
        values = [_value(one, has_texts, has_choices, has_default, levels - 1) for one in ways if not _is_object(one)]
        shown |= values[0] if len(values) == 1 else {"anyOf": values} if values else {}
    shown |= _choices(schema, shown.get("description", ""), has_choices)
    shown |= _default(schema) if has_default else {}
    is_file = has_texts and levels == _LEVELS and _is_file(shown)
    return shown | (_file(shown.get("description", "")) if is_file else {})


def _is_object(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "object"


def _is_file(shown: Mapping[str, Any]) -> bool:
    return any(one.get("format") == "uri-reference" for one in (shown, *shown.get("anyOf", ())))


def _file(description: str) -> dict[str, str]:
    """What an input takes that takes a file."""
    told = "An https:// or s3:// address, or the name of a file that `upload` has kept."
    return {"description": f"{description} {told}".strip()}


def _texts(schema: Mapping[str, Any]) -> dict[str, str]:
    longest = {"title": LONGEST_TITLE, "description": LONGEST_TEXT}
    return {
        name: text
        for name, most in longest.items()
        if isinstance(schema.get(name), str) and (text := plain(schema[name], most, is_line=True))
    }


def _choices(schema: Mapping[str, Any], description: str, has_choices: bool) -> dict[str, Any]:
    """`const` and `enum`; choices that are too many to list, or cannot be told as they are, are in the description."""
    if "const" in schema and _is_tellable(schema["const"]):
        return {"const": schema["const"]}
    choices = schema.get("enum")
    if not isinstance(choices, list):
        listed = schema.get("examples") if has_choices else None
        examples = [one for one in listed if _is_tellable(one)] if isinstance(listed, list) else []
        return {"examples": examples} if examples else {}
    tellable = [choice for choice in choices if _is_tellable(choice)]
    if has_choices and tellable and len(choices) <= MOST_CHOICES:
        return {"enum": tellable}
    some = ", ".join(plain(choice, 100, is_line=True) for choice in tellable[:5])
    such = f", such as {some}" if some else ""
    told = f"One of {len(choices)} values{such}: a wrong one is answered with those like it."
    return {"description": f"{description} {told}".strip()}


def _default(schema: Mapping[str, Any]) -> dict[str, Any]:
    value = schema.get("default")
    return {"default": value} if value is not None and _is_tellable(value, LONGEST_DESCRIPTION) else {}


def _is_tellable(value: object, most: int = LONGEST_TEXT) -> bool:
    """Whether a value can stand in a schema as it is. (A prompt has ends of lines.)"""
    if isinstance(value, str):
        return len(value) <= most and all(sign in "\n\t" or unicodedata.category(sign) not in _UNSEEN for sign in value)
    return isinstance(value, bool) or value is None or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def as_list(lines: Iterable[str]) -> str:
    """Lines as a list in plain text."""
    return "\n".join(f"- {line}" for line in lines)
