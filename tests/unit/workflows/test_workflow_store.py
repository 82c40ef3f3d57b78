"""Versions and aliases of named workflows, kept: nothing is lost, doubled or another owner's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.s3 import DocumentTooLarge
from comfy_serverless.errors import (
    AssetUnavailable,
    ComfyError,
    InvalidRequest,
    InvalidWorkflow,
    NotFound,
    PayloadTooLarge,
    WorkflowChanged,
)
from comfy_serverless.workflows import changes, store
from comfy_serverless.workflows.items import key_of, partition_of
from comfy_serverless.workflows.version import Version
from tests.unit.workflows.stored_workflows import BUCKET, World, head_of, stored, text_of, version


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One world: tests take names, or owners, of their own."""
    with stored() as world:
        yield world


# Pushing.


def test_versions_are_numbered_from_one_and_the_first_is_live(shared: World) -> None:
    first, second = shared.push("one", name="numbered"), shared.push("two", name="numbered")
    assert (first.number, second.number, first.is_new, second.is_new) == (1, 2, True, True)
    head = head_of(shared, "numbered")
    assert (head.latest, head.weights_of("live")) == (2, {1: 1})
    assert [row.number for row in shared.store.versions("alice", "numbered")] == [2, 1]
    assert [text_of(shared.store.document("alice", "numbered", number)) for number in (1, 2)] == ["one", "two"]


def test_a_version_is_what_was_pushed(shared: World) -> None:
    pushed = shared.push(
        name="whole",
        editors={"nodes": []},
        rolled={"6.text": "{red|blue}"},
        needs={"models": []},
        description="A poster.\nIn two lines.",
        note="wider",
        created_by="ci",
        release="blue",
    )
    found = shared.store.document("alice", "whole", 1)
    assert {**vars_of(found), "is_new": True} == vars_of(pushed)
    (row,) = shared.store.versions("alice", "whole")
    assert (row.note, row.created_by, row.release, row.created_at) == ("wider", "ci", "blue", pushed.created_at)
    assert head_of(shared, "whole").title == "A poster."


def vars_of(one: Version) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def test_the_same_pushed_again_makes_no_version_and_says_so(shared: World) -> None:
    shared.push("same", name="again", created_by="ann")
    again = shared.push("same", name="again", note="another note", created_by="bob")
    assert (again.number, again.is_new, again.created_by) == (1, False, "ann")
    assert head_of(shared, "again").latest == 1
    assert shared.push("same", name="again", description="told otherwise").number == 2, "callers see what it is for"
    shared.push("other", name="again")
    assert shared.push("same", name="again", description="told otherwise").number == 4, "only the newest counts"


def test_the_same_pushed_again_moves_the_alias_all_the_same(shared: World) -> None:
    shared.push("one", name="realias")
    shared.push("two", name="realias")
    assert shared.push("two", name="realias", alias="live").is_new is False
    assert head_of(shared, "realias").weights_of("live") == {2: 1}


def test_a_push_moves_an_alias_only_if_told_to(shared: World) -> None:
    shared.push("one", name="moves", alias="staging")
    assert dict(head_of(shared, "moves").aliases).keys() == {"staging"}
    shared.push("two", name="moves")
    shared.push("three", name="moves", alias="staging", created_by="ci")
    head = head_of(shared, "moves")
    assert head.weights_of("staging") == {3: 1}
    assert [(move.before, move.after, move.by) for move in head.history] == [({1: 1}, {3: 1}, "ci"), ({}, {1: 1}, "")]


def test_ten_pushes_at_once_have_ten_numbers_without_gaps(shared: World) -> None:
    start = threading.Barrier(10)

    def push(number: int) -> int:
        start.wait()
        return shared.push(f"text {number}", name="crowd").number

    with ThreadPoolExecutor(10) as pool:
        numbers = list(pool.map(push, range(10)))
    assert sorted(numbers) == list(range(1, 11))
    assert head_of(shared, "crowd").latest == 10
    said = {number: text_of(shared.store.document("alice", "crowd", number)) for number in range(1, 11)}
    assert said == {number: f"text {pushed}" for pushed, number in enumerate(numbers)}


