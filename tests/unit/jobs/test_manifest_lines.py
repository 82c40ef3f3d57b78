"""Lines of manifests: cut out of any stream, owned by one range each, and named by what they say."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs import lines as module
from comfy_serverless.jobs.lines import Line, lines_in_range, lines_of, ranges_of
from comfy_serverless.jobs.stored_request import request_of

CONTENTS = st.lists(st.binary(max_size=12).map(lambda some: some.replace(b"\n", b" ")), max_size=20)


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[first : first + size] for first in range(0, len(content), size)]


@settings(deadline=None)
@given(contents=CONTENTS, ends=st.booleans(), size=st.integers(1, 30))
def test_lines_are_the_same_however_the_stream_is_cut(contents: list[bytes], ends: bool, size: int) -> None:
    manifest = b"\n".join(contents) + (b"\n" if ends else b"")
    expected = manifest.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = list(lines_of(cut(manifest, size)))
    assert [line.content for line in found] == expected
    assert all(manifest[line.offset :][: line.length] == line.content for line in found)


@settings(deadline=None)
@given(contents=CONTENTS, step=st.integers(1, 40), size=st.integers(1, 30))
def test_each_line_is_in_one_range(contents: list[bytes], step: int, size: int) -> None:
    manifest = b"\n".join(contents)
    whole = list(lines_of([manifest]))
    ranges = ranges_of(len(manifest), step_bytes=step)
    found: list[Line] = []
    for start, end in ranges:
        here = list(lines_in_range(cut(manifest[max(0, start - 1) :], size), start=start, end=end))
        found += [replace(line, number=len(found) + line.number) for line in here]
    assert found == whole
    assert [line.number for line in found] == list(range(1, len(found) + 1))


def test_a_line_too_long_is_told_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 10)
    found = list(lines_of(cut(b"short\n" + b"x" * 1000 + b"\nlast", 7)))
    assert found == [Line(0, 5, b"short", 1), Line(6, 1000, None, 2), Line(1007, 4, b"last", 3)]
    with pytest.raises(InvalidRequest, match="1,000 bytes"):
        request_of(found[1])


def test_memory_does_not_grow_with_the_manifest() -> None:
    def stream(lines: int) -> Iterator[bytes]:
        chunk = b"\n".join(b'{"workflow": {"1": {"class_type": "X", "inputs": {}}}}' for _ in range(100)) + b"\n"
        for _ in range(lines // 100):
            yield bytes(bytearray(chunk))

    def peak(lines: int) -> int:
        tracemalloc.start()
        count = sum(1 for _ in lines_of(stream(lines)))
        assert count == lines
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2_000)
    assert peak(40_000) < 1.3 * peak(2_000)


def request(**fields: object) -> dict[str, object]:
    return {"workflow": "thumbnail", **fields}


def line(document: object) -> Line:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Line(0, len(content), content)


def test_the_same_line_is_the_same_job_whatever_the_order_of_its_fields() -> None:
    first = request_of(line(b'{"workflow": "thumbnail", "set": {"a.b": 1}}')).job_id
    assert first == request_of(line(b' {"set":{"a.b":1},"workflow":"thumbnail"}\r')).job_id
    assert first != request_of(line(b'{"workflow": "thumbnail", "set": {"a.b": 2}}')).job_id
    assert request_of(line(request(job_id="mine"))).job_id == "mine"
    assert (
        request_of(line(b"\xef\xbb\xbf" + json.dumps(request()).encode())).job_id == request_of(line(request())).job_id
    )


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"1", b'"x"', b"\xff\xfe", b"[" * 5000, b"9" * 5000, b'{"workflow": 1}', b'{"surprise": 1}'],
)
def test_what_is_no_request_is_told(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_of(line(content))
