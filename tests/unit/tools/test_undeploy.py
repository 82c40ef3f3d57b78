"""What must be deleted before a stack, and what is forgotten with it: its releases, and which of them is live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.jobs_table import aws
from tools import undeploy
from tools.undeploy import Account, Refused

STACK = "mine"
FOLDER = f"/comfy-serverless/{STACK}"


@pytest.fixture
def account() -> Iterator[Account]:
    """One with a stack that keeps nothing."""
    with aws() as session:
        cloudformation: Any = session.client("cloudformation")
        body = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
        cloudformation.create_stack(StackName=STACK, TemplateBody=body)
        yield Account(cloudformation, *(session.client(name) for name in ("s3", "dynamodb", "ssm")))


def put(account: Account, name: str, **told: str) -> None:
    account.ssm.put_parameter(Name=f"{FOLDER}/{name}", Value=json.dumps(told), Type="String")


def run(account: Account, *, only_tell: bool = False) -> None:
    undeploy.undeploy(account, STACK, only_tell=only_tell, agreed=lambda _: True)


def stands(account: Account) -> bool:
    found = account.cloudformation.list_stacks()["StackSummaries"]
    return any(one["StackName"] == STACK and one["StackStatus"] == "CREATE_COMPLETE" for one in found)


def test_it_is_refused_while_releases_stand_each_with_its_command(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    put(account, "releases/next", stack="mine-lambda-gpu-next")
    put(account, "releases/odd")
    put(account, "live", release="next")
    run(account, only_tell=True)
    assert "It cannot be deleted yet: releases work for it" in capsys.readouterr().out
    with pytest.raises(Refused) as refused:
        run(account)
    for command in (
        'make cdk CDK_ARGS="destroy mine-lambda-gpu-next -c release=next -c stack=mine"',
        'make cdk CDK_ARGS="destroy mine-…-odd -c release=odd -c stack=mine"',
    ):
        assert command in str(refused.value)
    assert stands(account)
    assert account.has_live(STACK)


def test_it_is_refused_while_a_gpu_stack_without_a_name_stands(account: Account) -> None:
    put(account, "dispatch", backend="queue")
    with pytest.raises(Refused, match="a GPU stack works for it"):
        run(account)
    assert stands(account)


def test_which_release_is_live_is_forgotten_with_the_stack(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    put(account, "live", release="next")
    run(account)
    assert f"Which release is live ({FOLDER}/live) is forgotten with the stack" in capsys.readouterr().out
    assert not stands(account)
    assert not account.has_live(STACK)
