"""Whose nodes the operator's workflows are held against, when they are pushed with credentials of AWS."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.cli import stack
from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.settings import Settings
from comfy_serverless.table.live import Release
from tests.unit.jobs_table import REGION, aws, create_table

BUCKET = "assets"
INFO = {"SaveImage": {"input": {}, "output_node": True}}


@pytest.mark.parametrize(
    ("parameters", "image"),
    [
        ([{"ParameterKey": "ImageTarget", "ParameterValue": "worker"}], "worker"),
        ([], Settings().worker_image),  # a stack of this machine
    ],
)
def test_they_are_the_nodes_that_the_stacks_own_workers_have_told(
    parameters: list[dict[str, str]], image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with aws() as session:
        s3 = session.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        table, _ = create_table(session)
        DeclarationsWriter(s3, BUCKET, image).write(INFO)
        described = SimpleNamespace(describe_stacks=lambda **_: {"Stacks": [{"Parameters": parameters}]})
        monkeypatch.setattr("boto3.client", lambda *_, **__: described)
        monkeypatch.setattr("comfy_serverless.aws.s3.s3_client", lambda: s3)
        workers: Any = SimpleNamespace(worker_image=lambda: "", release=lambda: ("default", ""))
        releases: Any = SimpleNamespace(stack="mine", table=table, workers=lambda _: workers)
        found = stack.workflows_beside(releases, {"AssetsBucketName": BUCKET})
        deployed = found.deployed(Release("default", {}))
        assert deployed is not None
        assert deployed.object_info == INFO
