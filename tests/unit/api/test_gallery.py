"""The gallery: every output of an owner's ended jobs once, newest job first, however it is asked for and paged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.api import gallery, job_lists
from comfy_serverless.api.paging import write_cursor
from comfy_serverless.batches.owned import owned_batch
from comfy_serverless.files import OutputKind
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.output_list import list_of
from comfy_serverless.table.job_state import NewJob
from tests.unit.api.test_job_lists import end, forget_shown, make
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world
from tests.unit.table.test_job_store import ended, output

TYPES = {"image": "image/png", "video": "video/mp4", "audio": "audio/flac", "file": "model/gltf-binary"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def of_kind(name: str, kind: str) -> Output:
    return output(name).model_copy(update={"type": kind, "content_type": TYPES[kind]})


def names(api: ApiWorld, query: str = "", *, most_pages: int = 1000, **who: Any) -> list[str]:
    """The names of all outputs, page after page."""
    found, cursor = [], ""
    for _ in range(most_pages):
        page = api.request("GET", f"/api/v2/outputs?{query}{cursor}", **who)
        assert page.status == 200, page.text
        found += [one["name"] for one in page.json["outputs"]]
        if (end := page.json.get("next_cursor")) is None:
            return found
        cursor = f"&cursor={end}"
    raise AssertionError("it does not end")


def fill(api: ApiWorld) -> list[tuple[str, str, dict[str, str]]]:
    """Jobs of all sorts. Returns the outputs as they should be listed: name, kind, and the labels of the job."""
    expected: list[tuple[str, str, dict[str, str]]] = []
    for number in range(12):
        job_id, count = f"job-{number:02}", (number * 7) % 5
        labels = {"even": str(number % 2), **({"workflow": "poster", "version": str(number)} if number % 3 else {})}
        make(api, job_id, at_s=number, labels=labels)
        if number == 7:
            continue  # it still waits
        count = 60 if number == 4 else count
        kinds = [list(TYPES)[(number + place) % 4] for place in range(count)]
        made = [of_kind(f"{job_id}-{place:02}", kind) for place, kind in enumerate(kinds)]
        end(api, job_id, outputs=tuple(made))
        if number in (2, 4, 9):
            forget_shown(api, job_id)
        expected = [*((one.name, kind, labels) for one, kind in zip(made, kinds, strict=True)), *expected]
    end(api, make(api, "foreign", owner="other", at_s=5), outputs=(output("secret.png"),))
    return expected


def test_every_output_comes_once_and_newest_job_first_whatever_is_asked_for(api: ApiWorld) -> None:
    expected = fill(api)

    @settings(max_examples=40)
    @given(
        limit=st.integers(1, 20) | st.just(100),
        kind=st.sampled_from([None, "image", "video", "audio", "3d", "text"]),
        even=st.sampled_from([None, "0", "1"]),
        workflow=st.sampled_from([None, "poster", "poster@5", "poster@live", "other"]),
    )
    def check(limit: int, kind: str | None, even: str | None, workflow: str | None) -> None:
        asked = {"limit": str(limit), "type": kind, "metadata[even]": even, "workflow": workflow}
        query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
        wanted = [
            name
            for name, its_kind, labels in expected
            if kind in (None, "3d" if its_kind == "file" else its_kind)
            and even in (None, labels["even"])
            and (workflow is None or labels.get("workflow") == workflow.partition("@")[0])
            and (workflow != "poster@5" or labels.get("version") == "5")
        ]
        assert names(api, query) == wanted

    check()


def test_an_owner_sees_nothing_of_another(api: ApiWorld) -> None:
    fill(api)
    assert names(api, owner="other") == ["secret.png"]
    assert names(api, owner="nobody") == []


def test_a_page_is_one_query_and_one_read(api: ApiWorld) -> None:
    for number in range(30):
        end(api, make(api, f"job-{number:02}", at_s=number), outputs=(output(f"{number}.png"), output(f"{number}.b")))
    api.calls.clear()
    page = api.request("GET", "/api/v2/outputs?limit=50").json
    assert api.calls == {"Query": 1, "BatchGetItem": 1}
    assert len(page["outputs"]) == 50
    api.calls.clear()
    rest = api.request("GET", f"/api/v2/outputs?limit=50&cursor={page['next_cursor']}").json
    assert len(rest["outputs"]) == 10
    assert api.calls == {"Query": 1, "BatchGetItem": 1}


def test_a_page_reads_a_bounded_number_of_jobs_and_goes_on(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_ROUND", 3)
    monkeypatch.setattr(gallery, "_OWN_LISTS", 2)
    for number in range(20):
        kind = "video" if number == 1 else "image"
        end(api, make(api, f"job-{number:02}", at_s=number), outputs=(of_kind(f"{number}", kind),))
    api.calls.clear()
    page = api.request("GET", "/api/v2/outputs?type=video").json
    assert page["outputs"] == []
    assert api.calls["BatchGetItem"] <= 3
    assert names(api, "type=video") == ["1"]
    many = tuple(of_kind(f"m{place}", "image") for place in range(40))
    end(api, make(api, "many", at_s=99), outputs=many)
    assert names(api, "type=image&limit=7")[:40] == [one.name for one in many]


def test_jobs_that_wait_cost_no_read(api: ApiWorld) -> None:
    end(api, make(api, "done"), outputs=(output("a.png"),))
    for number in range(40):
        make(api, f"waits-{number}", at_s=number + 1)
    api.calls.clear()
    assert names(api, "limit=10") == ["a.png"]
    assert api.calls == {"Query": 1, "BatchGetItem": 1}


def test_outputs_that_a_job_does_not_list_come_from_its_list_in_s3(api: ApiWorld) -> None:
    job_id = make(api, "huge")
    folder = f"s3://{RESULTS}/owners/team/huge/"
    made = [
        output(f"{place:03}.png").model_copy(update={"job_id": job_id, "s3_uri": f"{folder}9/{place:03}.png"})
        for place in range(130)
    ]
    api.s3.put_object(Bucket=RESULTS, Key="owners/team/huge/outputs.jsonl", Body=list_of(made))
    begun = api.services.jobs.begin(job_id, run="run").state
    assert begun is not None
    api.services.jobs.put_outputs(begun, list(enumerate(made[:100])), run="run")
    job = ended(job_id, outputs=tuple(made[:100])).model_copy(
        update={"outputs_total": 130, "outputs_uri": f"{folder}outputs.jsonl"}
    )
    assert api.services.jobs.finish(job_id, job, run="run", webhook=False, places=range(100))
    end(api, make(api, "older", at_s=-5), outputs=(output("old.png"),))
    assert names(api, "limit=30") == [*(f"{place:03}.png" for place in range(130)), "old.png"]


def test_an_output_says_what_made_it_and_has_fresh_links(api: ApiWorld) -> None:
    thumb = f"s3://{RESULTS}/owners/team/x/9/a.thumb.webp"
    made = output("a.png").model_copy(update={"thumb_uri": thumb, "s3_uri": f"s3://{RESULTS}/owners/team/x/9/a.png"})
    job = ended(make(api, "one", labels={"campaign": "<b>'autumn'</b>"}))
    begun = api.services.jobs.begin("one", run="run").state
    assert begun is not None
    api.services.jobs.put_outputs(begun, [(0, made)], run="run")
    job = job.model_copy(update={"outputs": (made,), "seeds": {"3.seed": 7}})
    assert api.services.jobs.finish("one", job, run="run", webhook=False, places=[0])
    (told,) = api.request("GET", "/api/v2/outputs").json["outputs"]
    assert (told["job_id"], told["seeds"]) == ("one", {"3.seed": 7})
    assert told["metadata"] == {"campaign": "<b>'autumn'</b>"}
    assert told["created_at"] == api.request("GET", "/api/v2/jobs/one").json["created_at"]
    for link, name in ((told["url"], "a.png"), (told["thumb_url"], "a.thumb.webp")):
        assert re.search(rf"/owners/team/x/9/{re.escape(name)}\?.*X-Amz-Signature=", link)
    assert "image%2Fwebp" in told["thumb_url"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("type=picture", "invalid_request"),
        ("kind=image", "invalid_request"),
        ("workflow=..%2Fetc", "invalid_request"),
        ("workflow=poster@staging", "invalid_metadata_filter"),
        ("workflow=poster&metadata[workflow]=poster", "invalid_metadata_filter"),
        ("metadata[]=x", "invalid_metadata_filter"),
        ("created_after=yesterday", "invalid_request"),
        ("cursor=AAAA", "invalid_cursor"),
        ("cursor=%00%ff", "invalid_cursor"),
        (f"cursor={write_cursor('2026-01-01T00:00:00.000Z#a+-1')}", "invalid_cursor"),
    ],
)
def test_what_cannot_be_is_refused(api: ApiWorld, query: str, code: str) -> None:
    answer = api.request("GET", f"/api/v2/outputs?{query}")
    assert (answer.status, answer.code) == (422, code), answer.text


def test_a_cursor_that_was_made_up_shows_nothing_of_another_owner(api: ApiWorld) -> None:
    fill(api)
    created = api.services.jobs.listed(["foreign"])["foreign"].created_id
    for place in ("", "+0", "+999999999999"):
        cursor = write_cursor(f"{created}{place}")
        answer = api.request("GET", f"/api/v2/outputs?limit=100&cursor={cursor}")
        assert answer.status == 200
        assert "secret" not in answer.text
        # As for a job that does not exist.
        nobody = write_cursor(created.replace("foreign", "fore1gn") + place)
        assert comparable(answer.text) == comparable(
            api.request("GET", f"/api/v2/outputs?limit=100&cursor={nobody}").text
        )


def comparable(text: str) -> str:
    """An answer without its links and cursors."""
    return re.sub(r'"(\w*url\w*|next_cursor)": "[^"]*"', "", text)


def make_line(api: ApiWorld, job_id: str, *batches: str, owner: str = "team") -> str:
    """A job that is a line of these batches."""
    for batch in batches:
        api.services.jobs.submit_of_batch(
            NewJob(
                job_id=job_id,
                owner=owner,
                request_uri=f"s3://assets/requests/{owner}/{job_id}.json",
                result_uri=f"s3://{RESULTS}/owners/{owner}/{job_id}/result.json",
                batch=batch,
            )
        )
    return job_id


def make_batch(api: ApiWorld, name: str, *, owner: str = "team") -> str:
    batch = owned_batch(owner, name, of=name, bucket=ASSETS)
    assert api.services.batches.announce(batch, [], idempotency_key=None)
    return batch.id


def test_outputs_of_a_batch_are_found_by_its_name_and_say_it(api: ApiWorld) -> None:
    autumn, winter, theirs = make_batch(api, "autumn"), make_batch(api, "winter"), make_batch(api, "x", owner="other")
    end(api, make(api, "alone"), outputs=(output("alone.png"),))
    end(api, make_line(api, "one", autumn), outputs=(output("one.png"),))
    end(api, make_line(api, "both", autumn, winter), outputs=(output("both.png"),))
    end(api, make_line(api, "theirs", theirs, owner="other"), outputs=(output("theirs.png"),))
    assert sorted(names(api, "batch=autumn&limit=1")) == ["both.png", "one.png"]
    assert names(api, f"batch={winter}") == ["both.png"]
    api.calls.clear()
    told = {one["name"]: one["batch"] for one in api.request("GET", "/api/v2/outputs").json["outputs"]}
    assert told == {"alone.png": None, "one.png": "autumn", "both.png": "autumn"}
    assert api.calls == {"Query": 1, "BatchGetItem": 2}
    (both,) = api.request("GET", "/api/v2/outputs?batch=winter").json["outputs"]
    assert both["batch"] == "winter"
    foreign, missing = (api.request("GET", f"/api/v2/outputs?batch={name}") for name in (theirs, "nobody"))
    assert (foreign.status, foreign.text.replace(theirs, "nobody")) == (404, missing.text)
    assert names(api, "batch=x", owner="other") == ["theirs.png"]


def test_all_kinds_can_be_asked_for() -> None:
    assert {kind.value for kind in gallery.Kind} == {*OutputKind, "3d"}


def test_hostile_labels_are_text(api: ApiWorld) -> None:
    hostile = ["#owner", ":owner", "a.b", "x]=[y", "'; DROP", "\N{SNOWMAN}", "labels", "%00"]
    for number, text in enumerate(hostile):
        end(api, make(api, f"job-{number}", at_s=number, labels={text: text}), outputs=(output(f"{number}.png"),))
    for number, text in enumerate(hostile):
        query = f"metadata[{quote(text, safe='')}]={quote(text, safe='')}"
        assert names(api, query) == [f"{number}.png"]
        listed: list[dict[str, Any]] = api.request("GET", f"/api/v2/jobs?{query}").json["jobs"]
        assert [job["id"] for job in listed] == [f"job-{number}"]
    assert job_lists.MAX_PAGE == gallery.MAX_PAGE
