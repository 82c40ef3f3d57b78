"""The local AWS describes stacks as CloudFormation does: held to botocore, which reads the answers, and to moto's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from moto import mock_aws
from werkzeug.test import Client

from local.aws.described import Described
from local.aws.server import STACKS_PATH

OUTPUTS = {"JobsTableName": "jobs", "ApiUrl": "http://127.0.0.1:8189/?a=1&b=<2>", "Folder": "/tmp/fox & bär"}


def cloudformation() -> Any:
    return boto3.client(
        "cloudformation", region_name="eu-central-1", aws_access_key_id="local", aws_secret_access_key="local"
    )


def answered_here(*stacks: str) -> Any:
    """A client whose requests are answered by an application that was told of these stacks."""
    web = Client(Described(lambda environment, _: pytest.fail(f"passed on: {environment['PATH_INFO']}")))
    for stack in stacks:
        assert web.post(STACKS_PATH, json={stack: OUTPUTS}).status_code == 200

    def answer(request: AWSRequest, **_: Any) -> AWSResponse:
        sent = request.headers.items()
        headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent}
        response = web.post("/", data=request.body, headers=headers)

        class Raw:
            def stream(self) -> list[bytes]:
                return [response.data]

        return AWSResponse(str(request.url), response.status_code, HTTPHeaders.from_pairs(response.headers), Raw())

    client = cloudformation()
    client.meta.events.register("before-send.cloudformation", answer)
    return client


def told(description: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
    outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in description["Outputs"]}
    return description["StackName"], description["StackStatus"], outputs


@mock_aws
def described_by_moto(name: str) -> Mapping[str, Any]:
    client = cloudformation()
    values = {key: {"Value": value} for key, value in OUTPUTS.items()}
    client.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": {}, "Outputs": values}))
    (description,) = client.describe_stacks(StackName=name)["Stacks"]
    return dict(description)


def test_a_stack_is_described_by_its_outputs_as_moto_does() -> None:
    (description,) = answered_here("other", "comfy-local").describe_stacks(StackName="comfy-local")["Stacks"]
    assert told(description) == told(described_by_moto("comfy-local")) == ("comfy-local", "CREATE_COMPLETE", OUTPUTS)
    assert description["StackId"].startswith("arn:aws:cloudformation:eu-central-1:")


def test_without_a_name_all_stacks_are_described() -> None:
    described = answered_here("one", "two").describe_stacks()["Stacks"]
    assert [told(description) for description in described] == [
        ("one", "CREATE_COMPLETE", OUTPUTS),
        ("two", "CREATE_COMPLETE", OUTPUTS),
    ]


def test_a_stack_that_nobody_has_told_of_does_not_exist() -> None:
    with pytest.raises(ClientError) as refused:
        answered_here("comfy-local").describe_stacks(StackName="another")
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    assert "another does not exist" in refused.value.response["Error"]["Message"]


def test_what_it_cannot_do_is_told() -> None:
    with pytest.raises(ClientError, match="cannot DeleteStack"):
        answered_here("comfy-local").delete_stack(StackName="comfy-local")
