"""What a job of many outputs costs the API, and all outputs page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from comfy_serverless.aws.presign import LinkSigner
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidCursor
from comfy_serverless.jobs.document import Job, JobStatus, Output
from comfy_serverless.jobs.output_list import MAX_LINE_BYTES, list_of, read_page
from tests.unit.api_world import RESULTS, Answer, ApiWorld, api_world
from tests.unit.jobs.test_links import output

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COUNT, LISTED = 25, 10


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def job_of(api: ApiWorld, outputs: list[Output], *, listed: int | None = None) -> str:
    """A job that has ended with these outputs, as a worker records it."""
    workflow = {"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}}
    job_id = str(api.request("POST", "/api/v2/jobs", body={"workflow": workflow}).json["id"])
    state = api.services.jobs.begin(job_id, run="run").state
    assert state is not None
    shown = outputs[:listed]
    api.services.jobs.put_outputs(state, list(enumerate(shown)), run="run")
    update: dict[str, Any] = {"status": JobStatus.SUCCEEDED}
    if listed is not None:
        key = f"owners/team/{job_id}/outputs.jsonl"
        api.s3.put_object(Bucket=RESULTS, Key=key, Body=list_of(outputs))
        update |= {"outputs_total": len(outputs), "outputs_uri": f"s3://{RESULTS}/{key}"}
    ended: Job = state.document().model_copy(update=update)
    assert api.services.jobs.finish(job_id, ended, run="run", webhook=False, places=range(len(shown)))
    return job_id


def outputs_of(count: int = COUNT, *, folder: str = "") -> list[Output]:
    made = [output(number, RESULTS) for number in range(count)]
    return [one.model_copy(update={"s3_uri": f"s3://{RESULTS}/{folder}{one.node_id}/text.txt"}) for one in made]


def page(api: ApiWorld, job_id: str, query: str = "", **asked: Any) -> Answer:
    return api.request("GET", f"/api/v2/jobs/{job_id}/outputs{query}", **asked)


def all_pages(api: ApiWorld, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = "?limit=7"
    while True:
        answer = page(api, job_id, query)
        assert answer.status == 200, answer.text
        assert len(answer.json["outputs"]) <= 7
        found += answer.json["outputs"]
        if "next_cursor" not in answer.json:
            return found
        query = f"?limit=7&cursor={answer.json['next_cursor']}"


def test_a_job_of_many_outputs_is_one_query_and_one_signature_each(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_of(api, outputs_of(200))
    links: list[str] = []
    whole = LinkSigner.link
    samples: list[str] = []
    sample = api.s3.generate_presigned_url

    def counted_link(*given: Any) -> str:
        links.append(given[1])
        return whole(*given)

    def counted_sample(*given: Any, **by: Any) -> str:
        samples.append("")
        return sample(*given, **by)

    monkeypatch.setattr(LinkSigner, "link", counted_link)
    monkeypatch.setattr(api.s3, "generate_presigned_url", counted_sample)
    before = Counter(api.calls)
    answer = api.request("GET", f"/api/v2/jobs/{job_id}")
    assert len(answer.json["outputs"]) == len(links) == 200
    assert len(samples) == 1
    assert Counter(api.calls) - before == {"Query": 1}
    before = Counter(api.calls)
    assert api.request("GET", f"/api/v2/jobs/{job_id}/events").text.count("event: output") == 200
    assert Counter(api.calls) - before == {"Query": 1}


def test_what_needs_no_outputs_reads_none(api: ApiWorld) -> None:
    job_id = job_of(api, outputs_of())
    before = Counter(api.calls)
    assert api.request("GET", f"/api/v2/jobs/{job_id}/workflow").status == 200
    assert Counter(api.calls) - before == {"GetItem": 1}


def test_waiting_for_a_job_reads_its_outputs_once(api: ApiWorld) -> None:
    before = Counter(api.calls)
    body = {"workflow": {"1": {"class_type": "PreviewAny", "inputs": {}}}, "wait_s": 2}
    assert api.request("POST", "/generate", body=body).status == 202
    made = Counter(api.calls) - before
    assert made["Query"] == 1
    assert made["GetItem"] >= 1


@pytest.mark.parametrize("listed", [None, LISTED])
def test_all_outputs_come_page_by_page_with_links(api: ApiWorld, listed: int | None) -> None:
    job_id = job_of(api, outputs_of())
    if listed is not None:
        job_id = job_of(api, outputs_of(folder="owners/team/"), listed=listed)
        # the file's folder is the job's
        key = f"owners/team/{job_id}/outputs.jsonl"
        made = outputs_of(folder=f"owners/team/{job_id}/")
        api.s3.put_object(Bucket=RESULTS, Key=key, Body=list_of(made))
        job = api.request("GET", f"/api/v2/jobs/{job_id}").json
        assert (len(job["outputs"]), job["outputs_total"]) == (listed, COUNT)
        assert job["outputs_uri"] == f"s3://{RESULTS}/{key}"
    found = all_pages(api, job_id)
    assert [one["node_id"] for one in found] == [str(number) for number in range(COUNT)]
    assert all(one["url"].startswith("https://") for one in found)


def test_a_list_that_names_files_of_others_gets_no_links(api: ApiWorld) -> None:
    job_id = job_of(api, outputs_of(folder="owners/alice/job/"), listed=LISTED)
    answer = page(api, job_id)
    assert (answer.status, answer.code) == (422, "invalid_cursor")


@pytest.mark.parametrize("cursor", ["x", "-1", "1e3", "5", "999999999", "9" * 13])
def test_a_cursor_that_is_none_is_refused(api: ApiWorld, cursor: str) -> None:
    job_id = job_of(api, outputs_of(), listed=LISTED)
    answer = page(api, job_id, f"?cursor={cursor}")
    assert (answer.status, answer.code) == (422, "invalid_cursor")


def test_outputs_are_their_owners(api: ApiWorld) -> None:
    job_id = job_of(api, outputs_of())
    assert page(api, job_id, owner="rival").status == 404
    assert page(api, job_id, owner="").status == 401


def test_an_endless_line_in_a_list_is_not_read_to_its_end() -> None:
    """The list may stand in a partner's bucket, who can write there what he likes."""
    taken = 0

    class Body:
        def iter_chunks(self, size: int) -> Iterator[bytes]:
            nonlocal taken
            while True:
                taken += size
                yield b"x" * size

        def close(self) -> None:
            pass

    class S3:
        def get_object(self, **_: object) -> dict[str, Any]:
            return {"Body": Body()}

    with pytest.raises(InvalidCursor, match="not one of ours"):
        read_page(cast("S3Client", S3()), S3Address("partner", "job/outputs.jsonl"), start=0, limit=10)
    assert taken <= MAX_LINE_BYTES + 128 * 1024
