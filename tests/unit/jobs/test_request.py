"""What a request may be, and what a job looks like from outside."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    InvalidRequest,
    InvalidWorkflow,
    NodeExecutionError,
)
from comfy_serverless.jobs.document import (
    MAX_ERROR_DETAILS,
    Job,
    JobError,
    JobStatus,
    JobUrls,
    Output,
    error_envelope,
    shorten,
    status_of,
)
from comfy_serverless.jobs.request import JobRequest

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}}


def job(**fields: Any) -> Job:
    now = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
    return Job(
        **{
            "id": "j",
            "status": JobStatus.SUCCEEDED,
            "created_at": now,
            "expires_at": now,
            "urls": JobUrls.of("j"),
            **fields,
        }
    )


def output(**fields: Any) -> Output:
    return Output(
        **{
            "node_id": "9",
            "name": "a.png",
            "type": "image",
            "content_type": "image/png",
            "size_bytes": 3,
            "id": "i",
            "job_id": "j",
            "sha256": "0" * 64,
            **fields,
        }
    )


def refusal(payload: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        JobRequest.parse(payload)
    return caught.value


def test_a_full_request_is_read() -> None:
    request = JobRequest.parse(
        {
            "job_id": "a-B_9",
            "workflow": GRAPH,
            "set": {"3.seed": 42},
            "inputs": {"10.image": "s3://b/k.png"},
            "output": {"bucket": "my-bucket", "prefix": "a/b"},
            "deadline_s": 600,
            "reply": "links",
            "metadata": {"who": "me"},
        }
    )
    assert request.values == {"3.seed": 42}
    assert request.output.bucket == "my-bucket"
    assert request.deadline_s == 600.0


def test_a_workflow_is_all_a_request_needs() -> None:
    request = JobRequest.parse({"workflow": "portrait"})
    assert (request.reply, request.values, request.inputs, request.metadata) == ("auto", {}, {}, {})


@pytest.mark.parametrize(
    "workflow",
    [GRAPH, {"prompt": GRAPH, "client_id": "x"}, {"nodes": [], "links": [], "version": 0.4}],
    ids=["api format", "a /prompt body", "the editor's format"],
)
def test_a_bare_workflow_is_a_request_to_run_it(workflow: dict[str, Any]) -> None:
    assert JobRequest.parse(workflow).workflow == workflow.get("prompt", workflow)


def test_every_wrong_field_is_named() -> None:
    error = refusal({"workflow": 5, "deadline_s": -1, "inputs": {"10.image": 3}, "job_id": "no spaces", "reply": "no"})
    named = {problem["field"] for problem in error.details["errors"]}
    assert named == {"workflow", "deadline_s", "inputs.10.image", "job_id", "reply"}
    for field in named:
        assert field in error.message


@pytest.mark.parametrize(
    ("field", "meant"),
    [("work_flow", "workflow"), ("deadline", "deadline_s"), ("input", "inputs"), ("jobid", "job_id")],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(field: str, meant: str) -> None:
    assert f"did you mean '{meant}'" in refusal({"workflow": "x", field: 1}).message


def test_an_unknown_field_of_the_output_is_refused_too() -> None:
    assert "did you mean 'bucket'" in refusal({"workflow": "x", "output": {"buckt": "b"}}).message


@pytest.mark.parametrize("payload", [None, 5, "text", [], True])
def test_what_is_no_object_is_refused(payload: object) -> None:
    assert "JSON object" in refusal(payload).message


@pytest.mark.parametrize("deadline", [-1, float("inf"), float("nan"), "soon", True])
def test_a_deadline_is_a_number_of_seconds(deadline: object) -> None:
    assert "deadline_s" in refusal({"workflow": "x", "deadline_s": deadline}).message


@pytest.mark.parametrize("job_id", ["", "a" * 65, "a/b", "..", "ü", "a\n", "a b"])
def test_job_ids_are_harmless_names(job_id: str) -> None:
    assert "job_id" in refusal({"workflow": "x", "job_id": job_id}).message


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "a//b", "a\x00b", "./a", "x" * 600, "ü" * 300])
def test_a_prefix_is_a_plain_folder(prefix: str) -> None:
    assert "prefix" in refusal({"workflow": "x", "output": {"prefix": prefix}}).message


def test_metadata_are_few_short_labels() -> None:
    assert "metadata" in refusal({"workflow": "x", "metadata": {str(n): "" for n in range(51)}}).message
    assert "metadata" in refusal({"workflow": "x", "metadata": {"a": "x" * 2000}}).message
    assert "metadata" in refusal({"workflow": "x", "metadata": {"a": [1]}}).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(st.dictionaries(st.sampled_from([*JobRequest.model_fields, "set", "x", "nodes", "prompt"]), JSON))
def test_any_json_is_a_request_or_a_clear_refusal(payload: dict[str, Any]) -> None:
    try:
        JobRequest.parse(payload)
    except InvalidRequest as error:
        json.dumps(error_envelope(error), allow_nan=False)


def test_a_job_has_every_field_of_the_api() -> None:
    document = job(outputs=(output(),)).to_json()
    required = {
        "id",
        "status",
        "created_at",
        "started_at",
        "completed_at",
        "expires_at",
        "queue_position",
        "progress",
        "outputs",
        "error",
        "urls",
    }
    assert required <= document.keys()
    assert {"node_id", "name", "type", "content_type", "size_bytes", "id", "hash", "url", "url_expires_at"} <= document[
        "outputs"
    ][0].keys()
    assert document["created_at"] == "2026-11-23T10:00:00.123Z"
    assert document["urls"] == {
        "self": "/api/v2/jobs/j",
        "events": "/api/v2/jobs/j/events",
        "cancel": "/api/v2/jobs/j/cancel",
    }


def test_what_is_stored_can_be_read_again() -> None:
    original = job(
        outputs=(output(url="https://signed", data_base64="AAAA"),),
        error=JobError.of(NodeExecutionError("no", details={"node_id": "5"})),
        warnings=("ä", "\ud800"),
    )
    stored = original.to_stored_bytes()
    assert b"signed" not in stored
    assert b"AAAA" not in stored
    assert Job.model_validate_json(stored).outputs[0].url is None
    assert json.loads(stored)["warnings"] == ["ä", "?"]


def test_a_failure_can_be_stored_whatever_its_details_are() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    error = NodeExecutionError("\ud800", details={"\ud800": "\ud800", "node_errors": {"3": {"\ud800": deep}}})
    original = job(error=JobError.of(error))
    stored = Job.model_validate_json(original.to_stored_bytes())
    assert stored.error is not None
    assert stored.error.details["?"] == "?"
    assert stored.to_json() == original.to_json()
    json.dumps(error_envelope(error), ensure_ascii=False).encode()


def test_a_failure_is_reported_with_the_node_at_fault() -> None:
    error = JobError.of(
        NodeExecutionError("boom", details={"node_id": 5, "class_type": "Blur", "traceback": ["a\n", "b\n"], "x": 1})
    )
    assert (error.node_id, error.class_type, error.traceback, error.details["x"]) == ("5", "Blur", "a\nb\n", 1)


def test_the_envelope_has_code_message_and_details() -> None:
    assert error_envelope(DeadlineExceeded("late", details={"s": 1})) == {
        "error": {"code": "deadline_exceeded", "message": "late", "details": {"s": 1}}
    }
    assert error_envelope(DeadlineExceeded("late"))["error"]["details"] is None


def test_details_never_grow_beyond_a_reply() -> None:
    details = shorten({"log_tail": "x" * 10_000_000, "node_errors": {str(n): "y" * 100 for n in range(10_000)}, "a": 1})
    assert len(json.dumps(details)) < MAX_ERROR_DETAILS + 1000
    assert details["a"] == 1
    assert details["left_out"] == ["node_errors"]
    assert "characters left out" in details["log_tail"]


def test_details_without_room_are_not_gone_through_to_their_end() -> None:
    class Endless(Mapping[str, Any]):
        seen = 0

        def __iter__(self) -> Iterator[str]:
            for number in itertools.count():
                self.seen = number
                yield str(number)

        def __len__(self) -> int:
            return 2**40

        def __getitem__(self, name: str) -> Any:
            return {"errors": [{"message": "x" * 50}], "of": name}

    endless = Endless()
    assert shorten({"node_errors": endless, "a": 1}) == {"left_out": ["node_errors"], "a": 1}
    assert endless.seen < MAX_ERROR_DETAILS / 50


def test_details_are_json_whatever_they_were() -> None:
    details = shorten({"path": Path("/x"), "number": float("nan"), "set": {1}})
    json.dumps(details, allow_nan=False)
    assert details["path"] == "/x"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "succeeded"), (Canceled("x"), "canceled"), (DeadlineExceeded("x"), "failed")]
)
def test_how_a_job_ends(error: ComfyError | None, status: str) -> None:
    assert status_of(error) == status


def test_a_failure_of_one_node_names_it() -> None:
    entry = {"class_type": "SaveImage", "errors": [{"type": "x"}]}
    one, two = (
        InvalidWorkflow("no", details={"node_errors": nodes}) for nodes in ({"3": entry}, {"3": entry, "4": {}})
    )
    assert (JobError.of(one).node_id, JobError.of(one).class_type) == ("3", "SaveImage")
    assert (JobError.of(two).node_id, JobError.of(two).class_type) == (None, None)


@pytest.mark.parametrize("field", ["set", "inputs", "metadata", "output"])
def test_what_should_be_an_object_is_told_in_words_of_json(field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"{field}: should be an object: {{…}}"):
        JobRequest.parse({"workflow": "poster", field: "text"})
