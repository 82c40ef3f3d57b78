"""Which inputs the options of `run` mean, and what they put there."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.cli.assignments import Assignment, classes_of, find, put, put_texts
from comfy_serverless.errors import InvalidWorkflow
from tests.unit.workflow_samples import text_to_image

KSAMPLER = {"input": {"required": {"seed": ["INT"], "steps": ["INT"], "model": ["MODEL"]}}}


def titled(title: str) -> dict[str, Any]:
    graph = text_to_image()
    graph["9"]["_meta"] = {"title": title}
    return graph


def after(graph: dict[str, Any], *texts: str, option: str = "--set") -> dict[str, Any]:
    return put(graph, find(graph, [Assignment(option, text) for text in texts]), {"KSampler": KSAMPLER})


@pytest.mark.parametrize(
    ("title", "text", "value"),
    [
        ("Save = final.v2", "Save = final.v2.filename_prefix=y", "y"),
        ("a=b=c", "a=b=c.filename_prefix=d=e", "d=e"),
        ("=", "=.filename_prefix=y", "y"),
        ("x", "x.filename_prefix=", ""),
        ("x", "x.filename_prefix==", "="),
        ("x", "filename_prefix=a=b.c", "a=b.c"),
        ("x", "x.filename_prefix=9.filename_prefix=z", "9.filename_prefix=z"),
    ],
)
def test_the_graph_tells_where_the_address_ends(title: str, text: str, value: str) -> None:
    assert after(titled(title), text)["9"]["inputs"]["filename_prefix"] == value


def test_texts_stay_and_numbers_become_numbers() -> None:
    result = after(text_to_image(), "6.text=1.10", "7.text=true", "steps=5", "KSampler.seed=-1")
    assert (result["6"]["inputs"]["text"], result["7"]["inputs"]["text"]) == ("1.10", "true")
    assert (result["3"]["inputs"]["steps"], result["3"]["inputs"]["seed"]) == (5, -1)


def test_the_more_specific_option_wins_and_among_equals_the_later() -> None:
    result = after(text_to_image(), "6.text=mine", "CLIPTextEncode.text=all", "steps=1", "steps=2")
    assert [result[node]["inputs"]["text"] for node in ("6", "7")] == ["mine", "all"]
    assert result["3"]["inputs"]["steps"] == 2


def test_json_is_put_in_as_it_is() -> None:
    result = after(text_to_image(), '3.model=["8", 0]', '6.text=["a", 1]', "steps=null", option="--set-json")
    assert result["3"]["inputs"]["model"] == ["8", 0]
    assert (result["6"]["inputs"]["text"], result["3"]["inputs"]["steps"]) == (["a", 1], None)


def test_all_that_means_nothing_is_told_at_once_with_what_comes_near() -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        after(text_to_image(), "3.sede=1", "text=a", "steps=1", "nobody.x=a=b")
    assert list(caught.value.details["set"]) == ["3.sede", "text", "nobody.x"]
    assert "did you mean '3.seed'" in caught.value.message
    assert "'6.text' (Positive v1.5)" in caught.value.message


def test_all_values_that_do_not_fit_are_told_with_their_nodes() -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        after(text_to_image(), "3.seed=x", "4.ckpt_name=any", "9.images=x")
    assert sorted(caught.value.details["node_errors"]) == ["3", "9"]
    assert "node '3' (KSampler): seed takes a whole number, and 'x' is none" in caught.value.message
    assert "node '9' (SaveImage): images is connected to node '8'" in caught.value.message
    assert caught.value.details["node_errors"]["3"]["class_type"] == "KSampler"


def test_files_are_looked_for_before_the_engine_says_what_inputs_take() -> None:
    graph = text_to_image()
    meant = find(graph, [Assignment("--set", "4.ckpt_name=s3://b/k"), Assignment("--set", "3.steps=5")])
    early = put_texts(graph, meant)
    assert (early["4"]["inputs"]["ckpt_name"], early["3"]["inputs"]["steps"]) == ("s3://b/k", 20)
    assert classes_of(graph, meant) == ["CheckpointLoaderSimple", "KSampler"]
    assert graph == text_to_image()


def test_a_value_of_a_million_signs_costs_little() -> None:
    assert after(text_to_image(), f"6.text={'=' * 1_000_000}")["6"]["inputs"]["text"] == "=" * 1_000_000
    with pytest.raises(InvalidWorkflow):
        after(text_to_image(), f"nobody.text{'=' * 1_000_000}")
