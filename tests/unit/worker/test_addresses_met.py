"""A job's warnings say which nodes an address has met, where they are several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.unit.fakes import FakeEngine, World
from tests.unit.workflow_samples import text_to_image

Worlds = Callable[..., World]


def warnings_of(here: World, **fields: Any) -> tuple[str, ...]:
    return here.run({"job_id": "job-1", "workflow": text_to_image(), **fields}).job.warnings


def test_a_class_that_means_two_nodes_is_among_the_warnings(world: Worlds) -> None:
    assert warnings_of(world(), set={"CLIPTextEncode.text": "a fox", "seed": 1}) == (
        "'CLIPTextEncode.text' is set on 2 nodes: 6 Positive v1.5, 7 Negative",
    )


def test_one_node_is_no_warning_however_it_is_named(world: Worlds) -> None:
    assert warnings_of(world(), set={"KSampler.seed": 1, "6.text": "x", "Negative.text": "y", "steps": 3}) == ()


def test_values_of_requests_are_put_in_as_they_are(world: Worlds) -> None:
    engine = FakeEngine()
    warnings_of(world(engine=engine), set={"6.text": 1.10, "steps": "5", "7.text": None})
    ran = engine.runs[0]["workflow"]
    assert (ran["6"]["inputs"]["text"], ran["3"]["inputs"]["steps"], ran["7"]["inputs"]["text"]) == (1.1, "5", None)
