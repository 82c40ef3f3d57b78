"""Aliases of named workflows: each move is one conditional write, and of two at once one is told."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.errors import (
    ComfyError,
    InvalidRequest,
    NotFound,
    WorkflowChanged,
)
from comfy_serverless.workflows import items
from comfy_serverless.workflows.items import Weights, partition_of
from comfy_serverless.workflows.pick import are_same
from tests.unit.workflows.stored_workflows import World, head_of, stored, text_of


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One world: tests take names, or owners, of their own."""
    with stored() as world:
        yield world


def moved(world: World, name: str, *, versions: int = 4) -> str:
    for number in range(1, versions + 1):
        world.push(f"text {number}", name=name)
    return name


def test_an_alias_moves_and_says_who_moved_it(shared: World) -> None:
    name = moved(shared, "said")
    head = shared.store.move("alice", name, "live", {3: 90, 4: 10}, by="ann")
    assert head == head_of(shared, name)
    assert head.weights_of("live") == {3: 90, 4: 10}
    assert (head.history[0].by, head.history[0].before, head.history[0].after) == ("ann", {1: 1}, {3: 90, 4: 10})


def test_a_move_is_one_write(shared: World) -> None:
    name = moved(shared, "single")
    with shared.counted() as calls:
        shared.store.move("alice", name, "live", {2: 1}, by="")
    assert calls == {"GetItem": 1, "BatchGetItem": 1, "UpdateItem": 1}
    with shared.counted() as calls:
        shared.store.move("alice", name, "live", {2: 1}, by="")
    assert calls == {"GetItem": 1}, "it leads there already"


def test_of_two_moves_at_once_one_wins_and_the_other_is_told(shared: World) -> None:
    name = moved(shared, "race")
    start = threading.Barrier(8)

    def move(number: int) -> str:
        start.wait()
        try:
            shared.store.move("alice", name, "live", {2 + number % 2: 1 + number}, by=str(number), expected={1: 1})
        except WorkflowChanged as error:
            return error.code
        return "moved"

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(move, range(8)))
    assert sorted(told) == ["moved"] + ["workflow_changed"] * 7
    head = head_of(shared, name)
    assert head.history[0].by == str(told.index("moved"))
    assert len(head.history) == 2


def test_a_move_between_reading_and_writing_is_seen(shared: World) -> None:
    name = moved(shared, "between")
    update, others = Table.update, [{2: 1}]

    def overtaken(table: Table, change: Any) -> Any:
        if others:
            shared.store.move("alice", name, "live", others.pop(), by="the other")
        return update(table, change)

    with patch.object(Table, "update", overtaken), pytest.raises(WorkflowChanged, match="leads to version 2, not to"):
        shared.store.move("alice", name, "live", {3: 1}, by="me")
    assert head_of(shared, name).weights_of("live") == {2: 1}


def test_a_push_and_a_move_of_another_alias_do_not_stop_a_move(shared: World) -> None:
    name = moved(shared, "beside")
    update = Table.update
    others: list[Callable[[], object]] = [lambda: shared.push("five", name=name), lambda: shared.store.share("x")]

    def overtaken(table: Table, change: Any) -> Any:
        if len(others) == 2:
            others.pop()
            others.pop()()
            shared.store.move("alice", name, "staging", {1: 1}, by="the other")
        return update(table, change)

    with patch.object(Table, "update", overtaken):
        head = shared.store.move("alice", name, "live", {3: 1}, by="me", expected={1: 1})
    assert (head.latest, head.weights_of("live"), head.weights_of("staging")) == (5, {3: 1}, {1: 1})


def test_what_is_expected_are_shares_not_sums(shared: World) -> None:
    name = moved(shared, "shares", versions=2)
    shared.store.move("alice", name, "live", {1: 9, 2: 1}, by="", expected={1: 50})
    assert shared.store.move("alice", name, "live", {2: 1}, by="", expected={1: 0.9, 2: 0.1}).latest == 2
    with pytest.raises(WorkflowChanged):
        shared.store.move("alice", name, "live", {1: 1}, by="", expected={1: 9, 2: 1})


def test_a_new_alias_is_expected_to_mean_nothing(shared: World) -> None:
    name = moved(shared, "fresh", versions=1)
    shared.store.move("alice", name, "staging", {1: 1}, by="", expected={})
    with pytest.raises(WorkflowChanged) as refused:
        shared.store.move("alice", name, "live", {1: 1}, by="", expected={})
    assert refused.value.details == {"alias": "live", "weights": {"1": 1}}
    assert refused.value.http_status == 409


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        ({}, InvalidRequest, "1 to 10 versions"),
        ({1: 0}, InvalidRequest, "1 to 10 versions"),
        ({1: -1}, InvalidRequest, "a number from 0"),
        ({1: True}, InvalidRequest, "a number from 0"),
        ({1: float("nan")}, InvalidRequest, "a number from 0"),
        ({1: 2_000_000}, InvalidRequest, "a number from 0"),
        (dict.fromkeys(range(1, 12), 1), InvalidRequest, "1 to 10 versions"),
        ({5: 1}, NotFound, "no version 5"),
        ({0: 1}, NotFound, "no version 0"),
        ({1: 1, 999: 1}, NotFound, "no version 999"),
    ],
)
def test_an_alias_leads_to_versions_that_are_there(
    shared: World, targets: dict[int, float], error: type[ComfyError], words: str
) -> None:
    name = "targets" if shared.store.head("alice", "targets") else moved(shared, "targets")
    before = head_of(shared, name)
    with pytest.raises(error, match=words):
        shared.store.move("alice", name, "live", targets, by="")
    assert head_of(shared, name) == before


