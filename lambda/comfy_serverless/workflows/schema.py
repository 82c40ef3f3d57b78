"""What a version takes, as JSON Schema 2020-12; and the check that asks for the same, compiled once. No IO.

ComfyUI takes numbers beside its steps, so a step is told (`x-step`) and never asked for. Also told are `x-role` (what
an input is mostly set for) and `x-multiline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from comfy_serverless.graph.file_inputs import ASSET_TYPE
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.check import InputCheck, Problem
from comfy_serverless.workflows.rules import MOST_FILE_LETTERS, MOST_FILES, MOST_LETTERS, Rule, rules_of
from comfy_serverless.workflows.version import Version

__all__ = ["InputCheck", "Problem", "schema_of"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: The type of files by the media of an input.
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "image": "image/*",
    "video": "video/*",
    "audio": "audio/*",
    "model3d": "model/*",
}
_ASSET: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A file that was uploaded.",
    "properties": {"__type": {"const": ASSET_TYPE}, "info": {"type": "object"}},
    "required": ["__type", "info"],
}
#: What ComfyUI takes for a connection to another node: no value.
_LINK: Final[Mapping[str, Any]] = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"type": ["number", "boolean"]}],
    "minItems": 2,
    "maxItems": 2,
}
#: The choices of an open input that are told as examples.
_MOST_EXAMPLES: Final = 20


def schema_of(version: Version, object_info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of the object of a version's inputs.

    Args:
        object_info: what ComfyUI declares now: the choices are its. None: they are as the version has them.
    """
    rules = rules_of(version, object_info)
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "title": version.name,
        "description": version.description,
        "type": "object",
        "properties": {rule.of.name: property_of(rule) for rule in rules},
        "required": [rule.of.name for rule in rules if rule.of.is_required],
        "additionalProperties": False,
    }
    return {name: part for name, part in schema.items() if part not in ("", [])}


def property_of(rule: Rule) -> dict[str, Any]:
    """The schema of one input."""
    one = rule.of
    told = {
        "title": one.title,
        "description": one.description,
        "default": one.default,
        "x-step": one.step,
        "x-role": str(one.role),
        "x-multiline": one.multiline or None,
    }
    return _values(rule) | {name: part for name, part in told.items() if part is not None and part != ""}


def _values(rule: Rule) -> dict[str, Any]:
    match rule.of.kind:
        case InputKind.TEXT:
            return {"type": "string", "maxLength": MOST_LETTERS}
        case InputKind.INTEGER:
            return {"type": "integer", **_bounds(rule)}
        case InputKind.NUMBER:
            return {"type": "number", **_bounds(rule)}
        case InputKind.BOOLEAN:
            return {"type": "boolean"}
        case InputKind.CHOICE:
            return _choice(rule)
        case InputKind.FILE:
            return _file(rule)
        case InputKind.OTHER:
            return {"not": dict(_LINK)}


def _bounds(rule: Rule) -> dict[str, Any]:
    bounds = {"minimum": rule.minimum, "maximum": rule.of.maximum}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _choice(rule: Rule) -> dict[str, Any]:
    if not rule.of.is_open:
        are_texts = all(isinstance(choice, str) for choice in rule.choices)
        return {**({"type": "string"} if are_texts else {}), "enum": list(rule.choices)}
    schema: dict[str, Any] = {"type": ["string", "number", "boolean"], "maxLength": MOST_LETTERS}
    return schema | ({"examples": list(rule.choices[:_MOST_EXAMPLES])} if rule.choices else {})


def _file(rule: Rule) -> dict[str, Any]:
    media = MEDIA_TYPES.get(rule.of.media)
    one: dict[str, Any] = {
        "type": "string",
        "format": "uri-reference",
        "minLength": 1,
        "maxLength": MOST_FILE_LETTERS,
        **({} if media is None else {"contentMediaType": media}),
    }
    many = {"type": "array", "items": dict(one), "minItems": 1, "maxItems": MOST_FILES}
    return {"anyOf": [one, *([many] if rule.may_be_many else []), dict(_ASSET)]}
