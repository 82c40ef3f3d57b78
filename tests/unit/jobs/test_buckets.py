"""Which buckets a request may name."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.jobs.buckets import Buckets
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.settings import Settings

GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": {"class_type": "SomeTextNode", "inputs": {"text": "s3://theirs/is a title"}},
}
BUCKETS = Buckets(inputs=("photos", "results"), outputs=("results",))


def request(**fields: Any) -> JobRequest:
    return JobRequest.parse({"workflow": GRAPH, **fields})


def graph(address: object) -> dict[str, Any]:
    return {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": address}}}


MODEL = {"folder": "loras", "name": "a.safetensors", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"workflow": "s3://theirs/w.json"}, "the workflow"),
        ({"inputs": {"1.image": "s3://theirs/fox.png"}}, "'1.image'"),
        ({"inputs": {"1.image": ["s3://photos/a.png", "s3://theirs/b.png"]}}, "'1.image'"),
        ({"inputs": {"1.image": "S3://theirs/fox.png"}}, "'1.image'"),
        ({"models": [{**MODEL, "url": "s3://theirs/a.safetensors"}]}, "'loras/a.safetensors'"),
        ({"workflow": graph("s3://theirs/fox.png")}, "'1.image'"),
        (
            {"workflow": graph({"a": [{"__type": "core/ASSET", "info": {"uri": "s3://theirs/fox.png"}}]})},
            "'1.image'",
        ),
    ],
)
def test_what_would_be_fetched_from_another_bucket_is_refused(fields: dict[str, Any], said: str) -> None:
    asked = request(**fields)
    workflow = asked.workflow if isinstance(asked.workflow, dict) else None
    with pytest.raises(MissingAsset, match="InputBuckets") as caught:
        BUCKETS.check_inputs(asked, workflow)
    assert said in caught.value.message
    assert "photos, results" in caught.value.message
    assert str(caught.value.details["address"]).lower().startswith("s3://theirs/")


@pytest.mark.parametrize(
    "fields",
    [
        {},  # a text that is no file is nobody's business
        {"workflow": "s3://photos/w.json"},
        {"workflow": "thumbnail"},
        {"inputs": {"1.image": "s3://results/fox.png"}},
        {"inputs": {"1.image": "https://theirs/fox.png"}},
        {"inputs": {"1.image": "data:image/png;base64,AAAA"}},
        {"models": [{**MODEL, "url": "s3://photos/a.safetensors"}]},
        # What the request gives takes the place of what stands in the graph.
        {"workflow": graph("s3://theirs/fox.png"), "inputs": {"LoadImage.image": "s3://photos/fox.png"}},
    ],
)
def test_everything_else_is_not(fields: dict[str, Any]) -> None:
    asked = request(**fields)
    BUCKETS.check_inputs(asked, asked.workflow if isinstance(asked.workflow, dict) else None)
    Buckets().check_inputs(request(inputs={"1.image": "s3://any/fox.png"}), GRAPH)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3:///a.png", "names no bucket"),
        ("s3://", "names no bucket"),
        ("S3://theirs/", "names no object in its bucket"),
        ("s3://theirs", "names no object in its bucket"),
    ],
)
def test_what_an_address_lacks_is_said_before_its_bucket_is_judged(address: str, said: str) -> None:
    asked = request(inputs={"1.image": address})
    with pytest.raises(InvalidRequest, match=f"'1.image'.*{said}: it must be s3://BUCKET/KEY") as caught:
        BUCKETS.check_inputs(asked, GRAPH)
    assert "InputBuckets" not in caught.value.message


def test_an_output_bucket_that_is_not_listed_is_refused_and_what_to_do_is_said() -> None:
    for output in ({}, {"prefix": "x"}, {"bucket": "results"}):
        BUCKETS.check_output(request(output=output))
    Buckets().check_output(request(output={"bucket": "any"}))
    with pytest.raises(InvalidRequest, match=r"OutputBuckets.*output_buckets") as caught:
        BUCKETS.check_output(request(output={"bucket": "theirs"}))
    assert "'theirs'" in caught.value.message


def test_the_own_output_bucket_is_always_one_of_them() -> None:
    assert Buckets.of(Settings(output_bucket="own", allowed_output_buckets=("own", "b"))).outputs == ("own", "b")
    assert Buckets.of(Settings(output_bucket="own", allowed_output_buckets=("b",))).outputs == ("own", "b")
    assert Buckets.of(Settings(output_bucket="own")).outputs == ()


def test_a_foreign_address_is_suspected_anywhere() -> None:
    assert BUCKETS.names_foreign(({"a": [{"b": "s3://theirs/x"}]}, {}))
    assert not BUCKETS.names_foreign((GRAPH["1"], {"1.image": "s3://photos/x"}))
    assert not Buckets().names_foreign({"a": "s3://theirs/x"})
