"""What of a job, or of a list, is new to its watcher, and when it is looked at again: without any table."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.api.live import (
    CROWDED_LIST_PAUSE_S,
    MAX_ID_CHARACTERS,
    QUIET_LIST_PAUSE_S,
    READS_A_MINUTE,
    Pace,
    Places,
    Seen,
    SeenJobs,
    frame,
    frames_of_list,
    list_pause_s,
    tag_of,
    unseen,
)
from comfy_serverless.jobs.document import JobStatus, Output, Progress
from comfy_serverless.table.job_item import JobEntry, Preview
from comfy_serverless.table.job_state import JobState, NewJob
from tests.unit.event_world import output

ENDED = {"status": JobStatus.SUCCEEDED, "updated_at": "2026-11-29T12:00:09.000Z"}


def job(*places: int, **columns: Any) -> JobState:
    """A job that runs, with outputs at these places."""
    state = NewJob(job_id="fox", owner="team", request_uri="s3://a/b", result_uri="s3://c/d/result.json")
    begun = {"status": JobStatus.RUNNING, "run": "run-1", "started_at": "2026-11-29T12:00:00.000Z"}
    waiting = state.waiting(keeper="open", keeper_due=0)
    return replace(waiting, **{**begun, **columns}, places=places, outputs=tuple(map(output, places)))


def told(state: JobState, seen: Seen) -> tuple[list[str], Seen]:
    """The events of a look, and what was seen then."""
    parts = list(unseen(state, seen))
    return [part.event for part in parts], parts[-1].seen if parts else seen


def progress(value: float) -> str:
    return Progress(value=value, nodes_done=1, nodes_total=4).model_dump_json()


def test_the_first_look_is_a_snapshot_and_the_next_ones_say_what_is_new() -> None:
    preview = Preview(node_id="3", content_type="image/jpeg", data_base64="AAAA")
    first = job(0, progress_json=progress(0.25), preview=preview)
    events, seen = told(first, Seen())
    assert events == ["status", "progress", "preview", "output"]
    assert told(first, seen) == ([], seen)
    events, seen = told(replace(first, progress_json=progress(0.5)), seen)
    assert events == ["progress"]
    events, seen = told(job(0, 1, progress_json=progress(0.5), preview=replace(preview, data_base64="BBBB")), seen)
    assert events == ["preview", "output"]
    events, seen = told(job(0, 1, 2, progress_json=progress(0.5), **ENDED), seen)
    assert events == ["output", "status"], "the terminal status ends the stream"
    assert seen.status == "succeeded"


def test_an_output_that_comes_between_two_others_is_new() -> None:
    _, seen = told(job(0, 2), Seen())
    parts = list(unseen(job(0, 1, 2), seen))
    assert [part.content.name for part in parts if isinstance(part.content, Output)] == ["1.png"]
    assert parts[-1].seen.outputs == Places(((0, 2),))


def test_outputs_of_another_run_are_others() -> None:
    _, seen = told(job(0, 1), Seen())
    events, seen = told(job(0, run="run-2"), seen)
    assert events == ["output"]
    assert told(job(0, run=None, last_run="run-2", document_json=None), seen)[0] == ["output"]


@pytest.mark.parametrize("seed", range(40))
def test_whoever_connects_again_anywhere_loses_and_repeats_nothing(seed: int) -> None:
    """A job goes on by chance, and the connection breaks behind any frame: together the parts are the whole."""
    chance = random.Random(seed)
    places: list[int] = []
    states, value = [job(status=JobStatus.QUEUED, run=None, started_at=None)], 0.0
    for _ in range(8):
        value += 0.1 * chance.randrange(2)
        new = chance.sample([place for place in range(30) if place not in places], chance.randrange(3))
        places = sorted({*places, *new})
        states.append(job(*places, progress_json=progress(round(value, 1))))
    states.append(job(*places, progress_json=progress(1.0), **ENDED))
    whole: list[tuple[str, str]] = []
    seen = Seen()
    for state in states:
        for part in unseen(state, seen):
            whole.append((part.event, str(part.content)))
            seen = part.seen
    received: list[tuple[str, str]] = []
    last_id = ""
    for state in states:
        while True:
            lost_behind, number = chance.randrange(1, 6), 0
            for number, part in enumerate(unseen(state, Seen.parse(last_id)), start=1):
                received.append((part.event, str(part.content)))
                last_id = part.seen.id()
                if number == lost_behind:
                    break
            if number < lost_behind:
                break
    assert received == whole
    assert len({content for event, content in received if event == "output"}) == len(places)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "running",
        "running....",
        "running.abcdefgh.abcdefgh.abcdefgh.0-4,7-7",
        "flying.....",
        "running.\n...",
        "running.abcdefghi...",
        "running....0-",
        "running....1-2;3",
        "running....٣-٤",
        "running...." + "1-2," * 1000,
        "9" * 5000,
        "running....0-999999999",
        "....",
    ],
)
def test_any_last_event_id_is_read_and_costs_nothing(text: str) -> None:
    seen = Seen.parse(text)
    assert len(seen.id()) <= MAX_ID_CHARACTERS
    assert seen.id().isprintable()
    assert "output" in told(job(3_000_000), seen)[0] or "999999999" in text
    assert SeenJobs.parse(text).tags == frozenset() or len(text) % 6 == 0


def test_an_id_stays_short_and_repeats_rather_than_loses() -> None:
    seen = Seen(run="x", outputs=Places(tuple((place, place) for place in range(0, 4000, 2))))
    assert len(seen.id()) <= MAX_ID_CHARACTERS
    again = Seen.parse(seen.id())
    assert 0 in again.outputs
    assert 3998 not in again.outputs
    assert all(place in seen.outputs for first, last in again.outputs.ranges for place in range(first, last + 1))


def test_a_frame_is_one_line_of_json_whatever_is_in_it() -> None:
    text = frame("status", {"message": "a\nb\r\nid: x\n\nevent: status\u2028"}, id_="running....")
    assert text.endswith("id: running....\n\n")
    lines = text.split("\n")
    assert [line.partition(":")[0] for line in lines] == ["event", "data", "id", "", ""]
    assert json.loads(lines[1].removeprefix("data: "))["message"].startswith("a\nb")


# Lists.


def entry(number: int, status: str = "queued", updated_at: str = "t0") -> JobEntry:
    return JobEntry(
        id=f"job-{number}", status=status, created_at="t", updated_at=updated_at, created_id=f"t#{number}", labels={}
    )


def test_of_a_list_only_what_moves_or_has_changed_is_read() -> None:
    seen = SeenJobs(frozenset({tag_of("job-1", "queued", "t0", ""), tag_of("job-2", "succeeded", "t0", "ignored")}))
    assert not seen.may_have_changed(entry(1))
    assert not seen.may_have_changed(entry(2, "succeeded"))
    assert seen.may_have_changed(entry(1, updated_at="t1"))
    assert seen.may_have_changed(entry(3))
    for moving in ("running", "canceling"):
        known = SeenJobs(frozenset({tag_of("job-1", moving, "t0", "")}))
        assert known.may_have_changed(entry(1, moving)), "its progress is in the job itself"


def test_the_last_frame_of_a_look_has_the_id_of_all() -> None:
    frames = list(frames_of_list([{"id": "a"}, {"id": "b"}], seen_then="abcdefghijkl"))
    assert [("\nid: " in one) for one in frames] == [False, True]
    assert SeenJobs.parse("abcdefghijkl").tags == {"abcdef", "ghijkl"}


# When to look again.


@pytest.mark.parametrize("seed", range(20))
def test_no_watcher_makes_more_reads_a_minute_than_are_promised(seed: int) -> None:
    chance, pace, now = random.Random(seed), Pace(), 0.0
    moments: list[float] = []
    state_since = 0.0
    while now < 600:
        moments.append(now)
        if chance.random() < 0.3:
            state_since = now  # a job that does nothing but change its state
        running = chance.random() < 0.5
        now += pace.pause_s(
            now, is_running=running, since_state_s=now - state_since, since_news_s=chance.random() * 9, reads=1
        )
    for first in moments:
        assert sum(first <= moment < first + 60 for moment in moments) <= READS_A_MINUTE


def pauses(*, is_running: bool, quiet_s: float = 0.0, reads: int = 1) -> list[float]:
    """The pauses of a minute, of a job that does not change its state."""
    pace, now, made = Pace(), 0.0, []
    while now < 60:
        made.append(
            pace.pause_s(now, is_running=is_running, since_state_s=now, since_news_s=quiet_s and now, reads=reads)
        )
        now += made[-1]
    return made


def test_a_running_job_is_looked_at_each_second_and_a_waiting_one_more_seldom() -> None:
    assert pauses(is_running=True)[0] == 0.1
    assert set(pauses(is_running=True)[-20:]) == {1.0}
    assert pauses(is_running=False)[-1] == 3.0
    assert pauses(is_running=True, quiet_s=1)[-1] > 2.5, "nothing was new for a minute"
    assert sum(pauses(is_running=True, reads=3)[-5:]) / 5 > 2.9, "a job of thousands of outputs costs more a look"


def test_a_list_that_is_quiet_or_has_very_much_to_read_is_looked_at_more_seldom() -> None:
    assert list_pause_s(moving=1, since_news_s=1000) == list_pause_s(moving=0, since_news_s=0) == 2
    assert list_pause_s(moving=0, since_news_s=1000) == QUIET_LIST_PAUSE_S
    assert list_pause_s(moving=30, since_news_s=0) == 3
    assert list_pause_s(moving=100, since_news_s=0) == CROWDED_LIST_PAUSE_S
