"""The schema of a version's inputs and the check of values: they say the same, at once and in plain words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from jsonschema import Draft202012Validator

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.schema import InputCheck, schema_of
from comfy_serverless.workflows.version import NamedInput
from tests.unit.workflows.named_samples import GREATEST_SEED, INPUTS, OBJECT_INFO, version

VALIDATOR = Draft202012Validator(schema_of(version()))
CHECK = InputCheck.of(version())
ASSET = {"__type": "core/ASSET", "info": {"id": "asset_1"}}

_NUMBERS = some.one_of(
    some.integers(-3, 12000),
    some.integers(GREATEST_SEED - 2, GREATEST_SEED + 2),
    some.floats(allow_nan=False, allow_infinity=False),
    some.sampled_from([1.0, 20.0, 1e300, -0.0, 2.5]),
)
_PLAIN = some.one_of(
    some.none(),
    some.booleans(),
    _NUMBERS,
    some.text(max_size=5),
    some.sampled_from(["euler", "heun", "1", "a.png", ""]),
)
_VALUES = some.one_of(
    _PLAIN,
    some.lists(_PLAIN, max_size=3),
    some.dictionaries(some.sampled_from(["__type", "info", "x"]), some.one_of(_PLAIN, some.just({})), max_size=3),
    some.just(ASSET),
    some.sampled_from([["4", 0], ["4", 1.5], ["4", True], ["4", "x"], [0, "4"], ["4", 0, 1]]),
)
_NAMES = some.sampled_from([*(one.name for one in INPUTS), "promt", "inputs", ""])


@settings(max_examples=400, deadline=None)
@given(some.dictionaries(_NAMES, _VALUES, max_size=6))
def test_the_check_takes_what_the_schema_takes(values: dict[str, Any]) -> None:
    assert (CHECK.problems(values) == []) == VALIDATOR.is_valid(values)


@settings(max_examples=200, deadline=None)
@given(
    some.sampled_from([InputKind.INTEGER, InputKind.NUMBER]),
    some.one_of(some.none(), some.integers(-10, 10), some.floats(-10, 10)),
    some.one_of(some.none(), some.integers(-10, 10), some.floats(-10, 10)),
    _NUMBERS,
)
def test_bounds_are_those_of_the_schema(
    kind: InputKind, minimum: float | None, maximum: float | None, value: object
) -> None:
    one = NamedInput(name="n", targets=("3.n",), kind=kind, minimum=minimum, maximum=maximum)
    is_valid = Draft202012Validator(schema_of(version(one))).is_valid({"n": value})
    assert (InputCheck.of(version(one)).problems({"n": value}) == []) == is_valid


def test_the_schema_is_one_of_2020_12() -> None:
    Draft202012Validator.check_schema(schema_of(version(), OBJECT_INFO))
    assert schema_of(version())["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema_of(version())["required"] == ["photo"]
    assert schema_of(version())["additionalProperties"] is False


def test_a_step_is_told_and_not_asked_for() -> None:
    told = schema_of(version())["properties"]["cfg"]
    assert told == {
        "type": "number",
        "minimum": 0.0,
        "maximum": 100.0,
        "default": 8.0,
        "x-step": 0.1,
    }
    assert problems(cfg=8.05) == {}


def test_a_file_says_its_media_and_a_loader_of_images_takes_several() -> None:
    properties = schema_of(version())["properties"]
    assert [one["type"] for one in properties["photo"]["anyOf"]] == ["string", "array", "object"]
    assert properties["photo"]["anyOf"][0]["contentMediaType"] == "image/*"
    assert [one["type"] for one in properties["clip"]["anyOf"]] == ["string", "object"]
    assert problems(photo=["s3://a/1.png", "https://example.com/2.png"]) == {}
    assert problems(clip=["s3://a/1.mp4", "s3://a/2.mp4"]).keys() == {"clip"}
    assert problems(photo=ASSET) == {}


def problems(**values: object) -> dict[str, str]:
    found = CHECK.problems({"photo": "s3://bucket/photo.png", **values})
    return {one.field: one.problem for one in found}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prompt": 5}, {"prompt": "takes a text, and 5 is none"}),
        ({"prompt": None}, {"prompt": "takes a text, and null is none"}),
        ({"steps": True}, {"steps": "takes a whole number from 1 to 10000, and true is none"}),
        ({"steps": 2.5}, {"steps": "takes a whole number from 1 to 10000, and 2.5 is none"}),
        ({"steps": 0}, {"steps": "takes a whole number from 1 to 10000, and 0 is too small"}),
        ({"cfg": math.inf}, {"cfg": "takes a number from 0.0 to 100.0, and inf is none that JSON has"}),
        ({"cfg": math.nan}, {"cfg": "takes a number from 0.0 to 100.0, and nan is none that JSON has"}),
        ({"sampler": "eulr"}, {"sampler": "does not offer 'eulr' (did you mean 'euler'?)"}),
        ({"sampler": "zzz"}, {"sampler": "does not offer 'zzz' (it takes: 'euler', 'heun', 'dpmpp_2m')"}),
        ({"promt": "a"}, {"promt": "is no input of this workflow (did you mean 'prompt'?)"}),
        ({"tiled": 1}, {"tiled": "takes true or false, and 1 is not"}),
        ({"curve": ["4", 0]}, {"curve": "takes a value, and this is a connection to a node"}),
    ],
)
def test_a_problem_is_said_in_plain_words(values: dict[str, Any], told: dict[str, str]) -> None:
    assert problems(**values) == told


def test_all_problems_are_told_at_once_and_what_is_missing_comes_last() -> None:
    found = CHECK.problems({"seed": "x", "steps": 0, "nothing_like_it": 1})
    assert [one.field for one in found] == ["seed", "steps", "nothing_like_it", "photo"]
    assert found[-1].problem == "is required"


def test_seeds_are_exact_to_the_last_digit_and_minus_one_is_one() -> None:
    assert problems(seed=GREATEST_SEED) == {}
    assert problems(seed=-1) == {}
    assert problems(seed=GREATEST_SEED + 1).keys() == {"seed"}
    assert problems(seed=-2).keys() == {"seed"}
    assert schema_of(version())["properties"]["seed"]["maximum"] == GREATEST_SEED


def test_one_and_true_are_two_choices() -> None:
    assert problems(level=1.0) == problems(level=True) == problems(level="1") == {}
    assert problems(level=False).keys() == {"level"}


@pytest.mark.parametrize(
    "value", ["x" * 200_001, 10**5000, "x" * 20_000_000, ["s3://x"] * 1000], ids=["text", "number", "huge", "many"]
)
def test_a_huge_value_is_refused_in_a_short_sentence(value: object) -> None:
    for name in ("prompt", "steps", "sampler", "photo"):
        if found := problems(**{name: value}).get(name):
            assert len(found) < 400
    assert problems(prompt=value).keys() == {"prompt"}


def test_very_many_unknown_names_cost_little() -> None:
    found = CHECK.problems({f"prompt{number}": 1 for number in range(100_000)})
    assert len(found) == 100


def test_choices_are_those_of_today() -> None:
    workers = {**OBJECT_INFO, "KSampler": {"input": {"required": {"sampler_name": [["heun", "new"]]}}}}
    check = InputCheck.of(version(), workers)
    assert schema_of(version(), workers)["properties"]["sampler"]["enum"] == ["heun", "new"]
    assert [one.field for one in check.problems({"photo": "a.png", "sampler": "euler"})] == ["sampler"]
    assert check.problems({"photo": "a.png", "sampler": "new"}) == []


@pytest.mark.parametrize(
    "declared", [{}, {"KSampler": {}}, {"KSampler": {"input": {"required": {"sampler_name": [[]]}}}}]
)
def test_workers_that_say_nothing_change_no_choice(declared: dict[str, Any]) -> None:
    assert schema_of(version(), declared)["properties"]["sampler"]["enum"] == ["euler", "heun", "dpmpp_2m"]


def test_choices_that_an_author_has_narrowed_get_no_more() -> None:
    one = replace(INPUTS[4], choices=("euler", "heun"), is_narrowed=True)
    workers = {"KSampler": {"input": {"required": {"sampler_name": [["heun", "new"]]}}}}
    assert schema_of(version(one), workers)["properties"]["sampler"]["enum"] == ["heun"]


def test_a_model_that_is_none_of_the_choices_comes_along_with_jobs() -> None:
    one = NamedInput(
        name="checkpoint",
        targets=("4.ckpt_name",),
        kind=InputKind.CHOICE,
        role=Role.MODEL,
        default="mine.safetensors",
        choices=("a.safetensors",),
    )
    assert InputCheck.of(version(one), OBJECT_INFO).problems({"checkpoint": "other.safetensors"}) == []


def test_choices_without_end_are_no_list() -> None:
    many = tuple(map(str, range(15_000)))
    two = [replace(INPUTS[4], name=name, targets=(f"8.{name}",), choices=many) for name in ("a", "b")]
    properties = schema_of(version(*two))["properties"]
    assert "enum" in properties["a"]
    assert "enum" not in properties["b"]
