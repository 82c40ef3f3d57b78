"""Which of ComfyUI's lines are whose: whatever comes late, no line of one run is given to a later one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.connector import run_log
from comfy_serverless.connector.engine_output import EngineOutput
from comfy_serverless.connector.run_log import MAX_CHARACTERS, MAX_LINES, RunLog
from tests.patience import PATIENCE_S

#: As two releases of ComfyUI write it.
LAST = ("Prompt executed in 0.03 seconds", "\x1b[32m[INFO]\x1b[0m \x1b[32mPrompt executed in 00:10:02\x1b[0m")


def see(log: RunLog, *lines: str) -> None:
    for line in lines:
        log.see(line)


@pytest.mark.parametrize("last", LAST)
def test_two_runs_in_line_have_their_own_lines(last: str) -> None:
    log = RunLog()
    log.submitted("a")
    see(log, "a loads")
    log.submitted("b")
    see(log, "a samples", last, "b loads", last, "nobody's")
    assert [line for line in log.take("a") if "executed" not in line] == ["a loads", "a samples"]
    assert [line for line in log.take("b") if "executed" not in line] == ["b loads"]


def test_what_comes_after_the_event_that_ended_a_run_is_not_the_next_ones() -> None:
    log = RunLog()
    log.submitted("a")
    log.begun("a")
    see(log, "a loads")
    assert log.take("a") == ("a loads",)
    log.submitted("b")  # of another owner, while the last line of a is on its way
    see(log, "a is late", LAST[0], "b loads")
    assert log.take("b") == ("b loads",)


def test_a_run_that_executes_has_what_is_written_although_the_one_before_wrote_no_last_line() -> None:
    log = RunLog()
    log.submitted("a")
    log.begun("a")
    log.take("a")
    log.submitted("b")
    see(log, "whose?")
    log.begun("b")
    see(log, "b fails")
    assert log.take("b") == ("b fails",)


def test_a_run_that_pretends_to_have_ended_goes_on_once_it_is_known_to_execute() -> None:
    log = RunLog()
    log.submitted("a")
    see(log, LAST[0])
    log.begun("a")
    see(log, "still here")
    assert log.take("a")[-1] == "still here"


def test_a_prompt_that_was_refused_leaves_the_line_at_once() -> None:
    log = RunLog()
    log.submitted("refused")
    see(log, "invalid prompt")
    assert log.take("refused", was_refused=True) == ("invalid prompt",)
    log.submitted("b")
    see(log, "b loads")
    assert log.take("b") == ("b loads",)


def test_a_crash_leaves_the_lines_until_then_and_a_second_try_adds_its_own() -> None:
    log = RunLog()
    log.submitted("a")
    log.begun("a")
    see(log, "out of memory")
    log.restarted()
    see(log, "Starting server")
    log.submitted("a")
    see(log, "a loads again")
    assert log.take("a") == ("out of memory", "a loads again")


def test_a_long_log_says_how_much_is_left_out() -> None:
    log = RunLog()
    log.submitted("a")
    see(log, *(f"line {number}" for number in range(MAX_LINES + 50)), "x" * 10_000)
    first, *rest = log.take("a")
    assert "51 lines" in first
    assert len(rest) == MAX_LINES
    assert len(rest[-1]) == MAX_CHARACTERS
    assert log.take("a") == ()


@given(st.data())
def test_no_run_has_a_line_of_an_earlier_one(data: st.DataObject) -> None:
    """Runs one after the other, each of another owner; ends and events are heard in time or late, or never."""
    log, late = RunLog(), list[str]()
    for name in ("a", "b", "c", "d"):
        log.submitted(name)
        for line in late:  # what the one before has written, read only now
            log.see(line)
        says_last = data.draw(st.booleans(), label="it writes its last line")
        if data.draw(st.booleans(), label="its events are heard"):
            log.begun(name)
        written = [f"{name} {number}" for number in range(data.draw(st.integers(0, 3)))]
        written += [LAST[0]] * says_last
        in_time = data.draw(st.integers(0, len(written))) if says_last else len(written)
        see(log, *written[:in_time])
        late = written[in_time:]
        taken = log.take(name)
        assert {line[0] for line in taken if line != LAST[0]} <= {name}


# With a pipe.


@contextmanager
def reading(output: EngineOutput) -> Iterator[int]:
    """A pipe that is read as a process's output is."""
    reader, writer = os.pipe()
    thread = threading.Thread(target=output.read, args=(reader, lambda _line: None))
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join(PATIENCE_S)
        os.close(reader)
        assert not thread.is_alive()


def test_what_was_written_before_a_run_began_is_not_its_own_however_late_it_is_read() -> None:
    output = EngineOutput()
    with reading(output) as pipe:
        for number in range(50):
            os.write(pipe, b"another owner's\nand unfinished")
            output.begin_run(f"run-{number}")
            os.write(pipe, f"mine\n{LAST[0]}\n".encode())
            assert output.end_run(f"run-{number}") == ("mine", LAST[0])
    assert output.tail(1) == LAST[0]


def test_a_line_without_an_end_counts_when_the_process_has_ended() -> None:
    output = EngineOutput()
    with reading(output) as pipe:
        output.begin_run("a")
        os.write(pipe, b"bar 1%\rbar 99%\nSegmentation fault")
    assert output.end_run("a") == ("bar 99%", "Segmentation fault")


def test_lines_of_any_length_and_bytes_are_read() -> None:
    output = EngineOutput()
    with reading(output) as pipe:
        output.begin_run("a")
        os.write(pipe, b"x" * 10_000 + b"\n\xff\xfe\n")
        lines = output.end_run("a")
    assert "".join(lines[:-1]) == "x" * (2 * run_log.MAX_CHARACTERS + 10_000 - 2 * 4096)
    assert lines[-1] == "\N{REPLACEMENT CHARACTER}" * 2
