"""How workflows, aliases and versions are named."""

from __future__ import annotations

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.workflows.reference import Reference


@pytest.mark.parametrize(
    ("text", "reference", "again"),
    [
        ("poster", Reference("poster"), "poster"),
        ("poster@live", Reference("poster"), "poster"),
        ("poster@staging", Reference("poster", "staging"), "poster@staging"),
        ("poster@3", Reference("poster", None, 3), "poster@3"),
        ("poster@v3", Reference("poster", None, 3), "poster@3"),
        ("poster@0", Reference("poster", None, 0), "poster@0"),
        ("a_b-C9", Reference("a_b-C9"), "a_b-C9"),
    ],
)
def test_a_reference_is_read_and_written(text: str, reference: Reference, again: str) -> None:
    assert Reference.parse(text) == reference
    assert Reference.parse(again) == reference
    assert reference.to_text() == again


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a@",
        "@live",
        "-a",
        "a-",
        "a b",
        "a/b",
        "../a",
        "a" * 65,
        "convert",
        "a@B",
        "a@03",
        "a@1000000",
        "a@b@c",
    ],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Reference.parse(text)
