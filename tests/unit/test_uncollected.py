"""Reading large JSON: Python searches for no cycles meanwhile, and does so again afterwards."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from comfy_serverless.errors import InvalidRequest, NotJson
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.json_text import parse_json
from comfy_serverless.uncollected import load_json, uncollected
from tests.patience import PATIENCE_S

LISTS = "[" + "[]," * 100_000 + "1]"
MESSAGE = json.dumps({"job": "a", "request": "s3://bucket/key", "content": {"x": json.loads(LISTS)}})
REQUEST = JobRequest.parse({"workflow": {"1": {"class_type": "A", "inputs": {"x": json.loads(LISTS)}}}})


def refusal_of_many_fields() -> InvalidRequest:
    fields = dict.fromkeys(map(str, range(50_000)), 0)
    with pytest.raises(InvalidRequest) as refused:
        JobRequest.parse(fields)
    return refused.value


@pytest.fixture
def searches() -> Iterator[list[str]]:
    """The searches that have begun."""
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            begun.append(phase)

    assert gc.isenabled()
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.callbacks.append(note)
    yield begun
    gc.callbacks.remove(note)
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    "read",
    [
        lambda: load_json(LISTS),
        lambda: parse_json(LISTS, source="x"),
        lambda: JobMessage.parse(MESSAGE),
        REQUEST.digest,
        refusal_of_many_fields,
    ],
    ids=["json", "a document", "a message", "a digest", "a refusal"],
)
def test_a_large_document_is_not_searched_for_cycles_while_it_is_read(
    searches: list[str], read: Callable[[], object]
) -> None:
    json.loads(LISTS)
    assert len(searches) > 100
    searches.clear()
    assert read() is not None
    assert len(searches) < 10, "what lies around it may be"
    assert gc.isenabled()


@pytest.mark.parametrize("text", [LISTS[:-1], "[" * 100_000])
def test_a_text_that_is_no_json_leaves_it_as_it_was(text: str) -> None:
    with pytest.raises(NotJson):
        parse_json(text, source="x")
    assert gc.isenabled()


def test_several_threads_may_read_and_the_last_one_switches_it_on() -> None:
    go_on, is_inside = threading.Event(), threading.Event()

    def read() -> None:
        with uncollected():
            is_inside.set()
            go_on.wait(PATIENCE_S)

    other = threading.Thread(target=read)
    with uncollected():
        other.start()
        assert is_inside.wait(PATIENCE_S)
    assert not gc.isenabled()
    go_on.set()
    other.join(PATIENCE_S)
    assert gc.isenabled()


def test_where_it_is_off_it_stays_off() -> None:
    gc.disable()
    try:
        load_json(LISTS)
        assert not gc.isenabled()
    finally:
        gc.enable()
