"""Buckets of other people, with the roles of template.yaml in force: refused at the door, and never run for twice.

And web pages, which upload to the stack's buckets and fetch from them.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from local.aws.template import OWN_BUCKETS, TABLE, name_of
from local.dev import DevStack
from tests.integration.test_dev_stack import small
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.timeout(1800)

INPUT, OUTPUT = name_of("InputBucket"), name_of("OutputBucket")
(PHOTOS,), (RESULTS,) = OWN_BUCKETS["InputBuckets"], OWN_BUCKETS["OutputBuckets"]
#: Not listed; listed, and its owner has let nobody in. The roles may read PHOTOS, and not write there.
FOREIGN, LOCKED = "somebodys-results", "comfy-local-locked"
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev")


@pytest.fixture(scope="module")
def stack(logs: Path) -> Iterator[DevStack]:
    listed = ",".join((OUTPUT, RESULTS, PHOTOS, LOCKED))
    # Less than any picture has: nothing that is refused may stay.
    environment = {"ALLOWED_OUTPUT_BUCKETS": listed, "CORS_ORIGINS": PAGE, "KEPT_OUTPUT_BYTES": "50"}
    with DevStack(log_folder=logs, environment=environment) as started:
        for name in (FOREIGN, LOCKED):
            started.aws.bucket(name)
        yield started
        denials = started.aws.usage().denials
        assert [denial for denial in denials if LOCKED not in denial and PHOTOS not in denial] == []


def jobs(stack: DevStack) -> JobStore:
    return JobStore(Table(stack.aws.dynamodb(), TABLE), lease_s=30, max_runs=3)


def ended(stack: DevStack, job_ids: list[str]) -> dict[str, JobState]:
    """The jobs, once all have ended."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        states = jobs(stack).many(job_ids)
        if len(states) == len(job_ids) and all(state.is_over for state in states.values()):
            return dict(states)
        time.sleep(0.2)
    raise AssertionError(f"not ended: {jobs(stack).many(job_ids)}")


def drop(stack: DevStack, key: str, body: str | bytes) -> None:
    """As somebody whose tools put tags on everything: nobody here may read or write tags."""
    stack.aws.client().put_object(Bucket=INPUT, Key=key, Body=body, Tagging="team=a&cost=12")


def request(number: int, bucket: str, **fields: Any) -> dict[str, Any]:
    return {"job_id": f"{bucket}-{number}", "workflow": small(number), "output": {"bucket": bucket}, **fields}


