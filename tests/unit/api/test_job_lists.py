"""Lists of jobs: every job once, newest first; what was expanded is what the job itself says, for one more read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.api import job_lists
from comfy_serverless.errors import Canceled, EngineCrashed
from comfy_serverless.jobs.document import JobError, Progress
from comfy_serverless.table.job_item import job_pk
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.shown import MAX_OUTPUTS
from tests.unit.api_world import RESULTS, ApiWorld, api_world
from tests.unit.table.test_job_store import ended, output

BEGIN = (datetime.now(UTC) - timedelta(hours=2)).replace(microsecond=0)
ALL = "expand=outputs,progress,error"
FAILURE = JobError(code="node_error", message="no room", node_id="3", class_type="KSampler", traceback="line 1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def make(api: ApiWorld, job_id: str, *, at_s: float = 0, owner: str = "team", **fields: Any) -> str:
    """A job that was submitted at this second."""
    api.services.jobs.submit(
        NewJob(
            job_id=job_id,
            owner=owner,
            request_uri=f"s3://assets/requests/{owner}/{job_id}.json",
            result_uri=f"s3://{RESULTS}/owners/{owner}/{job_id}/result.json",
            created_at=fields.pop("created_at", BEGIN + timedelta(seconds=at_s)),
            **fields,
        )
    )
    return job_id


def end(api: ApiWorld, job_id: str, **result: Any) -> None:
    """What a worker does with a job."""
    jobs = api.services.jobs
    begun = jobs.begin(job_id, run="run")
    assert begun.state is not None
    outputs = tuple(one.model_copy(update={"job_id": job_id}) for one in result.pop("outputs", ()))
    jobs.put_outputs(begun.state, list(enumerate(outputs)), run="run")
    assert jobs.finish(
        job_id, ended(job_id, outputs=outputs, **result), run="run", webhook=False, places=range(len(outputs))
    )


def listed(api: ApiWorld, query: str = "", **who: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = api.request("GET", f"/api/v2/jobs?{query}{cursor}", **who)
        assert page.status == 200, page.text
        found += page.json["jobs"]
        if (end := page.json.get("next_cursor")) is None:
            return found
        cursor = f"&cursor={end}"


def forget_shown(api: ApiWorld, job_id: str) -> None:
    """Leave the job as an older release has ended it."""
    table = api.services.table
    item = table.get(job_pk(job_id), "job")
    assert item is not None
    table.put({name: value for name, value in item.items() if name != "shown_json"})


def comparable(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs without their links, which are made anew each time."""
    return [{key: value for key, value in one.items() if "url" not in key} for one in outputs]


def test_a_page_with_all_that_it_can_show_is_one_query_and_one_read(api: ApiWorld) -> None:
    for number in range(30):
        end(api, make(api, f"job-{number:02}", at_s=number), outputs=(output(f"{number}.png"),))
    make(api, "waits", at_s=99)
    api.calls.clear()
    page = api.request("GET", f"/api/v2/jobs?limit=100&{ALL}").json
    assert api.calls == {"Query": 1, "BatchGetItem": 1}
    assert [job["id"] for job in page["jobs"]] == ["waits", *(f"job-{number:02}" for number in reversed(range(30)))]
    api.calls.clear()
    assert len(api.request("GET", "/api/v2/jobs?limit=100").json["jobs"]) == 31
    assert api.calls == {"Query": 1}


def test_what_a_list_shows_is_what_the_job_says(api: ApiWorld) -> None:
    many = tuple(output(f"{number}.png") for number in range(40))
    end(api, make(api, "many"), outputs=many)
    end(api, make(api, "bad"), error=FAILURE, outputs=(output("half.png"),))
    make(api, "waits")
    running = api.services.jobs.begin(make(api, "runs"), run="run").state
    assert running is not None
    progress = Progress(value=0.5, nodes_done=1, nodes_total=2, message="half")
    api.services.jobs.report("runs", run="run", progress=progress)
    api.services.jobs.put_outputs(running, [(0, output("soon.png"))], run="run")
    canceled = api.services.jobs.read(make(api, "canceled"))
    assert canceled is not None
    api.services.jobs.cancel(canceled)
    entries = {entry["id"]: entry for entry in listed(api, ALL)}
    assert len(entries) == 5
    for job_id, entry in entries.items():
        job = api.request("GET", f"/api/v2/jobs/{job_id}").json
        assert {name: entry[name] for name in ("status", "started_at", "created_at", "progress", "metadata")} == {
            name: job[name] for name in ("status", "started_at", "created_at", "progress", "metadata")
        }
        assert entry.get("completed_at") == job["completed_at"]
        told = job["error"] and {name: job["error"][name] for name in ("code", "message", "node_id", "class_type")}
        assert entry["error"] == told
        if job_id != "runs":  # a list shows outputs of ended jobs only
            assert comparable(entry["outputs"]) == comparable(job["outputs"])[: job_lists.MAX_OUTPUTS]
            assert all(one["url"].startswith("https://") for one in entry["outputs"])
    assert entries["many"]["outputs_total"] == 40
    assert (entries["runs"]["outputs"], entries["runs"]["outputs_total"]) == ([], 0)
    assert entries["runs"]["progress"]["message"] == "half"


