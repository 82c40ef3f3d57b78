"""What lines of a manifest cost that name a workflow."""

from __future__ import annotations

from benchmarks.named_lines import VERSION, OneWorkflow, Reading, by_name, inline, lines_of, peak_bytes, ratio
from comfy_serverless.batches.reading import CHUNK_LINES
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.workflows.finding import Finder


def test_both_lines_ask_for_the_same_job() -> None:
    finder = Finder(OneWorkflow(VERSION), None, lambda: None)
    named = finder.expand(JobRequest.parse(by_name(7)), owner="team", key="1")
    whole = JobRequest.parse(inline(7))
    assert (named.workflow, named.values, named.inputs) == (whole.workflow, whole.values, whole.inputs)


def test_a_line_by_its_name_costs_about_what_one_with_its_graph_does() -> None:
    """It is less: there is less to read, and the check costs some microseconds."""
    assert ratio(2 * CHUNK_LINES) < 3


def test_a_name_is_looked_up_once_for_a_chunk() -> None:
    reading = Reading()
    reading.read(lines_of(by_name, 3 * CHUNK_LINES))
    assert (reading.made, reading.reads) == (3 * CHUNK_LINES, 3)


def test_five_times_the_lines_take_no_more_memory() -> None:
    few, many = (peak_bytes(by_name, count * CHUNK_LINES) for count in (1, 5))
    assert many < few * 1.5