def test_fractions_are_weights_too(shared: World) -> None:
    name = moved(shared, "parts", versions=2)
    head = shared.store.move("alice", name, "live", {1: 0.9, 2: 0.1}, by="")
    assert head.weights_of("live") == {1: 900_000, 2: 100_000}
    assert shared.store.move("alice", name, "live", {1: 1.0, 2: 0}, by="").weights_of("live") == {1: 1}


def test_a_rollback_goes_back_and_a_second_one_forth(shared: World) -> None:
    name = moved(shared, "back")
    with pytest.raises(InvalidRequest, match="never moved"):
        shared.store.rollback("alice", name, "live")
    shared.store.move("alice", name, "live", {2: 1}, by="")
    shared.store.move("alice", name, "live", {3: 90, 4: 10}, by="")
    weights = [shared.store.rollback("alice", name, "live", by="ann").weights_of("live") for _ in range(4)]
    assert weights == [{2: 1}, {3: 90, 4: 10}, {2: 1}, {3: 90, 4: 10}]
    assert head_of(shared, name).history[0].by == "ann"
    with pytest.raises(WorkflowChanged):
        shared.store.rollback("alice", name, "live", expected={2: 1})
    with pytest.raises(NotFound, match="no alias 'nope'; it has live"):
        shared.store.rollback("alice", name, "nope")


def test_a_rollback_remembers_however_often_other_aliases_moved(shared: World) -> None:
    name = moved(shared, "elephant", versions=2)
    shared.store.move("alice", name, "live", {2: 1}, by="")
    for number in range(items.MOST_MOVES + 5):
        shared.store.move("alice", name, "staging", {1 + number % 2: 1}, by="")
    head = head_of(shared, name)
    assert len(head.history) == items.MOST_MOVES
    assert {move.alias for move in head.history} == {"staging"}
    assert shared.store.rollback("alice", name, "live").weights_of("live") == {1: 1}


def test_an_alias_can_be_dropped_and_made_again(shared: World) -> None:
    name = moved(shared, "dropped", versions=2)
    shared.store.move("alice", name, "staging", {2: 1}, by="")
    head = shared.store.drop_alias("alice", name, "staging", by="ann")
    assert dict(head.aliases).keys() == {"live"}
    assert (dict(head.history[0].after), head.history[0].by, set(head.documents)) == ({}, "ann", {1})
    with pytest.raises(NotFound, match="no alias 'staging'"):
        shared.store.drop_alias("alice", name, "staging")
    assert shared.store.move("alice", name, "staging", {2: 1}, by="", expected={}).weights_of("staging") == {2: 1}


def test_heads_are_bounded(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest head that there can be is read with each run: 50 aliases, each with ten versions, and 20 moves."""
    name = moved(shared, "widest", versions=12)
    for number in range(49):
        targets = {1 + (number + other) % 12: 999_000 + other for other in range(10)}
        shared.store.move("alice", name, f"alias-{number}-{'x' * 20}", targets, by="b" * 100)
    with pytest.raises(InvalidRequest, match="50 aliases already"):
        shared.store.move("alice", name, "one-more", {1: 1}, by="")
    assert shared.store.move("alice", name, "live", {2: 1}, by="").weights_of("live") == {2: 1}
    answer = shared.table._client.get_item(
        TableName=shared.table.name, Key={"pk": {"S": partition_of("alice")}, "sk": {"S": name}}
    )
    assert len(str(answer["Item"])) < 100_000
    assert len(head_of(shared, name).history) == items.MOST_MOVES


# Any order.


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_in_any_order_an_alias_means_what_the_last_move_said(shared: World, seed: int) -> None:
    """Against a model: what each alias means, what it meant before, and the text of each version."""
    dice, owner, name = random.Random(seed), f"model{seed}", "poster"
    texts: list[str] = []
    means: dict[str, tuple[Weights, Weights]] = {}

    def mean(alias: str, weights: Weights) -> None:
        before = means.get(alias, ({}, {}))[0]
        if not are_same(before, weights):
            means[alias] = weights, before

    for step in range(60):
        alias = dice.choice(["live", "staging", "beta"])
        match dice.choice(["push", "push", "move", "move", "rollback", "drop"]):
            case "push":
                text, moves = f"text {dice.randrange(4)}", dice.random() < 0.5
                is_new = not texts or texts[-1] != text
                pushed = shared.push(text, owner=owner, alias=alias if moves else None)
                texts += [text] if is_new else []
                assert (pushed.number, pushed.is_new, text_of(pushed)) == (len(texts), is_new, text)
                if moves or len(texts) == 1:
                    mean(alias if moves else "live", {len(texts): 1})
            case "move" if texts:
                weights = {1 + dice.randrange(len(texts)): dice.randrange(1, 9) for _ in range(3)}
                shared.store.move(owner, name, alias, weights, by=str(step), expected=means.get(alias, ({}, {}))[0])
                mean(alias, dict(sorted(weights.items())))
            case "rollback" if means.get(alias, ({}, {}))[1]:
                shared.store.rollback(owner, name, alias)
                means[alias] = means[alias][1], means[alias][0]
            case "drop" if alias in means:
                shared.store.drop_alias(owner, name, alias)
                del means[alias]
    head = head_of(shared, name, owner)
    assert {alias: (one.weights, one.before) for alias, one in head.aliases.items()} == means
    assert [row.number for row in shared.store.versions(owner, name)] == list(range(len(texts), 0, -1))
    assert [text_of(shared.store.document(head, name, 1 + number)) for number in range(len(texts))] == texts
    assert set(head.documents) == {number for weights, _ in means.values() for number in weights}
