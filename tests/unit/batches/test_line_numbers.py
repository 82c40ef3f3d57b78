"""A line has one number, that of the file, in the report, the status, the failures and the retry."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches.ranges import Range, first_lines
from comfy_serverless.batches.results import Results
from tests.unit.batch_world import GRAPH, World
from tests.unit.jobs_table import aws


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def request(number: int) -> bytes:
    return json.dumps({"workflow": GRAPH, "set": {"1.width": number}, "metadata": {"n": str(number)}}).encode()


def is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r\xef\xbb\xbf")


def numbered(manifest: bytes) -> dict[int, bytes]:
    """The lines that are not blank, as a plain splitter numbers them."""
    return {number: line for number, line in enumerate(manifest.split(b"\n"), 1) if not is_blank(line)}


def some_manifest(chance: random.Random, *, lines: int) -> bytes:
    """Lines of all kinds, in any order; with a BOM, other ends and no last end, or not."""
    kinds: list[Callable[[int], bytes]] = [
        lambda number: request(number),
        lambda number: request(number) + b"\r",
        lambda number: b"",
        lambda number: b"  \t",
        lambda number: b"\r",
        lambda number: b"# a comment",
        lambda number: b"// another",
        lambda number: b'{"workflow": ' + b"x" * chance.randrange(400),
        lambda number: request(0),
    ]
    found = [chance.choice(kinds)(number) for number in range(1, lines)]
    return (
        chance.choice([b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
        + b"\n".join(found)
        + chance.choice([b"", b"\n", b"\n\n"])
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_line_has_the_number_that_a_plain_splitter_gives_it(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", chance.choice([70, 300, 10**6]))
    monkeypatch.setattr(reading_module, "CHUNK_LINES", chance.choice([1, 3, 50]))
    manifest = some_manifest(chance, lines=25)
    expected = numbered(manifest)
    batch = world.begin(manifest)
    world.read_all()
    bad: dict[int, str] = {}
    for one in world.batches.bad_lines(batch.id):
        assert one.line is not None
        bad[one.line] = one.message
    world.work(failing=3)
    done = world.look(batch)
    summary, rows, _ = world.report(batch)
    assert [int(row["line"]) for row in rows] == list(expected)
    assert bad == {int(row["line"]): row["message"] for row in rows if row["status"] == "bad"}
    assert {entry["line"] for entry in summary["first_failures"]} <= set(expected)
    results = Results.of(world.s3, done)
    assert [row.line for row in results.rows()] == list(expected)
    for row in results.rows():
        line = expected[row.line].strip(b"\r\xef\xbb\xbf")
        assert row.status == "bad" or json.loads(line)["metadata"] == row.metadata
    for row, again in results.again():
        assert json.loads(again)["metadata"] == json.loads(expected[row.line].strip(b"\r\xef\xbb\xbf"))["metadata"]
    assert list(results.bad_lines()) == [expected[number] for number in sorted(bad)]


def test_a_bad_line_has_its_number_once_all_before_it_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 300)
    manifest = b"\n".join([request(1), b"", *map(request, range(2, 9)), b"nonsense"])
    batch = world.begin(manifest)
    starts = [part.start for part in world.batches.ranges(batch.id)]
    for start in reversed(starts[1:]):
        world.keeper.read(batch.id, start, until=float("inf"))
    assert [one.line for one in world.batches.bad_lines(batch.id)] == [None]
    world.keeper.read(batch.id, 0, until=float("inf"))
    assert [one.line for one in world.batches.bad_lines(batch.id)] == [10]
    assert "line 1" not in next(world.batches.bad_lines(batch.id)).message, "the number of the line is another"


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(counts=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), max_size=6))
def test_the_first_line_of_a_range_is_known_as_soon_as_all_before_are_counted(
    counts: list[tuple[int, bool, bool]],
) -> None:
    ranges = [
        Range(start=10 * at, end=10 * at + 10, offset=10 * at + (10 if is_read else 5), begun=begun if known else None)
        for at, (begun, is_read, known) in enumerate(counts)
    ]
    for at, first in enumerate(first_lines(ranges)):
        before = counts[:at]
        is_known = all(is_read and known for _, is_read, known in before)
        assert first == (1 + sum(begun for begun, _, _ in before) if is_known else None)
