"""Every line names its job: in the block about it, in its threads, and in the report of a failure that leaves it."""

from __future__ import annotations

import ast
import contextvars
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.sqs import take_each
from comfy_serverless.errors import Kind
from comfy_serverless.observability import MAX_VALUES, Failures, about, emit, emit_failure, log, rename

PACKAGE = Path(__file__).parents[2] / "lambda" / "comfy_serverless"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Returns what has been logged, as it is on AWS."""
    written: list[str] = []
    handler = log.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    stream = handler.stream

    class Stream:
        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    handler.stream = Stream()
    yield lambda: [json.loads(text) for text in "".join(written).splitlines()]
    handler.stream = stream


Lines = Callable[[], list[dict[str, Any]]]


def test_lines_of_a_block_name_its_job_also_those_of_the_connector(lines: Lines) -> None:
    with about("fox"):
        log.info("ours")
        logging.getLogger("comfy_serverless.connector").info("the connector's")
    log.info("later")
    assert [(line["message"], line.get("job_id")) for line in lines()] == [
        ("ours", "fox"),
        ("the connector's", "fox"),
        ("later", None),
    ]


def test_no_traceback_shows_the_password_of_an_address(lines: Lines) -> None:
    try:
        try:
            raise OSError("no answer of http://operator:s3cret@proxy:3128")
        except OSError as error:
            raise ValueError(["user:s3cret@engine:8188", {"at": "https://a:s3cret@bucket"}]) from error
    except ValueError:
        log.exception("it failed")
    [line] = lines()
    assert "s3cret" not in json.dumps(line)
    assert "proxy:3128" in line["exception"]
    assert line["stack_trace"]["type"] == "ValueError"


def test_a_line_that_names_a_job_itself_is_about_that_one(lines: Lines) -> None:
    with about("fox"):
        log.info("another", job_id="hen")
    assert [line["job_id"] for line in lines()] == ["hen"]


def test_a_job_within_a_job_ends_and_the_first_goes_on(lines: Lines) -> None:
    with about("fox"):
        with about("default"):
            rename("hen")
            log.info("renamed")
        log.info("the first")
    assert [line["job_id"] for line in lines()] == ["hen", "fox"]


def test_a_thread_that_outlives_the_block_still_names_the_job(lines: Lines) -> None:
    with about("fox"):
        context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(context.run, log.info, "late").result()
    assert [line["job_id"] for line in lines()] == ["fox"]


def test_the_report_of_a_failure_names_the_job_that_it_left(lines: Lines) -> None:
    def take(_message: Any) -> bool:
        with about("fox"):
            raise ValueError("it went wrong")

    take_each([{"messageId": "1", "body": ""}], take, failing="it comes again")
    with pytest.raises(ValueError, match="wrong"), Failures() as failures, failures.logged("not settled"):
        take({})
    assert [(line["message"], line["job_id"]) for line in lines()] == [
        ("it comes again", "fox"),
        ("not settled", "fox"),
    ]


def test_a_line_says_which_function_wrote_it(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "webhooks")
    log.info("called")
    assert lines()[0]["service"] == "webhooks"


#: Work that logs nothing.
_SILENT = {"os.fsync"}


def begun_threads() -> Iterator[tuple[str, str]]:
    """Where the worker's rooms hand work to another thread, and what they hand over."""
    for path in sorted((PACKAGE / "worker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"submit", "map"}:
                yield f"{path.name}:{node.lineno}", ast.unparse(node.args[0])
            elif node.func.attr == "Thread":
                target = next(word.value for word in node.keywords if word.arg == "target")
                yield f"{path.name}:{node.lineno}", ast.unparse(target)


def test_every_thread_that_works_for_a_job_has_its_context() -> None:
    of_no_job = {"self._watch", "self._run"}  # the watch over the engine, the standing models
    found = dict(begun_threads())
    assert len(found) > 7
    for where, work in found.items():
        assert work.endswith("copy_context().run") or work == "context.run" or work in _SILENT | of_no_job, where


def test_a_metric_is_one_line_with_its_sets_of_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    emit_failure("engine_crashed", Kind.INFRASTRUCTURE)
    (line,) = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    (declared,) = line["_aws"]["CloudWatchMetrics"]
    assert declared["Dimensions"] == [["service", "code"], ["service", "kind"]]
    assert (line["service"], line["code"], line["kind"], line["Failures"]) == (
        "generate",
        "engine_crashed",
        "infrastructure",
        [1.0],
    )


def test_more_values_than_a_line_may_have_take_another(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"Jobs": [1] * (MAX_VALUES + 5), "ColdStart": [1]}, {"service": "comfy_serverless"})
    documents = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [len(document["Jobs"]) for document in documents] == [MAX_VALUES, 5]
    assert ["ColdStart" in document for document in documents] == [True, False]
