"""Objects dropped into S3: keys, names of jobs, what can be run, and what never happens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.request import JOB_ID_PATTERN
from comfy_serverless.jobs.sources import DroppedObject, RequestSource
from tests.unit.event_samples import answer, s3_event
from tests.unit.fakes import IN, OUT, WORKFLOW, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Worlds = Callable[..., World]


def the_source(event: object) -> RequestSource:
    (source,) = recognise(event).sources()
    return source


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("jobs/a+b.json", "jobs/a b.json"),
        ("jobs/a%2Bb.json", "jobs/a+b.json"),
        ("jobs/%C3%BCber+%26+so.json", "jobs/über & so.json"),
        ("jobs%2Fa.json", "jobs/a.json"),
    ],
)
def test_keys_are_decoded(encoded: str, key: str) -> None:
    source = the_source(s3_event(encoded))
    assert isinstance(source, DroppedObject)
    assert source.address.key == key


def test_a_drop_is_run_and_reported_in_the_output_bucket(world: Worlds) -> None:
    here = world()
    here.s3.put_object(Bucket=IN, Key="jobs/über 1+1.json", Body=json.dumps({"workflow": WORKFLOW}))
    (summary,) = answer(here, s3_event("jobs/%C3%BCber+1%2B1.json"))["jobs"]
    assert summary["status"] == "succeeded"
    assert summary["source"] == f"s3://{IN}/jobs/über 1+1.json"
    assert here.result(summary["id"])["metadata"]["source"] == f"s3://{IN}/jobs/über 1+1.json"


def test_a_bare_workflow_can_be_dropped(world: Worlds) -> None:
    here = world()
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(WORKFLOW))
    assert answer(here, s3_event("jobs/w.json"))["jobs"][0]["status"] == "succeeded"


def test_the_same_event_twice_is_one_job(world: Worlds) -> None:
    here = world()
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(WORKFLOW))
    first, second = (answer(here, s3_event("jobs/w.json", sequencer="1")) for _ in range(2))
    assert first == second
    assert len(here.engine.runs) == 1


def test_writing_the_object_again_is_another_job() -> None:
    assert (
        the_source(s3_event("w.json", sequencer="1")).default_id
        != the_source(s3_event("w.json", sequencer="2")).default_id
    )


@pytest.mark.parametrize("key", ["jobs/portrait.json", "a" * 900, "%C3%BC%2F%F0%9F%99%82", "..%2F..", "+"])
def test_the_job_of_a_drop_has_a_valid_name(key: str) -> None:
    assert re.fullmatch(JOB_ID_PATTERN, the_source(s3_event(key)).default_id)


def test_test_events_removals_and_folders_ask_for_nothing(world: Worlds) -> None:
    here = world()
    assert answer(here, {"Event": "s3:TestEvent", "Bucket": IN}) == {"jobs": []}
    assert answer(here, s3_event("a.json", name="ObjectRemoved:Delete")) == {"jobs": []}
    assert answer(here, s3_event("jobs/folder/")) == {"jobs": []}


def test_an_image_is_given_to_the_workflow_it_was_dropped_for(world: Worlds, tmp_path: Path) -> None:
    loader = {"7": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}, **WORKFLOW}
    (tmp_path / "portrait.json").write_text(json.dumps(loader))
    here = world(workflows_dir=tmp_path)
    (summary,) = answer(here, s3_event("images/portrait/my+cat.png"))["jobs"]
    assert summary["status"] == "succeeded"
    assert here.inputs.calls[0]["inputs"] == {"7.image": f"s3://{IN}/images/portrait/my cat.png"}


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_image_for_a_workflow_with_no_one_place_for_it_is_refused(
    world: Worlds, tmp_path: Path, loaders: int
) -> None:
    graph = {str(n): {"class_type": "LoadImage", "inputs": {"image": ""}} for n in range(loaders)} or WORKFLOW
    (tmp_path / "portrait.json").write_text(json.dumps(graph))
    (summary,) = answer(world(workflows_dir=tmp_path), s3_event("images/portrait/cat.png"))["jobs"]
    assert summary["error"]["code"] == "invalid_request"
    assert f"{loaders} LoadImage nodes" in summary["error"]["message"]


@pytest.mark.parametrize("key", ["batches/many.jsonl", "photo.png", "images/cat.png", "jobs/x.txt"])
def test_what_cannot_be_run_is_reported_with_what_can(world: Worlds, key: str) -> None:
    here = world()
    (summary,) = answer(here, s3_event(key))["jobs"]
    assert summary["error"]["code"] == "invalid_request"
    assert "images/{workflow}/*" in summary["error"]["message"]
    assert here.result(summary["id"])["status"] == "failed"


def test_a_drop_that_is_gone_is_reported(world: Worlds) -> None:
    (summary,) = answer(world(), s3_event("jobs/none.json"))["jobs"]
    assert summary["error"]["code"] == "missing_asset"
    assert "does not exist" in summary["error"]["message"]


@pytest.mark.parametrize("where", ["settings", "request"])
def test_results_never_go_into_the_bucket_that_sends_the_events(world: Worlds, where: str) -> None:
    here = world(output_bucket=IN if where == "settings" else OUT)
    request = {"workflow": WORKFLOW} | ({"output": {"bucket": IN}} if where == "request" else {})
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(request))
    if where == "settings":  # there is nowhere to report: the invocation fails, and the event is kept
        with pytest.raises(InvalidRequest, match="OUTPUT_BUCKET is 'in-bucket'"):
            answer(here, s3_event("jobs/w.json"))
    else:
        (summary,) = answer(here, s3_event("jobs/w.json"))["jobs"]
        assert summary["error"]["code"] == "invalid_request"
        assert "`output.bucket` of the request" in summary["error"]["message"]
    assert here.stored_keys(IN) == {"jobs/w.json"}
    assert here.engine.runs == []


def test_forbidden_objects_say_which_right_is_missing(world: Worlds, s3: S3Client) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["Bucket"] == IN:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

    s3.meta.events.register("provide-client-params.s3.GetObject", refuse)
    (summary,) = answer(world(), s3_event("jobs/w.json"))["jobs"]
    assert summary["error"]["code"] == "missing_asset"
    assert "s3:GetObject" in summary["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"job_id": "alice", "output": {"prefix": "owners"}},
        {"job_id": "x", "output": {"prefix": "owners/alice"}},
        {"job_id": "x", "inputs": {"9.image": f"s3://{OUT}/owners/alice/a.png"}},
        {"job_id": "x", "workflow": f"s3://{IN}/their.json"},
    ],
    ids=["a folder by the id", "a folder", "an input", "an input in a workflow of S3"],
)
def test_a_drop_straight_to_the_worker_keeps_out_of_the_apis_places(world: Worlds, fields: dict[str, Any]) -> None:
    here = world()
    graph = {"9": {"class_type": "LoadImage", "inputs": {"image": f"s3://{OUT}/owners/alice/a.png"}}}
    here.s3.put_object(Bucket=IN, Key="their.json", Body=json.dumps(graph))
    here.s3.put_object(Bucket=IN, Key="jobs/a.json", Body=json.dumps({"workflow": WORKFLOW, **fields}))
    (summary,) = answer(here, s3_event("jobs/a.json"))["jobs"]
    assert (summary["status"], summary["error"]["code"]) == ("failed", "invalid_request")
    assert "the API's" in summary["error"]["message"]
    assert not [key for key in here.stored_keys() if key.startswith("owners/")]
    assert not here.engine.runs
