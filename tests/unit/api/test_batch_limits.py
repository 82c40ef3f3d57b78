"""What a batch may not be used for: jobs beyond a budget, and memory of whoever reads its lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace

import pytest

from comfy_serverless.batches import manifest_text
from comfy_serverless.batches.manifest_text import MAX_WHOLE_REQUESTS, in_lines
from comfy_serverless.errors import InvalidRequest
from tests.unit.owned_batches import URL, Batches, batches_world, line

USED_UP = {"budget_nanousd": "1", "budget_action": "refuse", "key_id": "key-1"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setattr("comfy_serverless.table.usage.UsageStore.spent_nanousd", lambda *_: 1)
    with batches_world(monkeypatch) as made:
        yield made


def test_a_budget_that_is_used_up_refuses_batches_their_resume_and_their_retry(world: Batches) -> None:
    lines = [line(1), line(2)]
    assert world.post({"name": "before", "lines": lines}).status == 201
    assert world.do("before", "pause").status == 200
    upload = world.upload("many.jsonl", b'{"workflow": {}}\n')
    before = world.all_items()
    for path, body in (
        (URL, {"name": "more", "lines": lines}),
        (URL, {"name": "more", "lines": lines, "force": True}),
        (URL, {"name": "more", "upload_id": upload}),
        (f"{URL}/before/resume", None),
        (f"{URL}/before/retry", {"only": "all"}),
    ):
        answer = world.request("POST", path, body=body, key=USED_UP)
        assert (answer.status, answer.code) == (403, "budget_exceeded"), path
    assert world.request("POST", f"{URL}/rivals-batch/resume", key=USED_UP).status == 404
    assert world.all_items() == before, "nothing was taken, completed or changed"
    assert world.request("POST", f"{URL}/before/cancel", key=USED_UP).status == 200, "less work is always possible"


def test_a_budget_that_only_warns_refuses_no_batch(world: Batches) -> None:
    key = {**USED_UP, "budget_action": "warn"}
    assert world.request("POST", URL, body={"name": "more", "lines": [line(1)]}, key=key).status == 201


def test_a_packed_list_of_millions_of_values_is_refused_after_the_first_ones() -> None:
    packed = gzip.compress(b"[%s1]" % (b"1, " * 2_000_000))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_WHOLE_REQUESTS:,} requests"):
        in_lines(packed, source="the manifest")


def test_as_many_requests_as_there_may_be_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_text, "MAX_WHOLE_REQUESTS", 3)
    assert in_lines(b"[{},\n{},\n{}]", source="x") == b"{}\n{}\n{}\n"
    with pytest.raises(InvalidRequest, match="more than 3"):
        in_lines(b"[{},\n{},\n{},\n{}]", source="x")


def test_a_packed_upload_may_have_no_more_bytes_than_one_that_is_not_packed(
    world: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.api.batch_submission.MAX_SENT_BYTES", 10)
    most = replace(world.services.settings, max_upload_bytes=5000)
    world.keeper = replace(world.keeper, settings=most)
    upload = world.asset("bomb.jsonl.gz", gzip.compress(b"{}\n" * 2000))
    assert world.post({"name": "bomb", "upload_id": upload}).status == 201
    world.look("bomb")
    document = world.get("bomb")
    assert (document["status"], document["lines"]) == ("failed", 0)
    assert "unpacks to more than 5,000 bytes" in document["first_failures"][0]["message"]