def test_each_part_is_shown_only_where_it_is_asked_for(api: ApiWorld) -> None:
    end(api, make(api, "bad"), error=FAILURE)
    plain = {"id", "status", "create_time", "update_time", "created_at", "completed_at", "metadata"}
    for query, more in {
        "": set[str](),
        "expand=": set[str](),
        "expand=error": {"started_at", "error"},
        "expand=progress, progress": {"started_at", "progress"},
        "expand=outputs,error": {"started_at", "outputs", "outputs_total", "error"},
    }.items():
        (job,) = listed(api, quote(query, safe="=,"))
        assert set(job) == plain | more, query
    answer = api.request("GET", "/api/v2/jobs?expand=outputs,workflow")
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "outputs, progress, error" in answer.json["error"]["message"]


def test_jobs_of_an_older_release_are_read_one_by_one_and_end_the_page_if_they_are_many(api: ApiWorld) -> None:
    ids = [make(api, f"job-{number:02}", at_s=number) for number in range(job_lists.MAX_SINGLE_READS + 5)]
    for job_id in ids:
        end(api, job_id, outputs=(output(f"{job_id}.png"),))
        forget_shown(api, job_id)
    api.calls.clear()
    page = api.request("GET", f"/api/v2/jobs?limit=100&{ALL}").json
    assert api.calls == {"Query": 1 + job_lists.MAX_SINGLE_READS, "BatchGetItem": 1}
    assert len(page["jobs"]) == job_lists.MAX_SINGLE_READS
    jobs = listed(api, f"limit=100&{ALL}")
    assert [job["id"] for job in jobs] == ids[::-1]
    assert [one["name"] for job in jobs for one in job["outputs"]] == [f"{job_id}.png" for job_id in ids[::-1]]


def test_a_job_that_ended_after_its_worker_was_lost_shows_what_the_lost_run_had_made(api: ApiWorld) -> None:
    jobs = api.services.jobs
    begun = jobs.begin(make(api, "lost"), run="run").state
    assert begun is not None
    jobs.put_outputs(begun, [(0, output("kept.png"))], run="run")
    assert jobs.renew(begun, for_s=60)  # the caretaker takes it from its run
    state = jobs.read("lost")
    assert state is not None
    assert jobs.fail(state, EngineCrashed("the worker has vanished"))
    (entry,) = listed(api, ALL)
    job = api.request("GET", "/api/v2/jobs/lost").json
    assert comparable(entry["outputs"]) == comparable(job["outputs"]) != []
    assert entry["error"]["code"] == "engine_crashed"


def test_a_job_that_ended_before_it_ran_is_not_read_by_itself(api: ApiWorld) -> None:
    state = api.services.jobs.read(make(api, "never"))
    assert state is not None
    assert api.services.jobs.fail(state, Canceled("not wanted"))
    api.calls.clear()
    listed(api, ALL)
    assert api.calls == {"Query": 1, "BatchGetItem": 1}


def test_the_outputs_that_a_job_keeps_for_lists_have_a_bound(api: ApiWorld) -> None:
    long_names = tuple(
        output(f"{number}.png").model_copy(update={"title": "t" * 3000, "name": f"{number}.png"})
        for number in range(100)
    )
    end(api, make(api, "long"), outputs=long_names)
    short = tuple(output(f"{number}.png") for number in range(100))
    end(api, make(api, "short"), outputs=short)
    kept = api.services.jobs.listed(["long", "short"])
    assert len((kept["long"].shown_json or "").encode()) < 20_000
    shown = kept["short"].shown()
    assert shown is not None
    assert (len(shown.outputs), shown.outputs_total) == (MAX_OUTPUTS, 100)


def test_texts_of_failures_are_for_key_holders(api: ApiWorld) -> None:
    arn = "arn:aws:iam::123456789012:role/x"
    error = JobError(code="delivery_failed", message=f"{'x' * 480} no right to {arn}, /tmp/secret/model.bin")
    end(api, make(api, "bad"), error=error)
    own = JobError(code="internal_error", message="KeyError: 'secret'")
    end(api, make(api, "bug"), error=own)
    told = {entry["id"]: entry["error"]["message"] for entry in listed(api, ALL)}
    assert "123456789012" not in told["bad"]
    assert "secret" not in told["bug"]