def test_the_same_pushed_by_ten_at_once_is_one_version(shared: World) -> None:
    start = threading.Barrier(10)

    def push(_: int) -> tuple[int, bool]:
        start.wait()
        pushed = shared.push("the same", name="chorus")
        return pushed.number, pushed.is_new

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(push, range(10)))
    assert sorted(found) == [(1, False)] * 9 + [(1, True)]


@pytest.mark.parametrize("lost", ["the write", "its answer"])
def test_a_push_that_dies_between_document_and_table_leaves_no_gap(shared: World, lost: str) -> None:
    name = f"crash-{'a' if lost == 'the write' else 'b'}"
    transact = Table.transact

    def die(table: Table, writes: Any) -> None:
        if lost == "its answer":
            transact(table, writes)
        raise ConnectionError("the process is gone")

    with patch.object(Table, "transact", die), pytest.raises(ConnectionError):
        shared.push("one", name=name)
    assert shared.push("one", name=name).number == 1
    assert shared.push("two", name=name).number == 2
    assert [text_of(shared.store.document("alice", name, number)) for number in (1, 2)] == ["one", "two"]


def test_a_late_write_of_a_document_changes_no_version(shared: World) -> None:
    """A push that was overtaken writes its document under another key, because its content is another."""
    shared.push("one", name="late", created_by="fast")
    with patch.object(Table, "transact", side_effect=ConnectionError), pytest.raises(ConnectionError):
        shared.store._push_next(None, version("late", text="one", created_by="slow", number=1), None, "")
    assert shared.store.document("alice", "late", 1).created_by == "fast"


