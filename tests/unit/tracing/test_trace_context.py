"""W3C's Trace Context, as its recommendation has it: what counts as a place in a trace, and what is handed on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.tracing import Trace

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_a_place_is_read_and_handed_on_as_it_came() -> None:
    trace = Trace.of({"Traceparent": PARENT, "TRACESTATE": "a=1,b=2", "cookie": "x"})
    assert trace is not None
    assert (trace.trace_id, trace.span_id) == (TRACE_ID, SPAN_ID)
    assert trace.fields() == {"traceparent": PARENT, "tracestate": "a=1,b=2"}
    assert Trace.of(trace.fields()) == trace


def test_whoever_does_not_keep_the_trace_is_heard() -> None:
    trace = Trace.of({"traceparent": PARENT[:-2] + "00"})
    assert trace is not None
    assert trace.fields() == {"traceparent": PARENT[:-2] + "00"}


def test_of_a_later_version_the_part_that_is_known_counts() -> None:
    for later in (f"01-{TRACE_ID}-{SPAN_ID}-01", f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-will-be-like"):
        trace = Trace.of({"traceparent": later})
        assert trace is not None
        assert trace.traceparent == PARENT


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        7,
        ["00"],
        "00",
        PARENT + "-x",
        PARENT.upper().replace("00-", "00-", 1),
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"01-{TRACE_ID}-{SPAN_ID}-01.x",
        PARENT + "\n" + PARENT,
    ],
)
def test_what_is_none_is_left_out_and_nobody_is_refused(value: Any) -> None:
    assert Trace.of({"traceparent": value}) is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1", "a=1"),
        (" a=1 , , b=2 ", "a=1,b=2"),
        ("x" * 600 + "=1", ""),
        ("no-value", ""),
        ("a=1\r\nX-Admin: 1", ""),
        ("a=ü", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        (None, ""),
        (7, ""),
    ],
)
def test_a_state_that_could_not_be_a_header_is_dropped_alone(state: Any, kept: str) -> None:
    trace = Trace.of({"traceparent": PARENT, "tracestate": state})
    assert trace is not None
    assert trace.tracestate == kept


@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "Traceparent"]), st.text() | st.integers()))
def test_no_text_of_a_caller_breaks_it(fields: dict[str, Any]) -> None:
    trace = Trace.of(fields)
    assert trace is None or trace.traceparent.isascii()
