"""A push before any worker has told its nodes: what a number in the graph says, and what it does not."""

from __future__ import annotations

import pytest

from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.describing import described
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