def test_every_job_comes_once_and_newest_first_whatever_is_asked_for(api: ApiWorld) -> None:
    """Jobs of one moment among them, those of an older release, and another owner's."""
    jobs: list[tuple[str, int, str, str]] = []
    for number in range(24):
        at_s, job_id, parity = number // 3, f"job-{(number * 5) % 24:02}", str(number % 2)
        make(api, job_id, at_s=at_s, labels={"even": parity}, created_at=BEGIN + timedelta(seconds=at_s))
        make(api, f"foreign-{number}", owner="other", created_at=BEGIN + timedelta(seconds=at_s))
        status = "queued"
        if number % 3:
            end(api, job_id, error=FAILURE if number % 4 == 1 else None)
            status = "failed" if number % 4 == 1 else "succeeded"
        if number % 7 == 1:
            forget_shown(api, job_id)
        jobs.append((job_id, at_s, parity, status))
    jobs.sort(key=lambda job: (job[1], job[0]), reverse=True)

    @settings(max_examples=60)
    @given(
        limit=st.integers(1, 9) | st.just(100),
        after_ms=st.none() | st.integers(-1500, 9000),
        even=st.sampled_from([None, "0", "1"]),
        status=st.sampled_from([None, "queued", "failed", "succeeded", "running"]),
        expand=st.sampled_from(["", "outputs", "outputs,progress,error"]),
    )
    def check(limit: int, after_ms: int | None, even: str | None, status: str | None, expand: str) -> None:
        after = None if after_ms is None else BEGIN + timedelta(milliseconds=after_ms)
        asked = {
            "limit": str(limit),
            "created_after": after and quote(after.isoformat(), safe=""),
            "metadata[even]": even,
            "status": status,
            "expand": expand or None,
        }
        query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
        wanted = [
            job_id
            for job_id, at_s, parity, its_status in jobs
            if (after_ms is None or at_s * 1000 > after_ms) and even in (None, parity) and status in (None, its_status)
        ]
        assert [job["id"] for job in listed(api, query)] == wanted

    check()


def test_a_moment_is_a_bound_of_the_index_and_costs_no_read_beyond_it(api: ApiWorld) -> None:
    for number in range(60):
        make(api, f"job-{number:02}", created_at=BEGIN + timedelta(seconds=number))
    reads = watch_queries(api)
    asked = quote((BEGIN + timedelta(seconds=49)).isoformat(), safe="")
    page = api.request("GET", f"/api/v2/jobs?limit=5&created_after={asked}").json
    rest = api.request("GET", f"/api/v2/jobs?limit=100&created_after={asked}&cursor={page['next_cursor']}").json
    assert [job["id"] for job in (*page["jobs"], *rest["jobs"])] == [f"job-{number}" for number in range(59, 49, -1)]
    assert "next_cursor" not in rest
    assert all("#created_id > :after" in read["KeyConditionExpression"] for read in reads)
    assert not any("FilterExpression" in read for read in reads)
    older = api.request("GET", "/api/v2/jobs?limit=55").json["next_cursor"]
    # A cursor from before the moment, which DynamoDB would refuse: there is nothing more.
    assert api.request("GET", f"/api/v2/jobs?created_after={asked}&cursor={older}").json == {"jobs": []}


def watch_queries(api: ApiWorld) -> list[dict[str, Any]]:
    """What is asked of the table from now on."""
    asked: list[dict[str, Any]] = []
    events = api.services.table._client.meta.events
    events.register("provide-client-params.dynamodb.Query", lambda params, **_: asked.append(dict(params)))
    return asked


@pytest.mark.parametrize(
    "moment",
    ["", "yesterday", "2026-01-31T12:00:00+25:00", "0001-01-01T00:00:00+14:00", "1e9", "2026-01-31T12:00:00 02:00"],
)
def test_what_is_no_moment_is_refused(api: ApiWorld, moment: str) -> None:
    answer = api.request("GET", f"/api/v2/jobs?created_after={quote(moment, safe='')}")
    assert (answer.status, answer.code) == (422, "invalid_request"), answer.text
    assert "2026-01-31T12:00:00Z" in answer.json["error"]["message"]


def test_a_list_that_is_too_long_for_an_answer_goes_on_in_the_next_page(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_lists, "REPLY_LIMIT_BYTES", 9000)
    for number in range(12):
        end(api, make(api, f"job-{number:02}", at_s=number), outputs=(output("a.png"), output("b.png")))
    page = api.request("GET", f"/api/v2/jobs?limit=100&{ALL}")
    assert len(page.text) < 9100
    assert [job["id"] for job in listed(api, f"limit=100&{ALL}")] == [
        f"job-{number:02}" for number in range(11, -1, -1)
    ]


@pytest.mark.parametrize("is_ended", [False, True])
def test_an_entry_whose_id_is_another_owners_job_by_now_shows_nothing_of_it(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch, is_ended: bool
) -> None:
    """An id may be given back (a job that was not taken, or is forgotten) a moment before the index knows it."""
    make(api, "fox", at_s=60)
    (stale,), _ = api.services.jobs.page("team", labels={}, status=None, limit=1, before=None)
    api.services.table.delete(job_pk("fox"), "job")
    make(api, "fox", owner="rivals", labels={"secret": "plan"})
    if is_ended:
        end(api, "fox", outputs=[output("1.png")])
        forget_shown(api, "fox")
    monkeypatch.setattr(type(api.services.jobs), "page", lambda *_, **__: ([stale], None))
    (entry,) = listed(api, "expand=outputs,progress,error")
    assert (entry["create_time"], entry["metadata"], entry["outputs"]) == (stale.created_at, {}, [])
    assert "secret" not in str(entry)
    assert entry["started_at"] is None
