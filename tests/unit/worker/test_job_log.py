"""`log.txt` beside a result: of which jobs it is kept, and what is never in it."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.connector.run_log import MAX_CHARACTERS
from comfy_serverless.errors import EngineCrashed, InvalidWorkflow, NodeExecutionError, OutOfMemory
from comfy_serverless.jobs.document import MAX_ERROR_TEXT, JobStatus
from comfy_serverless.jobs.run_log import CUT_AT, log_content, log_lines
from comfy_serverless.setting_values import KeepLogs
from comfy_serverless.worker.worker import Call
from tests.unit.fakes import OUT, FakeEngine, made
from tests.unit.worker.test_worker import Worlds, request

LINES = ("got prompt", "no room on the device")
FAILURE = NodeExecutionError("no room", details={"node_id": "3", "class_type": "KSampler"})


def engine(error: Exception | None = None, lines: tuple[str, ...] = LINES, **fields: Any) -> FakeEngine:
    return FakeEngine(error=error, lines=lines, **fields)


@pytest.mark.parametrize(
    ("keep", "error", "is_kept"),
    [
        ("failed", FAILURE, True),
        ("failed", None, False),
        ("all", FAILURE, True),
        ("all", None, True),
        ("none", FAILURE, False),
        ("none", None, False),
    ],
)
def test_the_log_is_kept_of_the_jobs_that_the_setting_says(
    world: Worlds, keep: str, error: Exception | None, is_kept: bool
) -> None:
    here = world(engine=engine(error), keep_logs=KeepLogs(keep))
    here.run(request())
    assert ("job-1/log.txt" in here.stored_keys()) is is_kept
    if is_kept:
        assert here.stored("job-1/log.txt").decode().splitlines() == list(LINES)


def test_a_node_and_an_output_of_that_name_keep_their_places(world: Worlds) -> None:
    outputs = (made("log.txt", b"an output", node_id="log.txt"), made("log.txt", b"another", node_id="9"))
    here = world(engine=engine(FAILURE, outputs=outputs))
    job = here.run(request()).job
    assert [output.s3_uri for output in job.outputs] == [
        f"s3://{OUT}/job-1/log.txt/log.txt",
        f"s3://{OUT}/job-1/9/log.txt",
    ]
    assert here.stored("job-1/log.txt/log.txt") == b"an output"
    assert here.stored("job-1/9/log.txt") == b"another"
    assert here.stored("job-1/log.txt").decode().splitlines() == list(LINES)


def test_of_a_crash_there_is_what_was_written_until_then(world: Worlds) -> None:
    here = world(engine=engine(EngineCrashed("it died", details={"log_tail": "of others, too"})))
    here.run(request(), Call(is_last_try=True, is_heard=False))
    assert here.stored("job-1/log.txt").decode().splitlines() == list(LINES)


def test_what_is_not_the_last_word_leaves_no_log(world: Worlds) -> None:
    here = world(engine=engine(EngineCrashed("it died")))
    here.run(request())
    assert not any(key.endswith("log.txt") for key in here.stored_keys())


def test_the_log_of_an_earlier_try_is_not_taken_for_that_of_a_success(world: Worlds) -> None:
    first = world(engine=engine(EngineCrashed("it died")))
    first.run(request(), Call(is_last_try=True, is_heard=False))
    assert first.stored("job-1/log.txt") != b""
    second = world(engine=engine(lines=("all is well",)))
    assert second.run(request()).job.status is JobStatus.SUCCEEDED
    assert second.stored("job-1/log.txt") == b""


def test_a_job_that_was_refused_and_wrote_nothing_has_no_log(world: Worlds) -> None:
    here = world(engine=engine(InvalidWorkflow("no such node"), lines=()))
    here.run(request(), Call(is_heard=False))
    assert "job-1/log.txt" not in here.stored_keys()


def test_a_log_that_cannot_be_kept_costs_nothing_else(world: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(engine=engine(FAILURE))
    put = here.s3.put_object

    def refuse(**arguments: Any) -> Any:
        if arguments["Key"].endswith("log.txt"):
            here.s3.head_object(Bucket=OUT, Key="nothing/here")
        return put(**arguments)

    monkeypatch.setattr(here.s3, "put_object", refuse)
    assert here.run(request()).job.error is not None
    assert here.result("job-1")["error"]["code"] == FAILURE.code


def test_a_key_that_a_node_writes_into_its_failure_is_in_no_answer(world: Worlds) -> None:
    key = "comfyui-very-secret-1234"
    details = {"node_id": "3", "class_type": "Partner", "traceback": [f"key={key}\n"], "inputs": {"headers": [key]}}
    error = NodeExecutionError(f"refused: {key}", details=details)
    here = world(engine=engine(error, lines=(f"key is {key}",)))
    job = here.run(request(extra_data={"api_key_comfy_org": key}), Call(is_heard=False)).job
    assert job.error is not None
    assert job.error.message == "refused: …"
    assert (job.error.traceback, job.error.node_id) == ("key=…\n", "3")
    assert job.error.details["inputs"] == {"headers": ["…"]}
    assert key not in job.model_dump_json()
    for name in here.stored_keys():
        assert key.encode() not in here.stored(name)


@pytest.mark.parametrize("before", [MAX_ERROR_TEXT - 12, MAX_ERROR_TEXT // 2 - 12, 0])
def test_nor_is_half_a_key_where_a_long_text_is_cut(world: Worlds, before: int) -> None:
    key = "comfyui-very-secret-1234"
    text = "x" * before + key + "y" * MAX_ERROR_TEXT
    error = NodeExecutionError(text, details={"node_id": "3", "exception": text, "traceback": [text, text]})
    job = world(engine=engine(error)).run(request(extra_data={"api_key_comfy_org": key}), Call(is_heard=False)).job
    assert job.error is not None
    assert "…" in job.error.message
    assert "comfyui-very" not in job.model_dump_json()


def test_a_part_of_our_own_words_that_stands_in_extra_data_changes_no_code(world: Worlds) -> None:
    data = {"mine": ["memory", "Partner", "execution"]}
    error = OutOfMemory("no memory", details={"node_id": "3", "class_type": "Partner"})
    job = world(engine=engine(error)).run(request(extra_data=data), Call(is_heard=False)).job
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.retryable) == ("out_of_memory", "no …", error.retryable)


@pytest.mark.parametrize("inside", [1, 3, 4, 8, 12, 20, 23])
def test_nor_is_half_a_key_where_a_line_is_cut(inside: int) -> None:
    key = "comfyui-very-secret-1234"
    assert MAX_CHARACTERS == CUT_AT
    line = "x" * (CUT_AT - inside) + key[:inside]
    told = log_content((line, key[inside:] + " is what it was", "and more"), extra_data={"mine": key}).decode()
    assert [part for part in (key[:5], key[-5:]) if part in told] == []
    assert told.splitlines()[1:] == [f"{'…' if inside <= 20 else key[inside:]} is what it was", "and more"]
    whole = ("comfyui-", "1234 is here")  # neither is cut
    assert log_content(whole, extra_data={"mine": key}).decode().splitlines() == [*whole]


def test_keys_accounts_folders_and_logins_are_not_in_it() -> None:
    lines = (
        "key is sk-very-secret-1234, again sk-very-secret-1234!",
        "token deep-token-5678",
        "arn:aws:iam::123456789012:role/Generate cannot read /tmp/owners/theirs/model.safetensors",
        "GET https://user:hunter2@example.com/x?X-Amz-Signature=abcdef",
        "\x1b[31mred\x1b[0m \x00bell\x07 tab\there",
        "half a character \ud800",
        "step 12 of 20",
    )
    extra = {
        "api_key_comfy_org": "sk-very-secret-1234",
        "mine": {"list": ["deep-token-5678", 7]},
        "extra_pnginfo": {"workflow": {"note": "step 12 of 20"}},
    }
    told = log_content(lines, extra_data=extra).decode()
    for secret in ("sk-very", "deep-token", "123456789012", "/tmp/owners", "hunter2", "abcdef", "\x1b", "\x00", "\x07"):
        assert secret not in told
    assert "model.safetensors" in told
    assert "tab\there" in told
    assert told.splitlines()[-1] == "step 12 of 20"
    assert log_lines(told.encode()) == told.splitlines()
    assert log_content((), extra_data=None) == b""
    assert log_lines(b"") == []