def test_a_push_may_ask_for_the_version_that_it_follows(shared: World) -> None:
    shared.push("one", name="follows", if_head=0)
    with pytest.raises(WorkflowChanged, match="newest version") as refused:
        shared.push("two", name="follows", if_head=0)
    assert refused.value.details == {"latest": 1, "expected": 0}
    assert shared.push("two", name="follows", if_head=1).number == 2


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", "a b", "a#000001", "#count", "ünï", "a\n", "a\0", "convert", "a" * 65, "a.json", "."]
)
def test_a_name_that_could_be_something_else_is_refused(shared: World, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no workflow can be called"):
        shared.push(name=name)
    with pytest.raises(InvalidRequest, match="no workflow can be called"):
        shared.store.head("alice", name)
    assert not [key for key in shared.documents() if "alice" not in key and "bob" not in key and "operator" not in key]


def test_what_is_too_large_is_refused_before_anything_is_written(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_DOCUMENT_BYTES", 2_000)
    with pytest.raises(PayloadTooLarge, match=r"at most 2,000 are kept"):
        shared.push("x" * 2_000, name="large")
    with pytest.raises(InvalidRequest, match="the note has 1,001 letters"):
        shared.push(name="large", note="x" * 1_001)
    with pytest.raises(InvalidRequest, match="no alias can be called"):
        shared.push(name="large", alias="V3")
    assert shared.store.head("alice", "large") is None
    assert not [key for key in shared.documents() if "/large/" in key]


def test_an_owner_has_a_number_of_names_and_pushes_on_under_them(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_NAMES", 2)
    shared.push(owner="counted", name="a")
    shared.push(owner="counted", name="b")
    with pytest.raises(InvalidRequest, match="workflows already"):
        shared.push(owner="counted", name="c")
    assert shared.push("another", owner="counted", name="a").number == 2
    assert shared.push(owner="counted2", name="c").number == 1, "each owner counts for himself"
    assert shared.store.head("counted", "c") is None


def test_the_last_number_is_the_last(shared: World) -> None:
    shared.push("one", name="old")
    shared.table.put({**head_of(shared, "old").to_item(), "latest": 999_999})
    with pytest.raises(InvalidRequest, match="has 999,999 versions"):
        shared.push("two", name="old")


# Owners.


def test_owners_are_apart(shared: World) -> None:
    shared.push("mine", name="apart")
    shared.push("theirs", name="apart", owner="bob")
    shared.push("longer", name="apart", owner="alice2")
    shared.push("the operator's", name="apart", owner="")
    said = {owner: text_of(shared.store.document(owner, "apart", 1)) for owner in ("alice", "bob", "alice2", "")}
    assert said == {"alice": "mine", "bob": "theirs", "alice2": "longer", "": "the operator's"}
    shared.store.retire("bob", "apart")
    assert not head_of(shared, "apart").is_retired
    changes: list[Callable[[], object]] = [
        lambda: shared.store.move("carol", "apart", "live", {1: 1}, by=""),
        lambda: shared.store.rollback("carol", "apart", "live"),
        lambda: shared.store.retire("carol", "apart"),
        lambda: shared.store.drop_alias("carol", "apart", "live"),
    ]
    for change in changes:
        with pytest.raises(NotFound, match="there is no workflow 'apart'"):
            change()
    assert key_of("operator", "p", 1, "f" * 64).startswith("workflows/owners/operator/")
    assert key_of("", "p", 1, "f" * 64).startswith("workflows/operator/p/")


def test_lists_have_the_owner_s_names_in_order_and_pass_over_versions(shared: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("comfy_serverless.workflows.reader._PAGE", 3)
    for number in range(7):
        shared.push(f"text {number}", name="b", owner="lister")
    for name in ("a", "b-2", "b2", "B", "c_1", "z"):
        shared.push(name=name, owner="lister")
    shared.push(name="theirs", owner="liste")
    shared.push(name="theirs", owner="lister2")
    names = [head.name for head in shared.store.heads("lister")]
    assert names == sorted(["a", "b", "b-2", "b2", "B", "c_1", "z"])
    assert [head.name for head in shared.store.heads("lister", after="b")] == names[names.index("b") + 1 :]
    assert [row.number for row in shared.store.versions("lister", "b")] == [7, 6, 5, 4, 3, 2, 1]
    assert [row.number for row in shared.store.versions("lister", "b", before=3)] == [2, 1]
    assert list(shared.store.versions("lister", "nobody")) == []


def test_a_name_with_many_versions_costs_a_list_one_page(shared: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("comfy_serverless.workflows.reader._PAGE", 5)
    for number in range(20):
        shared.push(f"text {number}", name="many", owner="pages")
    shared.push(name="next", owner="pages")
    with shared.counted() as calls:
        assert [head.name for head in shared.store.heads("pages")] == ["many", "next"]
    assert calls == {"Query": 2}


# Retiring and sharing.


def test_a_retired_name_keeps_everything_and_a_push_brings_it_back(shared: World) -> None:
    name = "pension"
    for number in (1, 2):
        shared.push(f"text {number}", name=name)
    assert shared.store.retire("alice", name).is_retired
    assert head_of(shared, name).weights_of("live") == {1: 1}
    assert text_of(shared.store.document("alice", name, 2)) == "text 2"
    assert shared.push("text 2", name=name).is_new is False
    assert not head_of(shared, name).is_retired
    shared.store.retire("alice", name)
    assert shared.push("text 3", name=name).number == 3
    assert not head_of(shared, name).is_retired


def test_the_operator_shares_and_takes_back(shared: World) -> None:
    shared.push(name="common", owner="")
    assert not head_of(shared, "common", "").is_shared
    assert shared.store.share("common").is_shared
    shared.push("another", name="common", owner="")
    assert head_of(shared, "common", "").is_shared, "a push changes nothing of that"
    assert not shared.store.share("common", False).is_shared
    revision = head_of(shared, "common", "").revision
    assert not shared.store.share("common", False).is_shared
    assert head_of(shared, "common", "").revision == revision, "what is so already is not written"
    shared.push(name="mine-alone")
    with pytest.raises(NotFound):
        shared.store.share("mine-alone")


# Damage.


def test_a_document_that_is_gone_damaged_or_not_to_be_read_says_which(shared: World) -> None:
    shared.push("one", owner="damaged1")
    shared.push("two", owner="damaged1", alias="live")
    key = next(key for key in shared.documents() if "damaged1/poster/000002-" in key)
    document = shared.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    shared.s3.put_object(Bucket=BUCKET, Key=key, Body=document.replace(b"two", b"owt"))
    with pytest.raises(InvalidWorkflow, match=r"version 2 of the workflow 'poster' .*its SHA-256 is another"):
        shared.store.document("damaged1", "poster", 2)
    shared.s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(InvalidWorkflow, match=r"version 2 of the workflow 'poster' .*does not exist"):
        shared.store.document("damaged1", "poster", 2)
    assert text_of(shared.store.document("damaged1", "poster", 1)) == "one"
    with pytest.raises(NotFound, match="no version 3"):
        shared.store.document("damaged1", "poster", 3)


@pytest.mark.parametrize(
    "refusal",
    [
        ClientError(
            {"Error": {"Code": "AccessDenied", "Message": f"no s3:GetObject on {BUCKET}/workflows"}}, "GetObject"
        ),
        ClientError({"Error": {"Code": "NoSuchBucket", "Message": BUCKET}}, "GetObject"),
        ClientError({"Error": {"Code": "NoSuchKey", "Message": "workflows/owners/damaged3"}}, "GetObject"),
        ClientError({"Error": {"Code": "InvalidRequest", "Message": f"{BUCKET}/workflows"}}, "GetObject"),
        EndpointConnectionError(endpoint_url=f"https://{BUCKET}.s3.amazonaws.com/workflows/owners/damaged3/poster"),
        DocumentTooLarge(f"s3://{BUCKET}/workflows has 9 bytes"),
    ],
)
def test_a_caller_is_told_of_no_bucket_and_no_key(shared: World, refusal: Exception) -> None:
    """It may be somebody whom the operator lets run it."""
    shared.push("one", owner="damaged3")
    with (
        patch.object(shared.s3, "get_object", side_effect=refusal),
        pytest.raises(ComfyError, match="version 1 of the workflow 'poster' cannot be") as failed,
    ):
        shared.store.document("damaged3", "poster", 1)
    told = json.dumps([failed.value.message, failed.value.details])
    assert not [part for part in (BUCKET, "damaged3", "workflows/", "s3:") if part in told]


def test_what_is_damaged_can_be_pushed_again(shared: World) -> None:
    shared.push("one", owner="mended")
    (key,) = [key for key in shared.documents() if "/mended/" in key]
    shared.s3.delete_object(Bucket=BUCKET, Key=key)
    again = shared.push("one", owner="mended", alias="live")
    assert (again.number, again.is_new) == (2, True)
    assert head_of(shared, "poster", "mended").weights_of("live") == {2: 1}


def test_s3_that_does_not_answer_is_no_damage(shared: World) -> None:
    shared.push("one", owner="damaged2")
    with (
        patch.object(shared.s3, "get_object", side_effect=EndpointConnectionError(endpoint_url="s3")),
        pytest.raises(AssetUnavailable, match="version 1 of the workflow 'poster' cannot be read now") as failed,
    ):
        shared.store.document("damaged2", "poster", 1)
    assert failed.value.retryable


@pytest.mark.parametrize(
    "newer",
    [
        {"format": 99, "readable_from": 99},
        {"format": 99, "graph": None, "inputs": [{"of": "tomorrow"}]},
        {"format": "2.0", "readable_from": "2.0"},
    ],
)
def test_a_document_of_a_newer_format_says_so_and_is_left_alone(newer: dict[str, Any]) -> None:
    content = json.dumps({**json.loads(version(number=1).to_bytes()), **newer}).encode()
    with pytest.raises(InvalidWorkflow, match="version 1 of the workflow 'poster' was pushed by a newer release"):
        Version.parse(content, source="version 1 of the workflow 'poster'")


# Other releases.


def test_a_change_leaves_what_a_newer_release_has_written(shared: World) -> None:
    shared.push("one", owner="damaged4")
    item = shared.table.get(partition_of("damaged4"), "poster")
    assert item is not None
    shared.table.put({**item, "of_tomorrow": {"a": [1]}})
    shared.push("two", owner="damaged4", alias="live")
    shared.store.rollback("damaged4", "poster", "live")
    after = shared.table.get(partition_of("damaged4"), "poster")
    assert after is not None
    assert after["of_tomorrow"] == {"a": [1]}


def test_nothing_of_it_ever_expires(shared: World) -> None:
    shared.push("one", owner="damaged5")
    shared.store.move("damaged5", "poster", "staging", {1: 1}, by="")
    rows = list(shared.table.query_all("#pk = :pk", {"pk": partition_of("damaged5")}))
    assert len(rows) == 3
    assert not [row for row in rows if {"expires", "lease", "lease_until"} & row.keys()]
