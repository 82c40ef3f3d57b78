"""Every job writes into its own folder."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.worker.job_folder import folder_of, in_own_folder


def graph(prefix: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


@pytest.mark.parametrize("prefix", ["ComfyUI", "today/fox", "a..b", "%date:yyyy%/x", 7])
def test_savers_write_below_the_folder_of_the_job(prefix: object) -> None:
    own = in_own_folder(graph(prefix), "job-1")
    assert own["2"]["inputs"]["filename_prefix"] == f"{folder_of('job-1')}/{prefix}"


@pytest.mark.parametrize("prefix", ["", ".", "./"])
def test_a_prefix_without_a_name_does_not_take_the_name_of_the_folder(prefix: str) -> None:
    assert in_own_folder(graph(prefix), "job-1")["2"]["inputs"]["filename_prefix"] == f"{folder_of('job-1')}/ComfyUI"


@pytest.mark.parametrize("prefix", [{"__value__": "../x"}, ["a"], None])
def test_a_prefix_that_is_no_text_is_refused(prefix: object) -> None:
    with pytest.raises(InvalidWorkflow, match="Node 2: filename_prefix is no text"):
        in_own_folder(graph(prefix), "job-1")


def test_previews_are_made_anew_and_everything_else_stays_as_it_was() -> None:
    before = graph("x")
    first, second = in_own_folder(before, "job-1"), in_own_folder(before, "job-2")
    assert first["3"] != second["3"], "else the second job would be shown the first one's file"
    assert first["1"] == second["1"] == before["1"]
    assert before == graph("x"), "the caller's graph is not changed"


def test_a_prefix_that_comes_from_another_node_is_left_alone() -> None:
    assert in_own_folder(graph(["1", 0]), "job-1")["2"]["inputs"]["filename_prefix"] == ["1", 0]


@pytest.mark.parametrize("prefix", ["../other-job/x", "a/../../b", "/etc/x", "..\\x", ".."])
def test_a_prefix_that_leads_out_of_the_folder_is_refused_and_named(prefix: str) -> None:
    with pytest.raises(InvalidWorkflow, match=r"Node 2.*leads out of the job's output folder"):
        in_own_folder(graph(prefix), "job-1")
