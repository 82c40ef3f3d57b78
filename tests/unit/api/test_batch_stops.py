"""A batch stops by itself where it would cost too much: its key's budget is used up, or its manifest is rubbish."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.api.batch_submission import MAX_ORDERS
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches import reading
from comfy_serverless.batches.batch import BatchStatus
from comfy_serverless.batches.report import PART_FORM
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.batches.taking import take_again
from comfy_serverless.table.api_keys import BudgetAction
from tests.unit.api.test_usage_route import spend
from tests.unit.owned_batches import ASSETS, RESULTS, Batches, batches_world, line
from tests.unit.table_clock import TableClock


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setattr("comfy_serverless.table.usage.KNOWN_S", 0.0)
    TableClock(monkeypatch)  # no month ends between two requests
    monkeypatch.setattr(reading, "CHUNK_LINES", 5)
    with batches_world(monkeypatch, max_bad_lines=10) as world:
        yield world


def begun_with_a_budget(world: Batches, action: BudgetAction) -> str:
    """A batch of four lines, whose key may cost 0.40 USD; returns the key's id."""
    key = world.services.keys.create("ci", owner="team", budget_nanousd=400_000_000, budget_action=action).key
    assert world.post({"name": "many", "lines": [line(number) for number in range(1, 5)]}, key=of(key.id)).status == 201
    world.look("many")
    return key.id


def of(key_id: str) -> dict[str, str]:
    return {"key_id": key_id}


def report(world: Batches, name: str) -> Any:
    address = world.batch(name).report
    assert address is not None
    return json.loads(world.s3.get_object(Bucket=RESULTS, Key=address.partition(f"{RESULTS}/")[2])["Body"].read())


def test_a_batch_is_paused_when_its_keys_budget_is_used_up_and_goes_on_when_it_is_raised(world: Batches) -> None:
    key_id = begun_with_a_budget(world, BudgetAction.REFUSE)
    spend(world, key_id=key_id)  # 0.50 USD
    world.look("many")
    told = world.get("many")
    assert told["status"] == "paused"
    (note,) = told["notes"]
    assert note.startswith("paused: the jobs of its key 'ci' have cost what they may")
    assert "0.50 USD of 0.40 USD" in note
    assert world.work() == [], "nothing more begins: what comes to a worker waits in the table"

    refused = world.do("many", "resume")  # with another key of the owner
    assert (refused.status, refused.code) == (403, "budget_exceeded")
    world.services.keys.change(key_id, budget_nanousd=10**12)
    assert world.do("many", "resume").status == 200
    assert world.get("many")["notes"] == []
    world.look("many")
    assert len(world.work()) == 4, "no line is lost"
    world.look("many")
    ended = world.get("many")
    assert (ended["status"], ended["succeeded"]) == ("completed", 4)
    (note,) = ended["notes"]
    assert note.startswith("was paused: ")
    assert report(world, "many")["notes"] == [note]


def test_a_batch_whose_last_job_uses_the_budget_up_has_ended_and_was_never_paused(world: Batches) -> None:
    key_id = begun_with_a_budget(world, BudgetAction.REFUSE)
    assert len(world.work()) == 4
    spend(world, key_id=key_id)
    world.look("many")
    ended = world.get("many")
    assert (ended["status"], ended["succeeded"], ended["notes"]) == ("completed", 4, [])
    assert "notes" not in report(world, "many")


@pytest.mark.parametrize("what", ["warns", "enough", "revoked", "no key"])
def test_no_other_batch_is_paused(world: Batches, what: str) -> None:
    key_id = begun_with_a_budget(world, BudgetAction.WARN if what == "warns" else BudgetAction.REFUSE)
    if what != "enough":
        spend(world, key_id="key-2" if what == "no key" else key_id)
    if what == "revoked":
        world.services.keys.revoke(key_id)
    world.look("many")
    assert (world.get("many")["status"], world.get("many")["notes"]) == ("running", [])


def test_a_person_who_pauses_is_not_told_of_a_budget(world: Batches) -> None:
    key_id = begun_with_a_budget(world, BudgetAction.REFUSE)
    spend(world, key_id=key_id)
    world.look("many")
    world.services.keys.change(key_id, budget_nanousd=None)
    world.do("many", "resume")
    world.do("many", "pause")
    assert world.get("many")["notes"] == []
    assert world.batch("many").status is BatchStatus.PAUSED


def test_after_too_many_bad_lines_the_rest_is_not_read_and_that_is_told(world: Batches) -> None:
    good = [json.dumps(line(number)) for number in range(1, 4)]
    lines = [good[0], *["no request"] * 12, good[1], "", *["no request"] * 30, good[2], "no request"]
    upload_id = world.upload("m.jsonl", "\n".join(lines).encode() + b"\n")
    assert world.post({"name": "many", "upload_id": upload_id, "force": True}).status == 201
    world.look("many")
    world.look("many")
    ran = len(world.work())
    world.look("many")
    told = world.get("many")
    assert told["status"] == "completed"
    assert told["succeeded"] == ran >= 1, "good lines that were read run as ever"
    assert 10 <= told["bad"] < 20, "no chunk more is read"
    assert "10 lines were no requests" in told["notes"][0]
    assert told["notes"][0].endswith("do not run twice, unless they draw a seed"), "their ids are of their places"
    assert [one["line"] for one in told["first_failures"][:2]] == [2, 3]
    written = report(world, "many")
    assert written["lines"] + written["unread_lines"] == len([one for one in lines if one])
    assert written["notes"] == told["notes"]
    items = [item for item in world.all_items() if item["sk"].get("S", "").startswith("bad#")]
    assert len(items) == told["bad"], "each bad line that was read is one item, and no other is"


