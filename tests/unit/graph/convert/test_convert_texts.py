"""Dynamic prompts, and the names of files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.convert.numbers import as_javascript
from tests.unit.graph.convert.editor_files import CLASSES, host, inputs, node, prompt, subgraph, warnings, workflow

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def text(value: str, **arguments: Any) -> Any:
    return prompt(workflow(node(1, "CLIPTextEncode", [value])), **arguments)["1"]["text"]


def name(value: str, *others: dict[str, Any], inner: dict[str, Any] | None = None) -> Any:
    document = workflow(node(1, "SaveImage", [value]), *others, subgraphs=[] if inner is None else [inner])
    return prompt(document, now=NOW)["1"]["filename_prefix"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a {red|blue {dark|light}} car", "a red car"),
        ("{blue {dark|light}|x}", "blue dark"),
        (r"\{kept\|too\} \n \\", r"{kept|too} \n \\"),
        (r"\\{a|b}", r"\\a"),
        (r"\\\{a|b}", r"\\{a|b}"),
        ("{single}, {|empty first}", "single, "),
        ("{a|b", "a"),
        ("a} b | c", "a} b | c"),
        ("see http://example.org/x\nnext", "see http:\nnext"),
        ("a /* gone\n */ b // tail\nc", "a  b \nc"),
        ("a /* open // tail\nb", "a /* open \nb"),
        ("//*", ""),
        ("", ""),
    ],
)
def test_a_dynamic_prompt(given: str, expected: str) -> None:
    assert text(given) == expected


def test_other_texts_are_left_alone() -> None:
    assert inputs("PrimitiveString", ["{a|b} // c"]) == {"value": "{a|b} // c"}


def test_the_same_seed_rolls_the_same_and_others_differ() -> None:
    given = "{0|1|2|3|4|5|6|7} {0|1|2|3|4|5|6|7} {0|1|2|3|4|5|6|7}"
    rolled = [text(given, seed=f"job-{number}") for number in range(30)]
    assert rolled == [text(given, seed=f"job-{number}") for number in range(30)]
    assert len({*rolled}) > 20
    assert {word for each in rolled for word in each.split()} == {*"01234567"}
    assert any(len({*each.split()}) > 1 for each in rolled)


def test_every_node_rolls_for_itself() -> None:
    nodes = [node(number, "CLIPTextEncode", ["{0|1|2|3|4|5|6|7}"]) for number in range(1, 40)]
    assert len({each["text"] for each in prompt(workflow(*nodes), seed="job").values()}) > 3


def test_what_was_rolled_and_what_was_lost_is_told() -> None:
    told = warnings(workflow(node(4, "CLIPTextEncode", ["{a|b} http://x"])), seed="s")
    assert "node 4" in told
    assert "rolled" in told
    assert "comments" in told
    assert not warnings(workflow(node(4, "CLIPTextEncode", ["plain"])))


def test_texts_with_alternatives_are_told_as_they_were_written() -> None:
    nodes = [node(4, "CLIPTextEncode", ["a {red|blue} fox // why"]), node(5, "CLIPTextEncode", ["{plain}"])]
    assert convert(workflow(*nodes), CLASSES).rolled == {"4.text": "a {red|blue} fox // why"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("%date:yyyy-MM-dd hh:mm:ss%", "2026-03-04 05:06:07"),
        ("%date:yy/M/d_h.m.s%", "26/3/4_5"),
        ("%date:yyyyMMdd%_%date:hh%", "20260304_05"),
        ("%date:D yyy%", "D yyy"),
        ("%date:%", ""),
        ("%date%_%width%_%no.such%_100%", "%date%_%width%_%no.such%_100%"),
        ("%KSampler.seed%_%mine.sampler_name%", "42_heun"),
        ("%KSampler.cfg%_%KSampler.denoise%", "2_0.5"),
        ("%CheckpointLoaderSimple.ckpt_name%", "dir_sd_15"),
        ("%KSampler.model%", "%KSampler.model%"),
        ("%named.width%_%EmptyLatentImage.width%", "64_64"),
    ],
)
def test_fields_in_the_name_of_a_file(given: str, expected: str) -> None:
    others = [
        node(2, "KSampler", [42, "fixed", 20, 2.0, "heun", "simple", 0.5], title="mine"),
        node(3, "CheckpointLoaderSimple", ["dir/sd:15"]),
        node(4, "EmptyLatentImage", [64, 64, 1], properties={"Node name for S&R": "named"}, title="EmptyLatentImage"),
    ]
    assert name(given, *others) == expected


def test_a_promoted_widget_of_a_host_is_one_of_its_own() -> None:
    inner = subgraph(
        "s", node(101, "EmptyImage", [77, 8, 1, 0], title="In"), inputs={"wide": [(101, "width")], "to": [(101, "x")]}
    )
    found = name("%Outer.wide%_%In.width%_%Outer.to%_%Outer.width%", host(2, inner, [55], title="Outer"), inner=inner)
    assert found == "55_77_%Outer.to%_%Outer.width%"


def test_only_names_of_files_have_fields() -> None:
    document = workflow(node(1, "PrimitiveString", ["%KSampler.seed%"]), node(2, "KSampler", [42]))
    assert prompt(document)["1"] == {"value": "%KSampler.seed%"}


def test_fields_are_looked_for_in_all_graphs_in_the_order_of_the_nodes() -> None:
    inner = subgraph("s", node(101, "EmptyLatentImage", [96, 8, 1]))
    document = workflow(
        node(1, "SaveImage", ["%EmptyLatentImage.width%"]),
        node(2, "s"),
        node(3, "EmptyLatentImage", [64, 8, 1]),
        subgraphs=[inner],
    )
    assert prompt(document)["1"]["filename_prefix"] == "96"


@pytest.mark.parametrize(
    ("properties", "expected"), [({}, "%SaveImage.filename_prefix%"), ({"Node name for S&R": "SaveImage"}, "b_x")]
)
def test_a_saver_is_called_after_its_class_only_if_the_file_says_so(properties: Any, expected: str) -> None:
    other = node(2, "SaveImage", ["b/x"], properties=properties)
    assert name("%SaveImage.filename_prefix%", other) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (True, "true"),
        (2.0, "2"),
        (0.1, "0.1"),
        (1e-06, "0.000001"),
        (1.5e-06, "0.0000015"),
        (1e-07, "1e-7"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (-1e20, "-100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (18446744073709551615, "18446744073709552000"),
        (10**400, "Infinity"),
        ([1, [2.0, "x"], None], "1,2,x,"),
        ({"a": 1}, "[object Object]"),
    ],
)
def test_values_as_a_browser_writes_them(value: Any, expected: str) -> None:
    assert as_javascript(value) == expected
