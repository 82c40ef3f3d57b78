"""Manifests that have no request a line: read as if they had, or refused as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from comfy_serverless.batches import manifest_text as module
from comfy_serverless.batches.manifest_text import HEAD_BYTES, in_lines, is_in_lines
from comfy_serverless.errors import InvalidRequest
from tests.packing import packed
from tests.unit.batch_world import GRAPH, RESULTS, World
from tests.unit.jobs_table import aws

REQUEST = {"workflow": GRAPH, "metadata": {"says": "a\nb, ü"}}
ONE = json.dumps(REQUEST, ensure_ascii=False)
PRETTY = json.dumps(REQUEST, indent=2, ensure_ascii=False)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def requests_in(content: bytes) -> dict[int, object]:
    """The requests of a manifest by their lines."""
    lines = in_lines(content, source="it").decode().split("\n")
    return {number: json.loads(line) for number, line in enumerate(lines, 1) if line.strip()}


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{ONE}\n",
        f"{ONE}\r\n\r\n{ONE}",
        f"{ONE},\n{ONE},\n",
        f"[{ONE}]\n[{ONE}]\n",
        f'{{"a" 1}}\n{ONE}\n',
        f"{ONE[:-1]}\n{ONE}\n",
        "hello\nworld\n",
        "",
        "\n\n",
        ONE,
        "{" + " " * HEAD_BYTES + "}",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lines_good_or_bad_are_left_as_they_are(text: str, encoding: str) -> None:
    assert is_in_lines(text.encode(encoding)[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"[\n{ONE},\n\n{ONE}\n]\n", [2, 4]),
        (f"[\n{ONE},\n{ONE},\n]", [2, 3]),
        (f"[{ONE}, {ONE}]", [1, 2]),
        (PRETTY, [1]),
        (f"{PRETTY}\n{PRETTY}", [1, PRETTY.count("\n") + 2]),
        (f"\n\n{PRETTY},\n{ONE}\n", [3, PRETTY.count("\n") + 4]),
        (json.dumps([REQUEST, REQUEST], indent=4), None),
        ("[]", []),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gzip"])
def test_each_request_becomes_the_line_where_it_begins(text: str, lines: list[int] | None, encoding: str) -> None:
    content = packed(text.encode()) if encoding == "gzip" else text.replace("\n", "\r\n").encode(encoding)
    assert not is_in_lines(content[:HEAD_BYTES])
    found = requests_in(content)
    assert all(request == REQUEST for request in found.values())
    assert lines is None or list(found) == lines


def test_utf_16_that_is_in_lines_keeps_them() -> None:
    content = f"{ONE}\r\nbad\r\n\r\n{ONE}".encode("utf-16")
    assert not is_in_lines(content)
    assert in_lines(content, source="it").decode().split("\r\n") == [ONE, "bad", "", ONE]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PRETTY[:-5].encode(), "breaks off"),
        (f"[\n{ONE},\n".encode(), "breaks off"),
        (f"[\n{ONE}\n]\n[\n{ONE}\n]".encode(), "more follows its end, from line 4 on"),
        (f"[\n{ONE}\n]\n{ONE}".encode("utf-16"), "more follows its end, from line 4 on"),
        (packed(f"[{ONE}] x".encode()), "more follows its end, from line 1 on"),
        (PRETTY.replace('"metadata"', "'metadata'").encode(), "double quotes"),
        (b"\x89PNG\r\n\x1a\n\xff", "image/png"),
        (packed(ONE.encode())[:-9], "breaks off"),
        (packed(b" " * 20_000_000), "unpacked"),
    ],
)
def test_what_is_no_manifest_is_refused_as_a_whole_with_the_way_out(content: bytes, words: str) -> None:
    assert not is_in_lines(content[:HEAD_BYTES])
    with pytest.raises(InvalidRequest, match=words) as caught:
        in_lines(content, source="the manifest")
    assert "one request a line" in caught.value.message


def test_a_list_that_is_dropped_is_a_batch(world: World) -> None:
    other = {**REQUEST, "metadata": {"n": "2"}}
    batch = world.begin(json.dumps([REQUEST, other], indent=1).encode("utf-16"))
    world.read_all()
    assert len(world.work()) == 2
    assert world.look(batch).status == "completed"


def test_a_drop_that_is_no_manifest_is_one_failed_job_and_no_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WHOLE_BYTES", 500)
    for content, words in ((PRETTY[:-5].encode(), "breaks off"), (json.dumps([REQUEST] * 9).encode(), "up to 500")):
        dropped = world.drop("batches/many.jsonl", content)
        world.drops.drop(dropped)
        assert world.batches.get(dropped.default_id) is None
        body = world.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read()
        error = json.loads(body)["error"]
        assert (error["code"], words in error["message"]) == ("invalid_request", True)
    assert world.messages("manifests") == []
