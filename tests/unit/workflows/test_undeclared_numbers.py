"""A push before any worker has told its nodes: what a number in the graph says, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.checkup import Kind
from comfy_serverless.workflows.compat import problems_of
from comfy_serverless.workflows.describing import described
from comfy_serverless.workflows.pushing import prepare, unknown_ranges
from comfy_serverless.workflows.renewal import renewed
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import Version

GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 8, "denoise": 1, "cfg2": 7.5}}}
TOLD = {"KSampler": {"input": {"required": {"cfg": ["INT", {"min": 1}]}}}}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cfg", InputKind.NUMBER),
        ("denoise", InputKind.NUMBER),
        ("cfg2", InputKind.NUMBER),
        ("steps", InputKind.INTEGER),
        ("seed", InputKind.INTEGER),
    ],
)
def test_a_whole_number_of_a_node_that_nobody_has_told_of_may_be_any_number(name: str, kind: InputKind) -> None:
    assert described(GRAPH, None, [("3", name)], name=name).kind is kind


def test_what_the_node_declares_decides() -> None:
    assert described(GRAPH, TOLD, [("3", "cfg")], name="cfg").kind is InputKind.INTEGER


def test_so_a_fraction_is_not_refused_for_ever() -> None:
    inputs = (described(GRAPH, None, [("3", "cfg")], name="cfg"),)
    version = Version(name="poster", number=1, owner="", graph=GRAPH, inputs=inputs)
    assert InputCheck.of(version).problems({"cfg": 7.5}) == []


# What is told later

LATER = {
    "KSampler": {
        "input": {
            "required": {
                "cfg": ["FLOAT", {"min": 0, "max": 100, "step": 0.1, "tooltip": "How strictly"}],
                "denoise": ["INT", {"min": 0, "max": 1}],
                "steps": ["INT", {"min": 1, "max": 10_000}],
                "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
            }
        }
    },
    "Style": {"input": {"required": {"style": [["ink", "oil"], {}], "text": ["STRING", {"multiline": True}]}}},
}
WHOLE = {**GRAPH, "8": {"class_type": "Style", "inputs": {"style": "ink", "text": "a fox"}}}


def pushed_early(*names: str, **changes: Any) -> Version:
    """A version that was pushed before any worker had told of its nodes."""
    places = {"style": "8", "text": "8"}
    inputs = (described(WHOLE, None, [(places.get(name, "3"), name)], name=name) for name in names)
    version = Version(
        name="poster", number=1, owner="", graph=WHOLE, inputs=tuple(replace(one, **changes) for one in inputs)
    )
    return Version.parse(version.to_bytes(), source="it")


def test_ranges_and_choices_that_nobody_had_told_at_the_push_count_once_they_are_told() -> None:
    check = InputCheck.of(pushed_early("steps", "denoise", "style", "cfg"), LATER)
    wrong = check.problems({"steps": 0, "denoise": 0.5, "style": "in", "cfg": 100.5})
    assert [one.field for one in wrong] == ["steps", "denoise", "style", "cfg"]
    assert check.problems({"steps": 1, "denoise": 1, "style": "oil", "cfg": 7.5}) == []


def test_a_form_has_what_the_nodes_declare_now() -> None:
    text, cfg = renewed(pushed_early("text", "cfg"), LATER)
    assert (text.multiline, text.kind, text.is_guessed) == (True, InputKind.TEXT, False)
    assert (cfg.step, cfg.description, cfg.minimum, cfg.maximum) == (0.1, "How strictly", 0, 100)


def test_a_seed_takes_the_random_one_whatever_its_range_turns_out_to_be() -> None:
    assert InputCheck.of(pushed_early("seed"), LATER).problems({"seed": -1}) == []


def test_what_an_author_has_narrowed_stays_narrow() -> None:
    steps = renewed(pushed_early("steps", minimum=-5.0, maximum=40.0), LATER)[0]
    assert (steps.minimum, steps.maximum) == (1, 40)


def test_as_long_as_nobody_tells_it_stays_a_guess() -> None:
    version = pushed_early("steps", "style")
    assert renewed(version, None) == renewed(version, {"Other": {}}) == version.inputs
    assert all(one.is_guessed for one in version.inputs)


def test_what_was_told_at_the_push_keeps_its_range() -> None:
    told = described(GRAPH, TOLD, [("3", "cfg")], name="cfg")
    version = Version(name="poster", number=1, owner="", graph=GRAPH, inputs=(told,))
    wider = {"KSampler": {"input": {"required": {"cfg": ["FLOAT", {"min": 0}]}}}}
    assert renewed(version, wider) == (told,)


def test_a_push_names_the_inputs_whose_ranges_are_not_known() -> None:
    graph = {**WHOLE, "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}}
    bare = Version(name="poster", number=0, owner="", graph=graph)
    early, later = (prepare(bare, info).version for info in (None, {**LATER, "SaveImage": {"output_node": True}}))
    [note] = unknown_ranges(early)
    assert "steps" in note
    assert "run a job" in note
    assert unknown_ranges(later) == ()


def test_a_guess_that_turns_out_to_be_something_else_is_no_change_that_doctors_report() -> None:
    findings = problems_of(pushed_early("style", "denoise"), LATER)
    assert not [one for one in findings if one.kind is Kind.TYPE]
