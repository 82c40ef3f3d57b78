"""The roles of template.yaml may do what stores and finders of named workflows ask of AWS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comfy_serverless.errors import NotFound
from local.aws.permissions import LEADING_KEYS, Access
from local.aws.roles import roles
from local.aws.template import arn_of
from tests.unit.workflows.stored_workflows import World, stored

ITEM, DOCUMENT = "workflows#alice", "workflows/owners/alice/poster/000001-0123456789abcdef.json"
ACTIONS = {
    "TransactWriteItems": ("dynamodb:PutItem", "dynamodb:UpdateItem"),
    "GetObject": ("s3:GetObject",),
    "PutObject": ("s3:PutObject",),
}


@pytest.fixture
def world() -> Iterator[World]:
    with stored() as made:
        yield made


def refused(role: str, calls: dict[str, int]) -> set[str]:
    """The actions that a role may not do."""
    asked = {action for call in calls for action in ACTIONS.get(call, (f"dynamodb:{call}",))}
    return {
        action
        for action in asked
        if not roles()[role].allows(
            Access(action=action, resource=f"{arn_of('AssetsBucket')}/{DOCUMENT}")
            if action.startswith("s3:")
            else Access(action=action, resource=arn_of("JobsTable"), context={LEADING_KEYS: (ITEM,)})
        )
    }


def test_the_api_may_push_move_list_and_retire_and_workers_may_not(world: World) -> None:
    with world.counted() as calls:
        for text in ("one", "two"):
            world.push(text)
        world.store.move("alice", "poster", "live", {2: 1}, by="")
        world.store.rollback("alice", "poster", "live")
        world.store.retire("alice", "poster")
        list(world.store.heads("alice"))
        list(world.store.versions("alice", "poster"))
        world.store.document("alice", "poster", 2)
    assert refused("ApiRole", calls) == set()
    for role in ("GenerateRole", "IngestRole"):
        assert refused(role, calls) >= {"dynamodb:PutItem", "dynamodb:UpdateItem", "s3:PutObject"}


@pytest.mark.parametrize("role", ["ApiRole", "IngestRole", "GenerateRole"])
def test_who_runs_them_may_find_them(world: World, role: str) -> None:
    world.push("one")
    with world.counted() as calls:
        finder = world.finder()
        finder.find("poster", owner="alice")
        finder.find("poster@1", owner="alice")
        with pytest.raises(NotFound, match="did you mean"):
            finder.find("postr", owner="alice")
    assert calls.keys() == {"BatchGetItem", "GetObject", "Query"}
    assert refused(role, calls) == set()


@pytest.mark.parametrize("role", sorted(roles()))
def test_no_role_of_the_stack_writes_what_the_operator_shares(role: str) -> None:
    documents = f"{arn_of('AssetsBucket')}/workflows/operator/poster/000001-0123456789abcdef.json"
    assert not roles()[role].allows(Access(action="s3:PutObject", resource=documents))
    for action in ("PutItem", "UpdateItem", "DeleteItem"):
        access = Access(
            action=f"dynamodb:{action}", resource=arn_of("JobsTable"), context={LEADING_KEYS: ("workflows#",)}
        )
        assert not roles()[role].allows(access), action
