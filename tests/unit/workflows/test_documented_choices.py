"""What docs/workflows.md shows of choices, and of what is said of values that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_serverless.workflows.choosing import choose, read_choices
from comfy_serverless.workflows.proposal import propose
from comfy_serverless.workflows.schema import InputCheck
from tests.unit.workflows.named_samples import GRAPH, OBJECT_INFO, version

PAGE = (Path(__file__).parents[3] / "docs" / "workflows.md").read_text(encoding="utf-8")


def block(language: str, beginning: str) -> str:
    """What stands between two fences."""
    found = (part.removeprefix(f"{language}\n") for part in PAGE.split("```")[1::2])
    return next(text for text in found if text.startswith(beginning))


def chosen(choices: dict[str, Any]) -> tuple[Any, Any]:
    return choose(GRAPH, OBJECT_INFO, outputs=None, proposal=propose(GRAPH, OBJECT_INFO), inputs=choices)


def test_the_file_that_is_shown_can_be_used() -> None:
    read = read_choices(block("yaml", "description:"))
    given = dict(read.inputs or {})
    again = given.pop("everywhere")  # it sets what `prompt` does
    inputs, _ = chosen(given)
    assert [one.name for one in inputs] == ["prompt", "photo", "steps", "sampler", "seed"]
    assert (inputs[2].minimum, inputs[2].maximum, inputs[2].default) == (10, 40, 25)
    [everywhere], _ = chosen({"everywhere": again})
    assert everywhere.targets == ("6.text", "7.text")
    outputs = choose(GRAPH, OBJECT_INFO, inputs={}, outputs=read.outputs, proposal=propose(GRAPH, OBJECT_INFO))[1]
    assert [(one.name, one.node_id) for one in outputs] == [("picture", "9")]


def test_the_problems_that_are_shown_are_told() -> None:
    given = dict(read_choices(block("yaml", "description:")).inputs or {})
    given.pop("everywhere")
    check = InputCheck.of(version(*chosen(given)[0]))
    values = {"photo": "s3://bucket/key.png", "steps": 400, "sampler": "eulr", "promt": "x"}
    told = "".join(f"{one.field} {one.problem}\n" for one in check.problems(values))
    assert told == block("", "steps takes")
