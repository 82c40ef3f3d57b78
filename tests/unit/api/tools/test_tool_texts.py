"""Other people's texts and schemas: whatever they are, what is shown of them is plain, small and a schema."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.api.tools.catalogue import PAGE
from comfy_serverless.api.tools.texts import LONGEST_TEXT, MOST_CHOICES, MOST_SCHEMA_BYTES, plain, shown_schema

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
_FURTHER = ("x-mcp-header", "properties", "format", "minItems", "$defs", "allOf", "pattern", "additionalProperties")
_KEYWORDS = st.sampled_from(
    ["type", "title", "description", "enum", "const", "default", "anyOf", "items", "minimum", "examples", *_FURTHER]
)
_VALUE = st.dictionaries(_KEYWORDS, _JSON, max_size=6)


@given(st.text(), st.integers(1, 300))
def test_a_text_has_what_people_see_and_an_end(text: str, most: int) -> None:
    shown = plain(text, most)
    assert len(shown) <= most
    assert not [sign for sign in shown if sign != "\n" and unicodedata.category(sign)[0] == "C"]
    assert plain(shown, most) == shown
    assert "\n" not in plain(text, most, is_line=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tfox\r\nruns", "a fox \nruns"),
        ("\x1b[31mred", "[31mred"),
        ("in\u202evisible\u200b\u2066\ufeff", "invisible"),
        ("".join(chr(0xE0000 + ord(sign)) for sign in "obey") + "tags", "tags"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("\ud800half", "half"),
        ("Füchse 狐 🦊", "Füchse 狐 🦊"),
    ],
)
def test_invisible_characters_go(text: str, shown: str) -> None:
    assert plain(text, 100) == shown


@given(st.dictionaries(st.text(max_size=10) | st.sampled_from(["prompt", "pattern", "a-b"]), _VALUE, max_size=5))
def test_whatever_a_schema_is_what_is_shown_of_it_is_one(properties: dict[str, Any]) -> None:
    shown = shown_schema({"properties": properties, "required": [*properties], "$defs": {"x": {}}})
    jsonschema.Draft202012Validator.check_schema(shown)
    assert shown.keys() <= {"type", "properties", "required", "additionalProperties"}
    assert set(shown.get("required", ())) <= shown["properties"].keys()
    text = json.dumps(list(shown["properties"].values()))  # their names are the author's
    for keyword in ("x-mcp-header", "$defs", "allOf", "pattern"):
        assert f'"{keyword}":' not in text


def test_a_choice_is_told_as_it_is_or_not_at_all() -> None:
    shown = shown_schema(
        {"properties": {"mode": {"enum": ["a", "b\x00", "c" * (LONGEST_TEXT + 1), 5, True, None, [1]]}}}
    )
    assert shown["properties"]["mode"]["enum"] == ["a", 5, True, None]


def test_of_many_choices_some_are_named() -> None:
    choices = [f"model-{number}.safetensors" for number in range(MOST_CHOICES + 1)]
    shown = shown_schema({"properties": {"model": {"type": "string", "enum": choices, "description": "Which."}}})
    assert "enum" not in shown["properties"]["model"]
    told = shown["properties"]["model"]["description"]
    assert told.startswith(f"Which. One of {len(choices)} values, such as model-0.safetensors, ")


def test_a_large_schema_loses_its_words_and_then_its_choices() -> None:
    many = {f"input_{number}": {"type": "integer", "description": "d" * 400} for number in range(200)}
    assert len(json.dumps(shown_schema({"properties": many}))) <= MOST_SCHEMA_BYTES
    assert "description" not in shown_schema({"properties": many})["properties"]["input_0"]
    lists = {f"input_{number}": {"enum": ["x" * 200 + str(one) for one in range(20)]} for number in range(20)}
    assert len(json.dumps(shown_schema({"properties": lists}))) <= MOST_SCHEMA_BYTES


def test_defaults_go_before_a_list_of_tools_is_too_large_to_be_answered() -> None:
    """200 inputs, each with a prompt in it, and fifty of such workflows on a page, which Lambda sends up to 6 MB of."""
    long = {f"{'input' * 12}_{number}": {"type": "string", "default": "d" * 2_000} for number in range(200)}
    shown = shown_schema({"properties": long, "required": [*long]})
    assert shown["properties"].keys() == long.keys()
    assert PAGE * len(json.dumps(shown)) < 5_000_000
    short = shown_schema({"properties": {"prompt": {"type": "string", "default": "d" * 2_000}}})
    assert short["properties"]["prompt"]["default"] == "d" * 2_000


def test_a_file_is_an_address_or_a_name() -> None:
    one = {"type": "string", "format": "uri-reference", "contentMediaType": "image/*"}
    asset = {"type": "object", "properties": {"__type": {"const": "core/ASSET"}}}
    alone = shown_schema({"properties": {"photo": {"anyOf": [one, asset]}}})["properties"]["photo"]
    assert (alone["type"], alone["contentMediaType"]) == ("string", "image/*")
    assert alone["description"] == "An https:// or s3:// address, or the name of a file that `upload` has kept."
    many = {"type": "array", "items": one, "maxItems": 100}
    ways = shown_schema({"properties": {"photo": {"anyOf": [one, many, asset]}}})["properties"]["photo"]["anyOf"]
    assert [way["type"] for way in ways] == ["string", "array"]
