"""What a report says of each line, in its table and in its rows, and what is run again of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.batches import report as report_module
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.cure import is_curable
from comfy_serverless.batches.report import COLUMNS
from comfy_serverless.batches.results import Results, Row
from comfy_serverless.batches.retry import Retry, Selection
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound, all_errors
from comfy_serverless.jobs.document import Job, JobError, Output
from comfy_serverless.table.job_item import MAX_OUTPUT_NAMES_BYTES
from tests.unit.batch_world import ASSETS, GRAPH, RESULTS, World, ended, manifest
from tests.unit.jobs_table import aws

#: The columns of the last release, which people read by their position.
LAST_COLUMNS = ["line", "job_id", "status", "code", "message", "result", "duplicate_of"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def line(number: int, **fields: Any) -> str:
    return json.dumps({"workflow": GRAPH, "job_id": f"job-{number}", "set": {"1.width": number}, **fields})


def finish(world: World, job_id: str, *, outputs: int = 0, error: ComfyError | None = None, name: str = "a b") -> Job:
    """End a job as its worker does, with so many outputs."""
    folder = f"s3://{RESULTS}/{job_id}/"
    made = tuple(output(job_id, f"{folder}2/{name}_{number}.png", number) for number in range(outputs))
    job = ended(job_id, JobError.of(error) if error else None).model_copy(
        update={"outputs": made, "result_uri": f"{folder}result.json"}
    )
    state = world.jobs.begin(job_id, run="run").state
    assert state is not None
    world.jobs.put_outputs(state, list(enumerate(made)), run="run")
    assert world.jobs.finish(job_id, job, run="run", webhook=False, places=range(outputs))
    return job


def output(job_id: str, uri: str, number: int) -> Output:
    name = uri.rpartition("/")[2]
    return Output(
        node_id="2",
        name=name,
        type="image",
        content_type="image/png",
        size_bytes=1,
        id=f"{job_id}-{number}",
        job_id=job_id,
        s3_uri=uri,
        sha256="0" * 64,
    )


def done(world: World, content: str, **outputs: int) -> Batch:
    batch = world.begin(content.encode())
    world.read_all()
    for state in world.open_jobs(batch):
        finish(world, state.id, outputs=outputs.get(state.id.replace("-", "_"), 1))
    return world.look(batch)


def test_the_table_and_the_rows_say_labels_inputs_times_and_every_output(world: World) -> None:
    content = "\n".join(
        [
            line(1, metadata={"sku": "A-1", "colour": "grün"}, inputs={"LoadImage.image": "photos/1 ü.jpg"}),
            "",
            line(2, metadata={"sku": "A-2"}, inputs={"LoadImage.image": ["a.png", "b.png"], "9.mask": "m.png"}),
            line(3),
        ]
    )
    batch = done(world, content, job_2=3, job_3=0)
    results = Results.of(world.s3, batch)
    first, second, third = results.rows()
    assert (first.line, second.line, third.line) == (1, 3, 4)
    assert (first.metadata, first.inputs) == ({"sku": "A-1", "colour": "grün"}, {"LoadImage.image": "photos/1 ü.jpg"})
    assert second.inputs == {"LoadImage.image": ["a.png", "b.png"], "9.mask": "m.png"}
    assert second.outputs == tuple(f"s3://{RESULTS}/job-2/2/a b_{number}.png" for number in range(3))
    assert (third.outputs, third.metadata, third.inputs) == ((), {}, {})
    for row in (first, second, third):
        assert datetime.fromisoformat(row.created_at) <= datetime.fromisoformat(row.completed_at) <= datetime.now(UTC)
    header, *cells = table(world, results)
    more = ["metadata.sku", "metadata.colour", "inputs.LoadImage.image", "inputs.9.mask"]
    assert header == [*COLUMNS, *more]
    assert header[: len(LAST_COLUMNS)] == LAST_COLUMNS
    named = [dict(zip(header, row, strict=True)) for row in cells]
    assert [row["outputs"].split("\n") for row in named] == [list(first.outputs), list(second.outputs), [""]]
    assert [row["metadata.sku"] for row in named] == ["A-1", "A-2", ""]
    assert [row["inputs.LoadImage.image"] for row in named] == ["photos/1 ü.jpg", "a.png\nb.png", ""]
    assert [row["result"] for row in named] == [f"s3://{RESULTS}/job-{number}/result.json" for number in (1, 2, 3)]


def table(world: World, results: Results) -> list[list[str]]:
    place = results.address_of(".report.csv")
    text = world.s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read().decode()
    return list(csv.reader(io.StringIO(text)))


HOSTILE = ["=cmd|'/c calc'!A1", "+1+HYPERLINK(0)", "-2+3", "@SUM(A1)", "\t=1", " =1", "\r=1", "\n=1", "＝1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_have_written_is_no_formula_in_the_table(world: World, text: str) -> None:
    batch = world.begin(line(1, metadata={"a": text, "seed": "-12.5e3", "plain": "a=b"}, inputs={"x": text}).encode())
    world.read_all()
    finish(world, "job-1", error=InvalidRequest(text))
    results = Results.of(world.s3, world.look(batch))
    header, cells = table(world, results)
    named = dict(zip(header, cells, strict=True))
    for name in ("message", "metadata.a", "inputs.x"):
        assert named[name] in (f"'{text}", f"'{text.strip()}"), name
    assert (named["metadata.seed"], named["metadata.plain"]) == ("-12.5e3", "a=b")
    (row,) = results.rows()
    assert row.inputs["x"] in (text, text.strip()), "the rows for programs have it as it is"


def test_outputs_that_a_jobs_item_does_not_say_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = world.begin("\n".join([line(1), line(2), line(3)]).encode())
    world.read_all()
    finish(world, "job-1", outputs=2)
    finish(world, "job-2", outputs=40, name="x" * (MAX_OUTPUT_NAMES_BYTES // 40))  # too many to be said there
    monkeypatch.setattr("comfy_serverless.table.jobs.named_outputs", lambda _job: None)  # as the last release
    finish(world, "job-3", outputs=2)
    rows = list(Results.of(world.s3, world.look(batch)).rows())
    assert [len(row.outputs) for row in rows] == [2, 40, 2]
    assert all(uri.startswith(f"s3://{RESULTS}/{row.job_id}/2/") for row in rows for uri in row.outputs)


def test_parts_in_the_form_of_the_last_release_are_written_anew(world: World) -> None:
    batch = world.begin(("\n" + line(1, metadata={"a": "b"})).encode())
    world.read_all()
    finish(world, "job-1")
    key = f"requests/batches/{batch.id}/{0:015}.jsonl"
    world.s3.put_object(Bucket=ASSETS, Key=key, Body=b'["job-1", "succeeded", "", "", "s3://a/b", null]\n')
    item = world.table.get(f"batch#{batch.id}", f"range#{0:015}")
    assert item is not None
    world.table.put({**item, "is_told": True})
    (row,) = Results.of(world.s3, world.look(batch)).rows()
    assert (row.line, row.metadata) == (2, {"a": "b"})


def test_labels_beyond_the_columns_are_in_the_rows_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_COLUMNS", 2)
    labels = {"a": "1", "b": "2", "c": "3"}
    results = Results.of(world.s3, done(world, line(1, metadata=labels)))
    assert table(world, results)[0] == [*COLUMNS, "metadata.a", "metadata.b"]
    assert results.summary()["columns_left_out"] == 1
    (row,) = results.rows()
    assert row.metadata == labels


def test_a_file_in_an_input_is_not_in_the_report(world: World) -> None:
    picture = "data:image/png;base64," + "A" * 100_000
    results = Results.of(world.s3, done(world, line(1, inputs={"LoadImage.image": picture})))
    (row,) = results.rows()
    assert row.inputs == {"LoadImage.image": f"{picture[:100]}…"}


@pytest.mark.parametrize("content", [b"nonsense\n{\n", b"1", b"\n\n# a\n"])
def test_a_manifest_without_a_request_ends_as_failed(world: World, content: bytes) -> None:
    batch = world.begin(content)
    world.read_all()
    batch = world.look(batch)
    assert batch.status is BatchStatus.FAILED
    results = Results.of(world.s3, batch)
    summary = results.summary()
    assert (summary["status"], summary["lines"]) == ("failed", summary["bad_lines"])
    assert list(results.bad_lines()) == [part for part in content.split(b"\n") if part]
    item = world.table.get(f"batch#{batch.id}", "batch")
    assert item is not None
    assert item["status"] == "completed", "the last release knows no other"
    assert world.batches.all(limit=5) == [batch]


def test_a_batch_that_has_not_ended_has_no_results(world: World) -> None:
    with pytest.raises(NotFound, match="has not ended"):
        Results.of(world.s3, world.begin(manifest(1)))


def test_a_report_of_the_last_release_is_read_from_its_table(world: World) -> None:
    rows = [
        '1,a,failed,node_execution_error,"no, not\nthis",s3://x/a/result.json,',
        "3,b,succeeded,,,s3://x/b,",
        "4,a,failed,node_execution_error,no,s3://x/a,1",
    ]
    for ending, text in {
        "csv": "\r\n".join([",".join(LAST_COLUMNS), *rows, ""]).replace("\r\nthis", "\nthis"),
        "json": "{}",
    }.items():
        world.s3.put_object(Bucket=RESULTS, Key=f"batches/b.report.{ending}", Body=text.encode())
    world.s3.put_object(Bucket=RESULTS, Key="batches/b.failed.jsonl", Body=b'{"job_id": "a-again2"}\n')
    from comfy_serverless.aws.s3 import S3Address

    results = Results(world.s3, S3Address(RESULTS, "batches/b.report.json"))
    first, second, third = results.rows()
    assert (first.line, first.code, first.message, first.duplicate_of) == (
        1,
        "node_execution_error",
        "no, not\nthis",
        None,
    )
    assert (second.line, second.code, third.duplicate_of) == (3, "", 1)
    assert [(row.line, again) for row, again in results.again()] == [(1, b'{"job_id": "a-again2"}')]


def test_a_row_is_read_as_it_was_written_with_fields_more_and_fewer() -> None:
    row = Row(
        line=3, job_id="a", status="failed", code="out_of_memory", message="m", retryable=True, outputs=("s3://a",)
    )
    stored = json.loads(json.dumps(row.to_json()))
    assert Row.parse(stored) == Row.parse({**stored, "of_tomorrow": 1}) == row
    assert Row.parse({"line": 1}) == Row(line=1)


FAILURES = {
    "node_execution_error": False,
    "invalid_request": False,
    "invalid_workflow": False,
    "missing_asset": False,
    "deadline_exceeded": True,
    "out_of_memory": True,
    "engine_crashed": True,
    "delivery_failed": True,
    "internal_error": True,
}


def test_what_another_try_cures() -> None:
    assert {code: is_curable("failed", code, retryable=False) for code in FAILURES} == FAILURES
    assert all(is_curable("failed", kind.code, retryable=True) for kind in all_errors() if kind.code)
    assert is_curable("canceled", "canceled", retryable=False)
    assert is_curable("expired", "job_expired", retryable=True)
    assert not is_curable("bad", "invalid_request", retryable=False)
    assert not is_curable("succeeded", "", retryable=False)


def rows_again() -> list[tuple[Row, bytes]]:
    codes = ["node_execution_error", "out_of_memory", "deadline_exceeded", "out_of_memory"]
    failed = [Row(line=2 * at, status="failed", code=code) for at, code in enumerate(codes, 1)]
    return [(row, str(row.line).encode()) for row in [*failed, Row(line=10, status="canceled", code="canceled")]]


@pytest.mark.parametrize(
    ("selection", "chosen", "left_out"),
    [
        ("curable", [4, 6, 8, 10], {"node_execution_error: the same line would fail again": 1}),
        ("all", [2, 4, 6, 8, 10], {}),
        ("failed", [2, 4, 6, 8], {"canceled: not asked for": 1}),
        ("canceled, 2", [2, 10], {"out_of_memory: not asked for": 2, "deadline_exceeded: not asked for": 1}),
        ("3-6,10", [4, 6, 10], {"node_execution_error: not asked for": 1, "out_of_memory: not asked for": 1}),
    ],
)
def test_what_is_run_again_is_chosen_and_what_is_left_out_has_a_reason(
    selection: str, chosen: list[int], left_out: dict[str, int]
) -> None:
    retry = Retry(Selection.parse(selection))
    assert [int(line) for line in retry.lines(rows_again(), bad_lines=0)] == chosen
    assert (retry.count, dict(retry.left_out)) == (len(chosen), left_out)


def test_bad_lines_are_left_out_with_what_to_do() -> None:
    retry = Retry(Selection.parse())
    assert len(list(retry.lines(rows_again(), bad_lines=7))) == 4
    assert retry.left_out["no request: mend them and submit those lines"] == 7


@pytest.mark.parametrize(
    ("text", "hint"), [("out_of_memry", "out_of_memory"), ("retryable", "curable"), ("1-x", "docs")]
)
def test_a_selection_that_means_nothing_is_refused(text: str, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint):
        Selection.parse(text)


def test_the_docs_name_every_column_in_its_order() -> None:
    text = Path("docs/batches.md").read_text(encoding="utf-8")
    sentence = text.partition("The table has, in this order: ")[2].partition("Behind them")[0]
    assert re.findall(r"`([a-z_]+)`", sentence) == [*COLUMNS]
