"""A manifest in whatever form it lies on the disk: its lines, or what to do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_serverless.batches.manifest_text import in_lines, is_in_lines
from comfy_serverless.cli.batches.manifest import batch_name, opened
from comfy_serverless.errors import InvalidRequest, NotFound
from tests.packing import packed

REQUESTS = [{"workflow": "thumbnail", "set": {"ImageScale.width": width}} for width in (1, 2, 3)]
LINES = "\n".join(map(json.dumps, REQUESTS))


def read(file: Path) -> tuple[list[object], tuple[str, ...]]:
    with opened(file) as manifest:
        return [json.loads(line.content or b"") for line in manifest.lines() if not line.is_blank], manifest.notes


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("a.jsonl", LINES.encode(), ""),
        ("a.jsonl", LINES.replace("\n", "\r\n").encode(), ""),
        ("a.ndjson", f"\n\n{LINES}\n".encode(), ""),
        ("a.jsonl.gz", packed(LINES.encode()), "unpacked"),
        ("a.JSONL", LINES.encode("utf-16"), "not UTF-8"),
        ("a.jsonl.gz", packed(LINES.encode("utf-16-be").join([b"\xfe\xff", b""])), "not UTF-8"),
        ("a.jsonl", LINES.encode("utf-16-le"), "not UTF-8"),
        ("a.jsonl", LINES.encode("utf-32"), "not UTF-8"),
        ("a.json", json.dumps(REQUESTS).encode(), "each request as the line where it begins"),
        ("a.json", json.dumps(REQUESTS, indent=2).encode("utf-32-be"), "each request as the line"),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(REQUESTS, indent=2).encode(), "each request as the line"),
    ],
)
def test_a_manifest_is_read_in_its_usual_forms(tmp_path: Path, name: str, content: bytes, note: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    requests, notes = read(file)
    assert requests == REQUESTS
    assert note in " ".join(notes)
    assert batch_name(file, None) == "a"


def test_lines_have_the_numbers_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"\n{LINES.replace(chr(10), chr(10) * 2)}")
    with opened(file) as manifest:
        assert [line.number for line in manifest.lines() if not line.is_blank] == [2, 4, 6]


@pytest.mark.parametrize(
    ("document", "advice"),
    [
        ({"1": {"class_type": "LoadImage", "inputs": {"image": "x"}}}, "batch run .* --each"),
        ({"nodes": [], "links": []}, "batch run .* --each"),
        ({"prompt": {"1": {"class_type": "A", "inputs": {}}}}, "batch run .* --each"),
    ],
)
def test_one_object_over_many_lines_is_refused_with_what_to_do(tmp_path: Path, document: object, advice: str) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(document, indent=2))
    with pytest.raises(InvalidRequest, match=advice):
        read(file)


def test_requests_over_many_lines_are_those_of_the_lines_where_they_begin(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n\n".join(json.dumps(request, indent=2) for request in REQUESTS))
    begins = [number for number, line in enumerate(file.read_text().splitlines(), start=1) if line == "{"]
    with opened(file) as manifest:
        lines = [line for line in manifest.lines() if not line.is_blank]
    assert [json.loads(line.content or b"") for line in lines] == REQUESTS
    assert [line.number for line in lines] == begins


def test_requests_that_begin_in_one_line_have_lines_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(request, indent=2) for request in REQUESTS))
    requests, notes = read(file)
    assert requests == REQUESTS
    assert "each request as the line where it begins" in notes[0]


def test_requests_of_a_list_are_those_of_the_lines_where_they_begin(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("\n[" + ",\n\n".join(map(json.dumps, REQUESTS)) + "]\n")
    with opened(file) as manifest:
        assert [line.number for line in manifest.lines() if not line.is_blank] == [2, 4, 6]


def test_a_bad_first_line_does_not_make_a_manifest_something_else(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for first in ("{", "[]", "nonsense", '["a"]'):
        file.write_text(f"{first}\n{LINES}")
        with opened(file) as manifest:
            assert (len(list(manifest.lines())), manifest.notes) == (4, ())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"), opened(tmp_path / "none.jsonl"):
        pass
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(packed(LINES.encode())[:-9])
    with pytest.raises(InvalidRequest, match="cannot be unpacked"), opened(file):
        pass
    for name in ("~nosuchuser/x.jsonl", "x" * 300, "a\0b"):
        with pytest.raises(NotFound, match="no file"), opened(Path(name)):
            pass


FORMS = {
    "lines": LINES.encode(),
    "a list": json.dumps(REQUESTS, indent=1).encode(),
    "a list that breaks off": json.dumps(REQUESTS, indent=1).encode()[:-2],
    "pretty": json.dumps(REQUESTS[0], indent=2).encode(),
    "pretty, and broken": json.dumps(REQUESTS[0], indent=2).encode()[:-2],
    "UTF-16 without a mark": LINES.encode("utf-16-be"),
    "UTF-16, cut": b"\xff\xfe\x00",
    "UTF-32 with a mark": LINES.encode("utf-32"),
    "a JPEG": b"\xff\xd8\xff\xe0" + b"\n\xff" * 194,
    "a PNG": b"\x89PNG\r\n\x1a\n\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_is_judged_here_as_where_it_is_dropped(tmp_path: Path, form: str) -> None:
    file, content = tmp_path / "a.jsonl", FORMS[form]
    file.write_bytes(content)

    def told(read: Callable[[], bytes]) -> bytes | str:
        try:
            return read()
        except InvalidRequest as error:
            return error.message

    def here() -> bytes:
        with opened(file) as manifest:
            return manifest.lines_file.read_bytes()

    assert told(here) == told(lambda: content if is_in_lines(content) else in_lines(content, source=str(file)))


def test_what_is_too_large_to_be_read_whole_is_refused_and_lines_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.cli.batches.manifest.MAX_WHOLE_BYTES", 20)
    file = tmp_path / "a.jsonl"
    file.write_text(LINES)
    assert read(file) == (REQUESTS, ())
    file.write_text(json.dumps(REQUESTS))
    with pytest.raises(InvalidRequest, match="up to 20 are read that way"):
        read(file)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("photos.jsonl", "photos"),
        ("photos.jsonl.gz", "photos"),
        ("photos.NDJSON", "photos"),
        ("photos.json", "photos"),
        ("photos", "photos"),
    ],
)
def test_a_batch_is_called_as_its_file(file: str, name: str) -> None:
    assert batch_name(Path(file), None) == name


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="--name"):
        batch_name(Path("with space.jsonl"), None)
    with pytest.raises(InvalidRequest, match=r"orders\.CSV is a table by its name, .* a JSON request in each line"):
        batch_name(Path("orders.CSV"), None)
    with pytest.raises(InvalidRequest, match="--name"):
        batch_name(Path("a.jsonl"), "a/b")


def test_a_manifest_comes_through_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(packed(LINES.encode()))))
    requests, notes = read(Path("-"))
    assert (requests, len(notes)) == (REQUESTS, 1)
    with pytest.raises(InvalidRequest, match="give --name"):
        batch_name(Path("-"), None)
    assert batch_name(Path("-"), "many") == "many"
