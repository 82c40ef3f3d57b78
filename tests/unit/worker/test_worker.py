"""One job, from its source to its result: what is run, what is delivered, what is written down."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.connector.facts import Timings
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    DeliveryFailed,
    EngineCrashed,
    InvalidRequest,
    InvalidWorkflow,
    MissingAsset,
    NodeExecutionError,
    UiFormatWorkflow,
)
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.worker.worker import Call
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN, OUT, WORKFLOW, FakeEngine, World, made, png

Worlds = Callable[..., World]
UNHEARD = Call(is_heard=False)


def request(**fields: Any) -> dict[str, Any]:
    return {"job_id": "job-1", "workflow": WORKFLOW, **fields}


def test_a_job_delivers_every_output_and_says_which_node_made_it(world: Worlds) -> None:
    here = world(engine=FakeEngine(outputs=(made("a.png", png(5, 7)), made("note.txt", b"hello", node_id="4"))))
    job = here.run(request()).job
    assert job.status is JobStatus.SUCCEEDED
    assert [(output.node_id, output.type, output.s3_uri) for output in job.outputs] == [
        ("9", "image", f"s3://{OUT}/job-1/9/a.png"),
        ("4", "text", f"s3://{OUT}/job-1/4/note.txt"),
    ]
    assert (job.outputs[0].width, job.outputs[0].height) == (5, 7)
    assert here.stored("job-1/9/a.png") == png(5, 7)
    assert here.stored("job-1/4/note.txt") == b"hello"


def test_outputs_leave_while_the_engine_still_runs(world: Worlds) -> None:
    arrived = threading.Event()

    def wait_for_the_first_output() -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and not arrived.is_set():
            if here.stored_keys():
                arrived.set()
            time.sleep(0.01)

    here = world(engine=FakeEngine(then=wait_for_the_first_output))
    here.run(request())
    assert arrived.is_set()


def test_outputs_nobody_announced_are_delivered_too(world: Worlds) -> None:
    here = world(engine=FakeEngine(announces=False))
    assert len(here.run(request()).job.outputs) == 1
    assert "job-1/9/a.png" in here.stored_keys()


def test_after_a_second_attempt_the_files_of_the_second_are_stored(world: Worlds) -> None:
    contents = iter([b"first attempt", b"second attempt", b"second attempt"])
    changing = replace(made("a.bin", b""), content=None, fetch=lambda: io.BytesIO(next(contents)))
    here = world(engine=FakeEngine(outputs=(changing,), attempts=2))
    [output] = here.run(request()).job.outputs
    assert here.stored(str(output.s3_uri).removeprefix(f"s3://{OUT}/")) == b"second attempt"
    assert here.stored("job-1/9/a.bin") == b"first attempt", "nothing that stands is replaced"


def test_a_job_that_failed_keeps_what_it_made_before(world: Worlds) -> None:
    failure = NodeExecutionError("node 5 raised", details={"node_id": "5", "class_type": "Blur", "traceback": "…"})
    here = world(engine=FakeEngine(error=failure))
    outcome = here.run(request())
    assert outcome.job.status is JobStatus.FAILED
    assert outcome.job.error is not None
    assert (outcome.job.error.code, outcome.job.error.node_id, outcome.job.error.class_type) == (
        "node_execution_error",
        "5",
        "Blur",
    )
    assert [output.name for output in outcome.job.outputs] == ["a.png"]
    assert "job-1/9/a.png" in here.stored_keys()
    assert here.result("job-1")["error"]["code"] == "node_execution_error"


def test_a_job_that_ran_and_failed_does_not_run_again(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=NodeExecutionError("node 5 raised")))
    here.run(request())
    here.engine.error = None
    assert here.run(request()).job.status is JobStatus.FAILED
    assert len(here.engine.runs) == 1


def test_a_failure_that_may_pass_is_not_written_down(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("it died")))
    outcome = here.run(request(), UNHEARD)
    assert outcome.job.error is not None
    assert outcome.job.error.retryable
    assert not outcome.is_recorded
    assert "job-1/result.json" not in here.stored_keys()
    here.engine.error = None
    assert here.run(request(), UNHEARD).job.status is JobStatus.SUCCEEDED


def test_a_canceled_job_is_canceled(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=Canceled("asked")))
    assert here.run(request()).job.status is JobStatus.CANCELED


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"workflow": {"nodes": [], "links": [], "version": 0.4}}, UiFormatWorkflow, "save it again in ComfyUI"),
        ({"set": {"KSampelr.steps": 3}}, InvalidWorkflow, "KSampler"),
        ({"workflow": {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}}, InvalidWorkflow, "'2'"),
        ({"workflow": "s3://in-bucket/none.json"}, MissingAsset, "s3://in-bucket/none.json does not exist"),
        ({"workflow": "s3://no-such-bucket/a.json"}, MissingAsset, "no bucket 'no-such-bucket'"),
        ({"workflow": "portrait"}, InvalidRequest, "WORKFLOWS_DIR"),
        ({"workflow": "https://x.org/a.json?key=1"}, InvalidRequest, "https://x.org/a.json?… is not fetched"),
        ({"set": {"3.steps": float("inf")}}, InvalidWorkflow, "Node '3'"),
        ({"set": {"3.steps": "\ud800"}}, InvalidWorkflow, "Node '3'"),
        ({"set": {"\ud800.steps": 1}}, InvalidWorkflow, "does not fit"),
        ({"deadline_s": 0}, DeadlineExceeded, "deadline_s is 0"),
        ({"deadline_s": -1}, InvalidRequest, "deadline_s"),
        ({"output": {"bucket": "not-there"}}, InvalidRequest, "'not-there'"),
        ({"job_id": "no spaces"}, InvalidRequest, "job_id"),
    ],
)
def test_a_refused_request_is_not_run(
    world: Worlds, fields: dict[str, Any], kind: type[ComfyError], message: str
) -> None:
    here = world()
    outcome = here.run(request(**fields))
    assert isinstance(outcome.error, kind)
    assert outcome.error.code == kind.code
    assert message in outcome.error.message
    assert here.engine.runs == []


def test_a_caller_who_hears_the_refusal_may_correct_the_request(world: Worlds) -> None:
    here = world()
    assert not here.run(request(set={"7.seed": 1})).is_recorded
    assert here.stored_keys() == set()
    assert here.run(request(set={"3.seed": 1})).job.status is JobStatus.SUCCEEDED


def test_a_refusal_nobody_hears_is_written_down(world: Worlds) -> None:
    here = world()
    outcome = here.run("{not json", UNHEARD, default_id="sqs-1")
    assert outcome.is_recorded
    assert here.result("sqs-1")["error"]["code"] == "invalid_request"


def test_a_missing_input_is_reported_with_its_code(world: Worlds) -> None:
    here = world()
    here.inputs.error = MissingAsset("node 10: s3://in/x.png does not exist")
    outcome = here.run(request(inputs={"10.image": "s3://in/x.png"}))
    assert outcome.job.error is not None
    assert outcome.job.error.code == "missing_asset"


def test_without_any_bucket_a_job_nobody_hears_is_refused(world: Worlds) -> None:
    outcome = world(output_bucket=None).run(request(), UNHEARD)
    assert isinstance(outcome.error, InvalidRequest)
    assert "OUTPUT_BUCKET" in outcome.error.message
    assert not outcome.is_recorded


def test_links_need_a_bucket(world: Worlds) -> None:
    outcome = world(output_bucket=None).run(request(reply="links"))
    assert isinstance(outcome.error, InvalidRequest)
    assert "OUTPUT_BUCKET" in outcome.error.message


def test_without_a_bucket_outputs_wait_for_the_reply(world: Worlds) -> None:
    outcome = world(output_bucket=None).run(request())
    (output,) = outcome.job.outputs
    assert output.s3_uri is None
    assert outcome.made[output.id].read() == png()
    assert outcome.job.result_uri is None


def test_the_request_says_where_results_go(world: Worlds) -> None:
    here = world(output_prefix="ignored")
    here.run(request(output={"bucket": IN, "prefix": "team/x"}))
    assert here.stored_keys(IN) == {
        f"team/x/job-1/{name}" for name in ("9/a.png", "9/thumbs/a.png.webp", "result.json")
    }


def test_the_prefix_of_the_settings_is_a_folder(world: Worlds) -> None:
    here = world(output_prefix="results")
    here.run(request())
    assert here.stored_keys() == {f"results/job-1/{name}" for name in ("9/a.png", "9/thumbs/a.png.webp", "result.json")}


def test_a_name_is_looked_up_in_the_workflows_folder_and_nowhere_else(world: Worlds, tmp_path: Any) -> None:
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "portrait.json").write_text(json.dumps(WORKFLOW))
    (tmp_path / "secret.json").write_text(json.dumps(WORKFLOW))
    here = world(workflows_dir=folder)
    assert here.run(request(workflow="portrait")).error is None
    for name in ("../secret", "../secret.json", "/etc/passwd", str(tmp_path / "secret.json")):
        error = here.run(request(job_id="other", workflow=name)).error
        assert isinstance(error, InvalidRequest)
    error = here.run(request(job_id="other", workflow="portrai")).error
    assert "did you mean 'portrait'" in str(error)


def test_drawn_seeds_are_reported(world: Worlds) -> None:
    here = world()
    job = here.run(request()).job
    assert here.engine.runs[0]["workflow"]["3"]["inputs"]["seed"] == job.seeds["3.seed"] >= 0


def test_the_engine_gets_the_time_that_is_left_less_the_margin(world: Worlds) -> None:
    here = world(deadline_margin_s=10)
    here.run(request(), Call(remaining_s=lambda: 100.0))
    here.run(request(job_id="short", deadline_s=5), Call(remaining_s=lambda: 100.0))
    assert here.engine.runs[0]["deadline_s"] == pytest.approx(90, abs=1)
    assert here.engine.runs[1]["deadline_s"] == pytest.approx(5, abs=1)


def test_a_job_with_no_time_left_is_not_started(world: Worlds) -> None:
    here = world(deadline_margin_s=10)
    outcome = here.run(request(), Call(remaining_s=lambda: 8.0))
    assert isinstance(outcome.error, DeadlineExceeded)
    assert "DEADLINE_MARGIN_S" in outcome.error.message
    assert here.engine.runs == []


def test_time_that_others_of_the_batch_used_up_is_given_next_time(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=DeadlineExceeded("too slow")))
    late = Call(remaining_s=lambda: 100.0, is_heard=False, is_first=False)
    outcome = here.run(request(), late)
    assert outcome.job.error is not None
    assert outcome.job.error.retryable
    assert not outcome.is_recorded
    own_deadline = here.run(request(deadline_s=5), late)
    assert own_deadline.is_recorded


def test_time_that_the_start_of_the_engine_used_up_is_given_next_time(world: Worlds) -> None:
    cold = FakeEngine(error=DeadlineExceeded("ComfyUI was still starting"), begins=False)
    here = world(engine=cold)
    outcome = here.run(request(), Call(remaining_s=lambda: 100.0, is_heard=False))
    assert not outcome.is_recorded
    cold.begins = True
    assert here.run(request(), Call(remaining_s=lambda: 100.0, is_heard=False)).is_recorded


def test_a_workflow_the_engine_refuses_has_not_run(world: Worlds) -> None:
    here = world(engine=FakeEngine(outputs=(), error=InvalidWorkflow("node 3: width")))
    outcome = here.run(request())
    assert not outcome.has_run
    assert not outcome.is_recorded


def test_every_attempt_has_a_prompt_id_of_its_own(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("it died")))
    here.run(request())
    here.run(request())
    first, second = (run["prompt_id"] for run in here.engine.runs)
    assert first != second


def test_outputs_that_cannot_be_stored_fail_the_job_and_name_the_files(world: Worlds, tmp_path: Any) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    here = world(engine=FakeEngine(outputs=(made("a.png", path=file),)))

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    here.s3.meta.events.register("provide-client-params.s3.PutObject", refuse)
    outcome = here.run(request())
    assert isinstance(outcome.error, DeliveryFailed)
    assert "a.png of node 9" in outcome.error.message
    assert str(file) not in outcome.error.message, "callers read it; the log says where the file is kept"
    assert "s3:PutObject" in outcome.error.message
    assert not outcome.is_recorded
    assert file.exists()


def test_a_file_the_engine_named_but_does_not_have_is_named(world: Worlds, tmp_path: Any) -> None:
    here = world(engine=FakeEngine(outputs=(made("gone.png", path=tmp_path / "gone.png"), made("b.png", index=1))))
    outcome = here.run(request())
    assert isinstance(outcome.error, DeliveryFailed)
    assert "gone.png" in outcome.error.message
    assert [output.name for output in outcome.job.outputs] == ["b.png"]


def test_links_are_not_logged(world: Worlds, caplog: pytest.LogCaptureFixture) -> None:
    failure = NodeExecutionError("403 Forbidden for url: https://x.org/a.png?X-Amz-Signature=secret (see the log)")
    outcome = world(engine=FakeEngine(error=failure)).run(request())
    assert "secret" in str(outcome.error)
    assert vars(caplog.records[-1])["reason"] == "403 Forbidden for url: https://x.org/a.png?… (see the log)"


def test_a_bug_of_ours_is_an_outcome_too(world: Worlds) -> None:
    here = world(engine=FakeEngine(error=KeyError("oops")))
    outcome = here.run(request())
    assert outcome.job.error is not None
    assert outcome.job.error.code == "internal_error"
    assert isinstance(outcome.error, Exception)
    assert isinstance(outcome.error.__cause__, KeyError)


def test_an_outcome_that_cannot_be_told_is_an_outcome_all_the_same(world: Worlds) -> None:
    here = world(engine=FakeEngine(warnings=(5,)))  # type: ignore[arg-type]
    outcome = here.run(request())
    assert (outcome.job.id, outcome.is_recorded) == ("job-1", False)
    assert outcome.job.error is not None
    assert outcome.job.error.code == "internal_error"


def test_a_job_tells_what_its_nodes_took_and_what_it_cost_also_if_it_failed(world: Worlds) -> None:
    error = NodeExecutionError("no")
    error.timings = Timings(5, 90, 95, node_ms={"3": 80, "4": 2}, loading_ms=2, gpu_memory_peak_mb=7000)
    job = world(engine=FakeEngine(error=error), usd_per_second=0.5).run(request()).job
    assert (job.nodes_ms, job.metrics["gpu_memory_peak_mb"]) == ({"3": 80, "4": 2}, 7000)
    assert (job.timings_ms["executing"], job.timings_ms["loading"]) == (90, 2)
    assert job.cost_usd == pytest.approx((job.timings_ms["total"] - job.timings_ms["queued"]) / 1000 * 0.5)
    assert world().run(request(job_id="job-2")).job.cost_usd is None


def test_times_add_up(world: Worlds) -> None:
    job = world().run(request()).job
    assert job.started_at is not None
    assert job.completed_at is not None
    assert job.created_at <= job.started_at <= job.completed_at <= job.expires_at
    assert job.timings_ms["executing"] == 2
    assert job.timings_ms["overhead"] <= job.timings_ms["total"]
    assert (job.metrics["queue_ms"], job.metrics["execution_ms"], job.metrics["gpu_memory_peak_mb"]) == (1, 2, None)
    assert datetime.fromisoformat(job.to_json()["created_at"]).tzinfo is not None
