"""The document of a version."""

from __future__ import annotations

import dataclasses
import json

import pytest

from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.version import NamedInput, NamedOutput, Version

SEED = NamedInput(
    name="seed", targets=("3.seed",), kind=InputKind.INTEGER, role=Role.SEED, default=0, minimum=0, maximum=2**64 - 1
)
STYLE = NamedInput(
    name="style", targets=("6.text", "7.text"), kind=InputKind.CHOICE, choices=("a", "b"), is_open=True, title="Style"
)
VERSION = Version(
    name="poster",
    number=3,
    owner="alice",
    graph={"3": {"class_type": "KSampler", "inputs": {"seed": 1}}},
    editors={"nodes": []},
    rolled={"6.text": "{red|blue}"},
    inputs=(SEED, STYLE),
    outputs=(NamedOutput(name="picture", node_id="9"),),
    needs={"models": []},
    note="wider",
    created_at="2026-11-29T22:00:00Z",
    created_by="ci",
    release="blue",
)


def test_a_version_comes_back_as_it_was() -> None:
    assert Version.parse(VERSION.to_bytes(), source="it") == VERSION
    assert NamedInput.from_json(SEED.to_json()).minimum == 0


def test_what_a_newer_release_adds_is_ignored_and_what_is_missing_has_its_default() -> None:
    document = {"format": 2, "name": "p", "number": 1, "graph": {}, "mood": "good"}
    document["inputs"] = [{"name": "x", "targets": ["1.x"], "kind": "hologram", "role": "oracle", "depth": 3}]
    read = Version.parse(json.dumps(document).encode(), source="it")
    assert read.inputs == (NamedInput(name="x", targets=("1.x",), kind=InputKind.OTHER),)
    assert (read.owner, read.editors, read.outputs) == ("", None, ())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"name": "p", "number": 1}', b'{"name": 1, "graph": {}}'])
def test_what_is_no_version_is_refused_with_its_place(content: bytes) -> None:
    with pytest.raises(ComfyError, match="the version in S3"):
        Version.parse(content, source="the version in S3")


def test_the_content_is_what_it_runs_and_takes_not_who_made_it_when() -> None:
    assert dataclasses.replace(VERSION, number=4, note="", created_by="").content_sha256 == VERSION.content_sha256
    assert dataclasses.replace(VERSION, inputs=(SEED,)).content_sha256 != VERSION.content_sha256
