"""A text for an input becomes what the input takes, never what it looks like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.graph.typed import Takes, Untyped, declared_input, from_json, typed

#: What looks like something else.
LOOKALIKES = [
    "1.10",
    "true",
    "null",
    "NaN",
    "1e5",
    "[1,2]",
    '["3", 0]',
    '{"scene": "a fox", "n": 1.50}',
    "",
    " 5 ",
    "007",
]

DECLARATION: dict[str, Any] = {
    "input": {
        "required": {
            "text": ["STRING", {"multiline": True}],
            "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
            "cfg": ["FLOAT", {"default": 8.0}],
            "tiled": ["BOOLEAN", {"default": False}],
            "sampler": [["euler", "dpm"], {}],
            "size": [[512, 1024, "auto"], {}],
            "format": ["COMBO", {"options": ["png", 8, True]}],
            "model": ["MODEL"],
        },
        "optional": {"any": ["*"], "several": ["INT,FLOAT", {}], "grown": ["COMFY_AUTOGROW_V3", {}]},
    }
}


def put(text: str, name: str, standing: object = None) -> object:
    return typed(text, standing=standing, takes=declared_input(DECLARATION, name))


@pytest.mark.parametrize("text", LOOKALIKES)
def test_a_text_stays_as_it_was_written(text: str) -> None:
    assert typed(text, standing="a prompt") == text
    assert put(text, "text", standing=5) == text
    assert put(text, "text", standing=["3", 0]) == text


@given(st.text())
def test_every_text_is_one(text: str) -> None:
    assert typed(text, standing="") == text


@pytest.mark.parametrize(
    ("text", "standing", "value"),
    [
        ("5", 20, 5),
        ("-1", 20, -1),
        ("18446744073709551615", 0, 2**64 - 1),
        ("7.5", 8.0, 7.5),
        ("7.5", 8, 7.5),  # an editor writes 8.0 as 8
        ("8", 8.5, 8),
        ("1e-3", 0.5, 0.001),
        (".5", 0.5, 0.5),
        ("true", False, True),
        ("False", True, False),
    ],
)
def test_where_nothing_is_declared_the_value_that_stands_there_decides(
    text: str, standing: object, value: object
) -> None:
    result = typed(text, standing=standing)
    assert (result, type(result)) == (value, type(value))


def test_what_is_declared_goes_before_what_stands_there() -> None:
    assert put("7.5", "cfg", standing=8) == 7.5  # an editor writes 8.0 as 8
    assert put("5", "seed", standing=["12", 0]) == 5
    assert put("5", "seed", standing="12") == 5


@pytest.mark.parametrize(
    ("text", "standing", "words"),
    [
        ("5,5", 1.0, "a number, and '5,5' is none"),
        ("", 20, "a number, and '' is none"),
        ("0x10", 20, "a number"),
        ("1_000", 20, "a number"),
        ("\u0665", 20, "a number"),
        ("1" * 5000, 20, "a number"),
        ("x", 20, "a number"),
        ("nan", 1.0, "a number"),
        ("inf", 1.0, "a number"),
        ("1e999", 1.0, "a number"),
        ("1", False, "true or false, and '1' is none"),
        ("yes", True, "true or false"),
        ("x", ["3", 0], "connected to node '3'.*--set-json"),
        ("x", None, "has null.*--set-json"),
        ("1", [1, 2, 3], "has a list.*--set-json"),
    ],
)
def test_what_the_input_does_not_take_is_refused_in_a_sentence(text: str, standing: object, words: str) -> None:
    with pytest.raises(Untyped, match=words):
        typed(text, standing=standing)


def test_what_is_declared_as_whole_takes_no_part_of_one() -> None:
    with pytest.raises(Untyped, match=r"a whole number, and '5\.5' is none"):
        put("5.5", "seed", standing=20)


def test_a_model_is_no_text() -> None:
    with pytest.raises(Untyped, match=r"connected to node '4', and takes MODEL, which no text gives.*--set-json"):
        put("sd15", "model", standing=["4", 0])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sampler", "dpm", "dpm"),
        ("sampler", "not one", "not one"),  # ComfyUI refuses it, and names those that are near
        ("size", "512", 512),
        ("size", "auto", "auto"),
        ("format", "8", 8),
        ("format", "true", True),
    ],
)
def test_a_choice_is_the_entry_of_the_list(name: str, text: str, value: object) -> None:
    result = put(text, name, standing="png")
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize("name", ["any", "several", "grown", "format.codec", "unheard_of"])
def test_a_type_that_decides_nothing_leaves_it_to_the_value(name: str) -> None:
    assert put("5", name, standing=7) == 5
    assert put("5", name, standing="seven") == "5"


SPECS: list[Any] = [[], [None], [{}], 5, ["INT", "no options"]]


@pytest.mark.parametrize(
    "declaration",
    [
        *(None, {}, {"input": None}, {"input": {"required": None}}, {"input": {"required": {"x": "INT"}}}),
        *({"input": {"required": {"x": spec}}} for spec in SPECS),
    ],
)
def test_a_declaration_of_any_shape_is_read(declaration: Any) -> None:
    whole = declared_input(DECLARATION, "seed")
    assert whole is not None
    assert declared_input(declaration, "x") in (None, Takes("INT", whole.kind))


def test_json_is_put_in_as_it_is() -> None:
    assert from_json('["12", 0]') == ["12", 0]
    assert from_json("null") is None
    for text in ("NaN", "[1e999]", "[Infinity]", "{", "a fox", "[" * 100_000):
        with pytest.raises(Untyped, match=r"as JSON, and .* is none"):
            from_json(text)