def stored(stack: DevStack, address: str) -> dict[str, Any]:
    bucket, key = S3Address.parse(address)
    document: dict[str, Any] = json.loads(stack.aws.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    return document


def logged(logs: Path, part: str) -> list[dict[str, Any]]:
    """The entries of the workers' logs that have this in them."""
    lines = [line for log in logs.glob("generate-*.log") for line in log.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{") and part in line]


def engine_runs(logs: Path, name: str) -> int:
    """How often the engine has run for jobs of this name, over all their tries."""
    entries = logged(logs, "timings_ms")
    return sum(entry["job_id"].startswith(name) and "executing" in entry["timings_ms"] for entry in entries)


def assert_told_at_home(stack: DevStack, state: JobState, code: str) -> str:
    """The table, and OUTPUT_BUCKET, say how the job ended and where that stands; returns the message."""
    document = state.document()
    assert document.error is not None
    assert (document.error.code, document.error.retryable) == (code, False)
    assert document.result_uri == f"s3://{OUTPUT}/{state.id}/result.json"
    found = stored(stack, document.result_uri)
    assert (found["status"], found["error"]["code"]) == ("failed", code)
    return str(found["error"]["message"])


def results_of(stack: DevStack, beginning: str, *, count: int) -> list[dict[str, Any]]:
    """The results of jobs whose ids begin like this, once there are so many."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = stack.aws.client().list_objects_v2(Bucket=OUTPUT, Prefix=beginning).get("Contents", [])
        addresses = [f"s3://{OUTPUT}/{item['Key']}" for item in found if item["Key"].endswith("/result.json")]
        if len(addresses) >= count:
            return [stored(stack, address) for address in addresses]
        time.sleep(0.2)
    raise AssertionError(f"there are no {count} results of {beginning}…")


def test_drops_of_every_spelling_run_as_they_were_dropped_and_the_rest_is_told_or_left_alone(stack: DevStack) -> None:
    lines: list[dict[str, Any]] = [
        {"job_id": f"packed-{number}", "workflow": small(number + 50)} for number in range(3)
    ]
    photo = Path("events/photo.jpg").read_bytes()
    stack.aws.client().put_bucket_versioning(Bucket=INPUT, VersioningConfiguration={"Status": "Enabled"})
    try:
        drop(stack, "jobs/Upper.JSON", json.dumps({"job_id": "upper", "workflow": small(60)}))
        drop(stack, "batches/Packed.NDJSON.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
        drop(stack, "images/thumbnail/.DS_Store", "x")
        drop(stack, "images/thumbnail/dropped.jpg", photo)
        drop(stack, "images/thumbnail/dropped.jpg", "no picture at all")
        drop(stack, "jobs/notes.txt", "x")
        states = ended(stack, ["upper", *(line["job_id"] for line in lines)])
        assert {state.status.value for state in states.values()} == {"succeeded"}
        assert "nothing that can be run" in results_of(stack, "notes-", count=1)[0]["error"]["message"]
        first, second = results_of(stack, "dropped-", count=2)
        assert {first["status"], second["status"]} == {"succeeded", "failed"}, "each with the picture that it was"
        assert not stack.aws.client().list_objects_v2(Bucket=OUTPUT, Prefix="DS").get("Contents")
    finally:
        stack.aws.client().put_bucket_versioning(Bucket=INPUT, VersioningConfiguration={"Status": "Suspended"})


def test_a_picture_that_a_job_has_made_is_dropped_and_made_again(stack: DevStack) -> None:
    drop(stack, "jobs/first.json", json.dumps({"job_id": "first", "workflow": small(61)}))
    (made,) = results_of(stack, "first/", count=1)[0]["outputs"]
    address = S3Address.parse(made["s3_uri"])
    picture = stack.aws.client().get_object(Bucket=address.bucket, Key=address.key)["Body"].read()
    drop(stack, "jobs/made.PNG", picture)
    drop(stack, "jobs/unmade.jpg", Path("events/photo.jpg").read_bytes())
    (again,) = results_of(stack, "made-", count=1)
    assert again["status"] == "succeeded"
    assert [output["name"] for output in again["outputs"]] == [made["name"]]
    (refused,) = results_of(stack, "unmade-", count=1)
    assert refused["error"]["code"] == "invalid_workflow"
    assert "images/{workflow}/" in refused["error"]["message"]


def test_a_manifest_for_a_foreign_bucket_is_twelve_failures_and_no_run(stack: DevStack, logs: Path) -> None:
    lines = [request(number, FOREIGN) for number in range(12)]
    drop(stack, "batches/twelve.jsonl", "\n".join(map(json.dumps, lines)))
    for state in ended(stack, [line["job_id"] for line in lines]).values():
        message = assert_told_at_home(stack, state, "invalid_request")
        assert f"'{FOREIGN}'" in message
        assert "OutputBuckets" in message
        assert state.runs == 0
    assert engine_runs(logs, FOREIGN) == 0


def test_a_drop_for_a_foreign_bucket_and_one_with_a_foreign_input_likewise(stack: DevStack, logs: Path) -> None:
    graph = {**small(1), "9": {"class_type": "LoadImage", "inputs": {"image": f"s3://{FOREIGN}/fox.png"}}}
    inputs = {"job_id": "their-photo", "workflow": graph}
    drop(stack, "jobs/one.json", json.dumps(request(100, FOREIGN)))
    drop(stack, "jobs/two.json", json.dumps(inputs))
    states = ended(stack, [f"{FOREIGN}-100", "their-photo"])
    assert "OutputBuckets" in assert_told_at_home(stack, states[f"{FOREIGN}-100"], "invalid_request")
    assert "InputBuckets" in assert_told_at_home(stack, states["their-photo"], "missing_asset")
    assert (engine_runs(logs, FOREIGN), engine_runs(logs, "their-photo")) == (0, 0)


def test_a_listed_bucket_is_written_to_and_one_that_refuses_is_run_for_once_at_most(
    stack: DevStack, logs: Path
) -> None:
    lines = [request(number, bucket) for bucket in (RESULTS, LOCKED, PHOTOS) for number in range(3)]
    drop(stack, "batches/listed.jsonl", "\n".join(map(json.dumps, lines)))
    states = ended(stack, [line["job_id"] for line in lines])
    for number in range(3):
        good = states[f"{RESULTS}-{number}"].document()
        assert good.error is None
        assert good.result_uri == f"s3://{RESULTS}/{RESULTS}-{number}/result.json"
        assert stored(stack, good.result_uri)["status"] == "succeeded"
        # Nothing can be done there: that is found out before any work.
        assert "s3:PutObject" in assert_told_at_home(stack, states[f"{LOCKED}-{number}"], "invalid_request")
        # It looks as if results could go there, until one does.
        assert "s3:PutObject" in assert_told_at_home(stack, states[f"{PHOTOS}-{number}"], "delivery_failed")
    assert [state.runs for state in states.values()] == [1] * 9
    assert {name: engine_runs(logs, name) for name in (RESULTS, LOCKED, PHOTOS)} == {RESULTS: 3, LOCKED: 0, PHOTOS: 3}
    assert_nothing_is_kept_of(logs, [f"{PHOTOS}-{number}" for number in range(3)])


def assert_nothing_is_kept_of(logs: Path, job_ids: list[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    removed: list[str] = []
    while removed != job_ids and time.monotonic() < until:
        time.sleep(0.1)
        entries = logged(logs, "outputs that could not be stored are removed")
        assert all(entry["size_bytes"] > 50 for entry in entries)
        removed = sorted(entry["job_id"] for entry in entries)
    assert removed == job_ids


def test_an_input_of_ones_own_bucket_is_read(stack: DevStack) -> None:
    picture = stored_picture(stack)
    stack.aws.client().put_object(Bucket=PHOTOS, Key="a b/fox.png", Body=picture)
    answer = ask(stack, "/generate", {"workflow": loader(f"s3://{PHOTOS}/a b/fox.png"), "wait_s": 20})
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    refused = ask(stack, "/generate", {"workflow": loader(f"s3://{FOREIGN}/fox.png")})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "missing_asset")


def ask(stack: DevStack, path: str, body: Mapping[str, Any]) -> requests.Response:
    headers = {"Authorization": f"Bearer {stack.api_key}", "Origin": PAGE}
    return requests.post(f"{stack.url}{path}", json=body, headers=headers, timeout=PATIENCE_S)


def loader(address: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": address}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


def stored_picture(stack: DevStack) -> bytes:
    answer = ask(stack, "/generate", {"workflow": small(77), "wait_s": 20}).json()
    return requests.get(answer["outputs"][0]["url"], timeout=PATIENCE_S).content


# As a browser does it


def may_ask(url: str, method: str, *, origin: str, headers: str = "") -> bool:
    """Whether a browser sends a page's request, after it has asked first."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    answer = requests.options(url, headers=asked, timeout=PATIENCE_S)
    allowed = answer.headers.get("Access-Control-Allow-Headers", "").lower()
    return (
        answer.ok
        and answer.headers.get("Access-Control-Allow-Origin") in {origin, "*"}
        and method in answer.headers.get("Access-Control-Allow-Methods", "").split(", ")
        and (allowed == "*" or {name for name in headers.split(",") if name} <= set(allowed.split(", ")))
    )


def may_see(answer: requests.Response, *names: str, origin: str) -> bool:
    """Whether a browser shows an answer to the page, with these headers."""
    shown = {name.strip().lower() for name in answer.headers.get("Access-Control-Expose-Headers", "").split(",")}
    is_open = answer.headers.get("Access-Control-Allow-Origin") in {origin, "*"}
    return is_open and {name.lower() for name in names} <= shown


def test_a_web_page_uploads_a_file_and_reads_results(stack: DevStack) -> None:
    picture = stored_picture(stack)
    body = {"file_path": "fox.png", "content_type": "image/png", "size_bytes": len(picture)}
    target = ask(stack, "/api/v2/uploads", body).json()
    put: Callable[..., requests.Response] = requests.put
    names = ",".join(sorted(name.lower() for name in target["headers"]))
    assert may_ask(target["url"], "PUT", origin=PAGE, headers=names)
    assert not may_ask(target["url"], "PUT", origin="https://evil.example", headers=names)
    sent = put(target["url"], data=picture, headers={**target["headers"], "Origin": PAGE}, timeout=PATIENCE_S)
    assert sent.ok
    assert may_see(sent, "ETag", origin=PAGE)
    asset = ask(stack, target["complete_url"], {}).json()
    # The API answers with a redirect to another origin. From then on a browser calls the page "null".
    headers = {"Authorization": f"Bearer {stack.api_key}", "Origin": PAGE}
    content = f"{stack.url}/api/v2/assets/{asset['id']}/content"
    redirect = requests.get(content, headers=headers, allow_redirects=False, timeout=PATIENCE_S)
    assert (redirect.status_code, redirect.headers["Access-Control-Allow-Origin"]) == (302, PAGE)
    for url, origin in ((redirect.headers["Location"], "null"), (asset["url"], PAGE)):
        ranged = requests.get(url, headers={"Origin": origin, "Range": "bytes=0-3"}, timeout=PATIENCE_S)
        assert (ranged.status_code, ranged.content) == (206, picture[:4])
        assert may_see(ranged, "Content-Range", "ETag", origin=origin)


def test_a_web_page_may_write_no_result(stack: DevStack) -> None:
    url = stack.aws.client().generate_presigned_url("put_object", Params={"Bucket": OUTPUT, "Key": "x"})
    assert not may_ask(url, "PUT", origin=PAGE)
    assert may_ask(url, "GET", origin=PAGE)