def test_ranges_behind_the_end_of_reading_are_not_read_and_keep_their_numbers(
    world: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.batches.ranges.RANGE_BYTES", 1000)
    monkeypatch.setattr("comfy_serverless.batches.ranges.UNTOUCHED_S", -10)  # the other orders come with the first look
    lines = [json.dumps(line(1)), *["no request"] * 400, json.dumps(line(2))]
    upload_id = world.upload("m.jsonl", "\n".join(lines).encode() + b"\n")
    world.post({"name": "many", "upload_id": upload_id, "force": True})
    for _ in range(3):
        world.look("many")
        world.work()
    ranges = world.services.batches.ranges(world.batch("many").id)
    assert len(ranges) > 3
    assert sum(part.unread > 0 for part in ranges) >= len(ranges) - 1
    world.look("many")
    written = report(world, "many")
    assert written["lines"] + written["unread_lines"] == len(lines)
    assert written["bad_lines"] < 20


@pytest.mark.parametrize("is_begun", [True, False], ids=["begun", "not begun"])
def test_a_chunk_that_was_begun_when_reading_ended_is_read_to_its_end_and_no_other_is(
    world: Batches, monkeypatch: pytest.MonkeyPatch, is_begun: bool
) -> None:
    lines = [json.dumps(line(number)) for number in range(1, 13)]
    upload_id = world.upload("m.jsonl", "\n".join(lines).encode() + b"\n")
    world.post({"name": "many", "upload_id": upload_id})

    def cut_off(*_: object) -> bool:
        raise RuntimeError("the function's time is over")

    with monkeypatch.context() as patch:
        patch.setattr(BatchStore, "mark_read" if is_begun else "get", cut_off)
        with pytest.raises(RuntimeError):
            world.follow_orders()
    monkeypatch.setattr("comfy_serverless.batches.ranges.UNTOUCHED_S", -10)
    world.services.batches.cut(world.batch("many").id, "another range had too many bad lines")
    ran = 0
    for _ in range(4):
        world.look("many")
        ran += len(world.work())
    written = report(world, "many")
    assert (written["lines"], written["unread_lines"]) == ((5, 7) if is_begun else (0, 12))
    assert (ran, world.get("many")["succeeded"]) == ((5, 5) if is_begun else (0, 0)), "what has run is in the report"


def test_a_chunk_that_is_read_behind_the_end_has_the_part_of_its_report_written_anew(world: Batches) -> None:
    world.post({"name": "many", "lines": [line(number) for number in range(1, 4)]})
    batch, store = world.batch("many"), world.services.batches
    before = store.ranges(batch.id)[0]
    store.cut(batch.id, "another range had too many bad lines")
    store.cut_range(batch.id, before)
    store.mark_reported(batch.id, store.ranges(batch.id)[0], form=PART_FORM)
    assert store.mark_read(batch, before, replace(before, offset=before.end, lines=3), []), "it was reading then"
    (part,) = store.ranges(batch.id)
    assert (part.is_read, part.unread, part.part_form) == (True, 0, 0)


def test_a_list_of_many_batches_has_few_of_them_counted_in_one_call(world: Batches) -> None:
    for number in range(MAX_ORDERS + 3):
        assert world.post({"name": f"b{number}", "lines": [line(number + 1)]}).status == 201
    world.follow_orders()
    calls: Counter[str] = Counter()
    orders = world.services.orders
    assert orders is not None
    world.sqs.meta.events.register("before-call.sqs", lambda model, **_: calls.update([model.name]))
    orders.sqs.meta.events.register("before-call.sqs", lambda model, **_: calls.update([model.name]))
    listed = world.request("GET", "/api/v2/batches?limit=50").json["batches"]
    assert len(listed) == MAX_ORDERS + 3
    assert calls == {"SendMessageBatch": 1}
    assert len(world.messages(world.urls["manifests"])) == MAX_ORDERS


def test_lines_that_run_again_cost_as_many_calls_however_many_they_are(world: Batches) -> None:
    calls: dict[str, Counter[str]] = {}
    for name, count in {"few": 2, "many": 40}.items():
        world.post({"name": name, "lines": [line(number + 1, metadata={"of": name}) for number in range(count)]})
        world.look(name)
        world.work(failing=frozenset(range(count)))
        world.look(name)
        report_at = S3Address.parse(str(world.batch(name).report))
        found: Counter[str] = Counter()
        handler = lambda model, found=found, **_: found.update([model.name])  # noqa: E731
        world.s3.meta.events.register("before-call.s3", handler)
        copied = take_again(world.s3, report_at, S3Address(ASSETS, f"{name}.jsonl"), only="all")
        world.s3.meta.events.unregister("before-call.s3", handler)
        assert copied == world.s3.head_object(Bucket=ASSETS, Key=f"{name}.jsonl")["ContentLength"]
        calls[name] = found
    assert calls["few"] == calls["many"]
    assert calls["many"].total() <= 3
