"""Places of the API in our buckets: a request that is not the API's names none of them, to read or to write."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved, owner_prefix
from comfy_serverless.settings import Settings
from tests.unit.fakes import WORKFLOW

ASSETS, OUTPUT = "assets-bucket", "output-bucket"


def check(prefix: str, job_id: str = "x", **fields: Any) -> None:
    settings = Settings(assets_bucket=ASSETS, output_bucket=OUTPUT, output_prefix=prefix)
    Reserved.of(settings).check(JobRequest.parse({"workflow": WORKFLOW, **fields}), job_id=job_id)


@pytest.mark.parametrize("prefix", ["", "team", "/team/results/"])
def test_the_owners_folder_is_below_the_prefix(prefix: str) -> None:
    settings = Settings(output_prefix=prefix)
    assert owner_prefix("alice", settings) == f"{prefix.strip('/')}/owners/alice".lstrip("/")


@pytest.mark.parametrize(
    ("prefix", "job_id", "output"),
    [
        ("", "x", {"prefix": "owners/alice"}),
        ("", "x", {"prefix": "/owners/alice/"}),
        ("", "alice", {"prefix": "owners"}),
        ("", "alice", {"prefix": "owners", "bucket": OUTPUT}),
        ("", "owners", {}),
        ("", "owners", {"bucket": "other-bucket"}),  # if that refuses the result, it goes to the output bucket
        ("team", "x", {"prefix": "team/owners/alice"}),
        ("team", "owners", {}),
        ("team", "x", {"prefix": "owners/alice"}),
        ("", "x", {"bucket": ASSETS}),
        ("", "x", {"bucket": ASSETS, "prefix": "requests/alice"}),
    ],
)
def test_results_do_not_go_there(prefix: str, job_id: str, output: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="that place is the API's"):
        check(prefix, job_id, output=output)


@pytest.mark.parametrize(
    "output",
    [{}, {"prefix": "mine"}, {"prefix": "owners-of-things"}, {"prefix": "x/owners"}, {"bucket": "other-bucket"}],
)
def test_results_go_anywhere_else(output: dict[str, str]) -> None:
    check("", output=output)
    check("team", output=output)


CLOSED = [
    f"s3://{ASSETS}/blobs/alice/a.png",
    f"S3://{ASSETS}/requests/alice/x.json",
    f"s3://{ASSETS}/batches/x",
    f"s3://{ASSETS}",
    f"s3://{OUTPUT}/owners/alice/job/9/a.png",
    f"s3://{OUTPUT}/team/owners/alice/job/9/a.png",
    f"s3://{OUTPUT}/x/../owners/alice/a.png",
    f"s3://{OUTPUT}//owners/alice/a.png",
]


@pytest.mark.parametrize("address", CLOSED)
@pytest.mark.parametrize(
    "fields",
    [
        lambda address: {"inputs": {"1.image": address}},
        lambda address: {"inputs": {"1.image": ["s3://mine/a.png", address]}},
        lambda address: {"set": {"1.image": address}},
        lambda address: {"workflow": address},
        lambda address: {"workflow": {"1": {"class_type": "A", "inputs": {"a": [{"info": {"uri": address}}]}}}},
        lambda address: {"models": [{"url": address, "folder": "loras", "name": "a.safetensors", "sha256": "0" * 64}]},
    ],
    ids=["inputs", "a batch", "set", "the workflow", "within the graph", "models"],
)
def test_nothing_is_read_there(fields: Any, address: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used here"):
        check("team", **fields(address))


@pytest.mark.parametrize(
    "address", [f"s3://{OUTPUT}/mine/a.png", "s3://mine/owners/alice/a.png", "https://example.com/owners/a.png"]
)
def test_everything_else_is_read(address: str) -> None:
    check("", inputs={"1.image": address})
