"""The inputs of a named workflow are options: what each takes, what was given, and all that is wrong at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.habits import CommandParser
from comfy_serverless.cli.named.given import Given, Taken, add_inputs, read_given, unknown_in_words, without_options
from comfy_serverless.cli.run_options import add_options
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.schema import schema_of
from comfy_serverless.workflows.version import NamedInput, Version

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": "a.png"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
}


def one(name: str, kind: InputKind, **more: Any) -> NamedInput:
    return NamedInput(name=name, targets=(f"9.{name}",), kind=kind, **more)


INPUTS = (
    NamedInput(name="photo", targets=("1.image",), kind=InputKind.FILE, media="image", is_required=True),
    NamedInput(name="film", targets=("5.file",), kind=InputKind.FILE, media="video"),
    NamedInput(name="seed", targets=("3.seed",), kind=InputKind.INTEGER, role=Role.SEED, minimum=0, maximum=2**64 - 1),
    one("prompt", InputKind.TEXT, default="100% a fox", description="What is painted; 50 %(prog)s."),
    one("cfg", InputKind.NUMBER, minimum=0, maximum=100, default=7.0),
    one("steps", InputKind.INTEGER, minimum=1, maximum=100, default=20),
    one("upscale_it", InputKind.BOOLEAN, default=False),
    one("sampler", InputKind.CHOICE, choices=("euler", "ddim", 5), default="euler"),
    one("free", InputKind.CHOICE, choices=("a",), is_open=True),
    one("more", InputKind.OTHER),
    one("out", InputKind.TEXT, default="here"),
)
VERSION = Version(name="poster", number=3, owner="", graph=GRAPH, inputs=INPUTS)
TAKEN = Taken("poster", 3, INPUTS, schema_of(VERSION))


def parser_of(taken: Taken = TAKEN) -> argparse.ArgumentParser:
    parser = CommandParser(prog="run poster")
    add_options(parser)
    add_inputs(parser, taken)
    return parser


def given(*arguments: str, taken: Taken = TAKEN) -> tuple[Given, list[tuple[str, str]]]:
    return read_given(parser_of(taken).parse_args(arguments), taken)


def problems(*arguments: str) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        given(*arguments)
    return {one["field"].removeprefix("inputs."): one["problem"] for one in caught.value.details["errors"]}


PHOTO = ("--photo", "a.png")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--prompt", "5"], "prompt", "5"),
        (["--prompt="], "prompt", ""),
        (["--seed", "-1"], "seed", -1),
        (["--cfg", "1e1"], "cfg", 10.0),
        (["--steps", "8"], "steps", 8),
        (["--upscale-it"], "upscale_it", True),
        (["--upscale_it", "false"], "upscale_it", False),
        (["--sampler", "ddim"], "sampler", "ddim"),
        (["--sampler", "5"], "sampler", 5),
        (["--free", "other"], "free", "other"),
        (["--more", '{"a": [1]}'], "more", {"a": [1]}),
        (["--set", "out=a=b"], "out", "a=b"),
        (["--set-json", "steps=8"], "steps", 8),
        (["--set", "photo=scan.png"], "photo", "scan.png"),
        (["--prompt", "one", "--prompt", "two"], "prompt", "two"),
    ],
)
def test_a_text_becomes_what_the_input_takes(arguments: list[str], name: str, value: object) -> None:
    photo = () if name == "photo" else PHOTO
    found = given(*arguments, *photo)[0].values[name]
    assert found == value
    assert type(found) is type(value)


def test_files_are_paths_or_addresses_and_may_be_several() -> None:
    found = given("--photo", "a.png", "--photo", "s3://b/c.png", "--input", "film=film.mp4")[0]
    assert found.files == {"photo": [Path("a.png"), "s3://b/c.png"], "film": [Path("film.mp4")]}


def test_an_input_that_is_called_like_another_option_is_given_with_set() -> None:
    assert without_options(parser_of(), TAKEN) == ["out"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = ["--steps", "many", "--cfg", "1000", "--sampler", "eulr", "--upscale-it", "perhaps", "--more", "{"]
    found = problems(*wrong, "--film", "a", "--film", "b", "--input", "prompt=a.png")
    assert found.keys() == {"steps", "cfg", "sampler", "upscale_it", "more", "film", "prompt", "photo"}
    assert found["steps"] == "takes a whole number from 1 to 100, and 'many' is none"
    assert "did you mean 'euler'?" in found["sampler"]
    assert found["film"] == "takes one file, and these are 2"
    assert found["photo"] == "is required"


def test_what_is_no_input_is_an_address_for_others_to_judge() -> None:
    assert given("--set", "9.prompt=x", *PHOTO)[1] == [("--set", "9.prompt=x")]


def test_the_help_has_types_ranges_choices_and_defaults_of_any_author() -> None:
    text = " ".join(parser_of().format_help().split())
    assert "--prompt TEXT What is painted; 50 %(prog)s. (text; default: 100% a fox)" in text
    assert "--steps N (integer from 1 to 100; default: 20)" in text
    assert "--sampler CHOICE (euler, ddim, 5; default: euler)" in text
    assert "--photo FILE (image, or several; required)" in text
    assert "--upscale-it [true|false]" in text
    assert "--upscale_it" not in text
    assert text.index("inputs of poster, version 3") < text.index("options:")


@pytest.mark.parametrize("name", ["a b", "-x", "x\n", "%s", "[x]", "ü"])
def test_a_name_that_is_no_option_breaks_nothing(name: str) -> None:
    inputs = (one(name, InputKind.TEXT),)
    taken = Taken("poster", 1, inputs, schema_of(Version(name="poster", number=1, owner="", graph={}, inputs=inputs)))
    assert parser_of(taken).format_help()
    assert without_options(parser_of(taken), taken) == [name]
    assert given(f"--set={name}=5", taken=taken)[0].values == {name: "5"}


def test_the_choices_that_the_workers_have_now_count() -> None:
    schema = {"properties": {"sampler": {"enum": ["new"]}}}
    taken = Taken("poster", 3, tuple(one for one in INPUTS if one.name == "sampler"), schema)
    assert given("--sampler", "new", taken=taken)[0].values == {"sampler": "new"}
    with pytest.raises(InvalidRequest, match="does not offer 'euler'"):
        given("--sampler", "euler", taken=taken)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    parser = parser_of()
    assert "did you mean --prompt?" in unknown_in_words(parser, TAKEN, ["--promt", "x"])
    assert "its inputs: --photo, --film" in unknown_in_words(parser, TAKEN, ["--zzzzzz=1"])
    assert unknown_in_words(parser, TAKEN, ["stray"]) == "unrecognized arguments: stray"
