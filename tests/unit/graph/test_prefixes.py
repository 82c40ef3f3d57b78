"""What the editor fills in in names of files is filled in without it, too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from comfy_serverless.graph.prefixes import fill_prefixes

NOW = datetime(2026, 3, 7, 14, 5, 9)  # noqa: DTZ001 - the editor uses the local time


def graph(prefix: object, *, saver: str = "SaveImage") -> dict[str, Any]:
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": 42, "cfg": 7.0, "denoise": 0.5, "sampler_name": "a/b:c", "model": ["4", 0], "on": True},
            "_meta": {"title": "My sampler"},
        },
        "9": {"class_type": saver, "inputs": {"filename_prefix": prefix, "images": ["3", 0]}},
    }


@pytest.mark.parametrize(
    ("prefix", "filled"),
    [
        ("%date:yyyy-MM-dd%_x", "2026-03-07_x"),
        ("%date:yy.M.d%", "26.3.7"),
        ("%date:yyy%", "yyy"),
        ("%date:hhmmss%/%date:h-m-s%", "140509/14-5-9"),
        ("%date:yyyy/MM%/a", "2026/03/a"),
        ("%KSampler.seed%_x", "42_x"),
        ("%My sampler.seed%", "42"),
        ("%KSampler.cfg%_%KSampler.denoise%", "7_0.5"),
        ("%KSampler.sampler_name%", "a_b_c"),
        ("%KSampler.on%", "true"),
        ("a %KSampler.seed% b %KSampler.seed%", "a 42 b 42"),
    ],
)
def test_dates_and_values_are_filled_in(prefix: str, filled: str) -> None:
    result, notes = fill_prefixes(graph(prefix), now=NOW)
    assert (result["9"]["inputs"]["filename_prefix"], notes) == (filled, [])


@pytest.mark.parametrize(
    "prefix", ["plain", "%year%-%width%", "100%", "%", "%%", "a%b", "%date:../../x%", "%a.b.c%", 5]
)
def test_everything_else_is_left_to_the_engine(prefix: object) -> None:
    given = graph(prefix)
    assert fill_prefixes(given, now=NOW) == (given, [])


@pytest.mark.parametrize("word", ["Nobody.seed", "KSampler.sede", "KSampler.model"])
def test_what_means_nothing_is_told(word: str) -> None:
    given = graph(f"%{word}%_x")
    result, [note] = fill_prefixes(given, now=NOW)
    assert result == given
    assert f"node 9: %{word}% in filename_prefix is left as it is" in note


def test_a_value_cannot_lead_out_of_the_folder() -> None:
    given = graph("%KSampler.sampler_name%")
    given["3"]["inputs"]["sampler_name"] = "../../etc\\x\n"
    assert fill_prefixes(given, now=NOW)[0]["9"]["inputs"]["filename_prefix"] == ".._.._etc_x_"


def test_the_values_of_other_nodes_are_their_own_business() -> None:
    given = graph("%KSampler.seed%", saver="SaverOfAPack")
    assert fill_prefixes(given, now=NOW) == (given, [])


def test_the_graph_that_was_given_is_not_changed() -> None:
    given = graph("%KSampler.seed%")
    fill_prefixes(given, now=NOW)
    assert given == graph("%KSampler.seed%")
