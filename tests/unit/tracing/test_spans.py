"""Spans, on and off."""

from __future__ import annotations

import contextvars
import threading
from types import SimpleNamespace

import pytest

from comfy_serverless import tracing
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.tracing import spans as module
from tests.patience import PATIENCE_S, QuietClock
from tests.unit.traced_world import Kept
from tests.unit.tracing.test_trace_context import PARENT, SPAN_ID, TRACE_ID

CALLER = tracing.Trace(PARENT, "a=1")


def test_off_a_span_is_nothing_and_the_callers_place_is_handed_on() -> None:
    assert not tracing.is_on()
    assert tracing.current() is None
    with tracing.span("a", parent=CALLER, job_id="x") as span:
        span.set(status="x")
        span.fail("x")
        assert tracing.current() == CALLER
        with tracing.span("b"):
            assert tracing.current() == CALLER
            with tracing.span("c", parent=tracing.Trace(PARENT)):
                assert tracing.current() == tracing.Trace(PARENT)
        assert tracing.current() == CALLER
    assert tracing.current() is None
    tracing.add("d", 0.0, 1.0)
    tracing.flush(0.0)


def test_off_a_failure_passes_and_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), tracing.span("a", parent=CALLER):
        raise KeyError
    assert tracing.current() is None


def test_a_span_is_a_child_of_the_block_around_it_or_of_the_parent_that_is_named(spans: Kept) -> None:
    with tracing.span("outer"), tracing.span("inner"):
        here = tracing.current()
    assert spans.tree() == {"outer": {"inner": {}}}
    assert here is not None
    assert int(here.span_id, 16) == spans.named("inner").context.span_id
    with tracing.span("of the caller", kind=tracing.Kind.SERVER, parent=CALLER):
        below = tracing.current()
    span = spans.named("of the caller")
    assert (span.context.trace_id, span.parent.span_id) == (int(TRACE_ID, 16), int(SPAN_ID, 16))
    assert span.kind.name == "SERVER"
    assert below is not None
    assert (below.trace_id, below.tracestate) == (TRACE_ID, "a=1")


def test_a_root_begins_a_trace_of_its_own_and_says_where_it_comes_from(spans: Kept) -> None:
    with tracing.span("reading"):
        reading = tracing.current()
        with tracing.span("line", is_root=True, links=[reading, None]):
            pass
    line = spans.named("line")
    assert line.parent is None
    assert line.context.trace_id != spans.named("reading").context.trace_id
    assert [link.context.span_id for link in line.links] == [spans.named("reading").context.span_id]


def test_a_failure_is_told_by_its_code_and_never_by_its_words(spans: Kept) -> None:
    with pytest.raises(InvalidWorkflow), tracing.span("a"):
        raise InvalidWorkflow("a SECRET prompt")
    with pytest.raises(KeyError), tracing.span("b"):
        raise KeyError("SECRET")
    for name, code in (("a", "invalid_workflow"), ("b", "KeyError")):
        span = spans.named(name)
        assert not span.status.is_ok
        assert dict(span.attributes or {}) == {"error.type": code}
        assert span.events == ()
    assert "SECRET" not in spans.texts()


def test_facts_are_named_and_cut(spans: Kept) -> None:
    with tracing.span("a", job_id="j", batch_id=None) as span:
        span.set(bytes=7, ratio=0.5, done=True, nothing=None)
    assert dict(spans.named("a").attributes or {}) == {
        "comfy.job_id": "j",
        "comfy.bytes": 7,
        "comfy.ratio": 0.5,
        "comfy.done": True,
    }


def test_what_is_over_is_told_with_its_own_times(spans: Kept) -> None:
    with tracing.span("execute"):
        tracing.add("KSampler", 1_000.5, 1_002.0, node_id="3")
        tracing.add("odd", 5.0, 4.0)
    node = spans.named("KSampler")
    assert (node.start_time, node.end_time) == (1_000_500_000_000, 1_002_000_000_000)
    assert node.parent.span_id == spans.named("execute").context.span_id
    assert spans.named("odd").start_time == spans.named("odd").end_time


def test_threads_are_in_the_trace_that_they_were_given(spans: Kept) -> None:
    def work() -> None:
        with tracing.span("upload"):
            pass

    with tracing.span("job"):
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(work,))
        thread.start()
        thread.join(PATIENCE_S)
        bare = threading.Thread(target=work)
        bare.start()
        bare.join(PATIENCE_S)
    uploads = [span for span in spans.all if span.name == "upload"]
    assert [span.parent is None for span in uploads] == [False, True]


def test_a_trace_that_its_caller_does_not_keep_is_not_kept_here(spans: Kept) -> None:
    with tracing.span("a", parent=tracing.Trace(PARENT[:-2] + "00")):
        below = tracing.current()
        with tracing.span("b"):
            pass
    assert spans.all == []
    assert below is not None
    assert (below.trace_id, below.traceparent[-2:]) == (TRACE_ID, "00")


def test_nobody_waits_long_for_a_collector_and_then_not_again_for_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    event = threading.Event()
    monkeypatch.setattr(module, "_sdk", SimpleNamespace(flush=lambda: event.wait(PATIENCE_S)))
    monkeypatch.setattr(module, "_flusher", None)
    monkeypatch.setattr(module, "_patient_from", 0.0)
    with QuietClock() as clock:
        begun = clock()
        tracing.flush(0.2)
        first = clock() - begun
        for _ in range(100):
            tracing.flush(5.0)
        assert clock() - begun - first < 4.0
    assert [text for text in caplog.messages if "within 0.2 s" in text], "it was waited for, and once"
    assert len(caplog.messages) == 1
    event.set()
    monkeypatch.setattr(module, "_patient_from", 0.0)
    tracing.flush(PATIENCE_S)
    flusher = module._flusher
    assert flusher is not None
    assert not flusher.is_alive(), "it has been waited for"


def test_a_process_without_the_packages_says_so_and_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "comfy_serverless.tracing.sdk", None)
    tracing.begin("http://127.0.0.1:1", service="x")
    assert not tracing.is_on()
    assert "pip install '.[tracing]'" in caplog.text
    tracing.begin(None, service="x")
    assert not tracing.is_on()
