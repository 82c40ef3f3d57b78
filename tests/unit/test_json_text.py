"""JSON as it comes: whatever surrounds it is taken off, and what is none is refused with the place."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.errors import InvalidRequest, NotJson, PayloadTooLarge
from comfy_serverless.json_text import finite, is_finite, parse_json
from tests.packing import packed

VALUE = {"text": "Füchse 🦊", "list": [1, 2.5, None, True]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_every_encoding_is_read(encoding: str, times: int) -> None:
    content = json.dumps(VALUE, ensure_ascii=False).encode(encoding)
    for _ in range(times):
        content = packed(content)
    assert parse_json(content, source="it") == VALUE


@pytest.mark.parametrize("before", ["\ufeff", "\ufeff\ufeff", " \r\n\ufeff ", "\t\n", "\xa0", "\u200b\n\u2060"])
def test_marks_and_blanks_before_a_text_are_nothing(before: str) -> None:
    assert parse_json(before + json.dumps(VALUE), source="it") == VALUE
    assert parse_json((before + json.dumps(VALUE)).encode(), source="it") == VALUE


@pytest.mark.parametrize("behind", ["\0", "\n\0\0", "\xa0", "\u200b", "\ufeff\r\n"])
def test_marks_blanks_and_zeros_behind_a_text_are_nothing(behind: str) -> None:
    assert parse_json(json.dumps(VALUE) + behind, source="it") == VALUE
    assert parse_json((json.dumps(VALUE) + behind).encode(), source="it") == VALUE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,\n}', "line 2, column 1 (the comma before it is one too many)"),
        ("[1, 2,]", "line 1, column 7 (the comma before it is one too many)"),
        ("{'a': 1}", "column 2 (texts and names stand in double quotes)"),
        ("{“a”: 1}", "straight double quotes"),
        ('{"a": True}', "write true, false or null"),
        ('{"a": None}', "write true, false or null"),
        ('{"a": 1 // one\n}', "JSON has no comments"),
        ("# a\n{}", "JSON has no comments"),
        ("{a: 1}", "double quotes"),
        ('{"a": "x\ny"}', "a line break inside a text is written \\n"),
        ('{"a": [1', "it breaks off"),
        ('{"a": "x', "it breaks off"),
        ('{"a": 1}\n{"b": 2}', "line 2, column 1 (one document is wanted, and more follows it)"),
        ("", "is empty"),
        ("\ufeff \n", "is empty"),
        ("1" * 5000, "more than 4,300 digits"),
        ("```json\n{}\n```", "leave out the ```"),
        ("<html></html>", "it is a web page, or XML"),
        ('{\xa0"a": 1}', "an invisible mark"),
        ("\ufffd\ufffd{", "it is not UTF-8 text, or packed"),
        ("[" * 100_000, "too deeply"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place_and_the_slip(text: str, words: str) -> None:
    with pytest.raises(NotJson) as caught:
        parse_json(text, source="the body")
    assert caught.value.message.startswith("the body is ")
    assert words in caught.value.message


def test_bytes_that_are_no_text_are_called_by_their_name() -> None:
    for content, words in (
        (b"\x89PNG\r\n\x1a\n\xff", "image/png"),
        ('{"a": "ü"}'.encode("cp1252"), "byte 7"),
        (packed(b"{}")[:-4], "breaks off"),
        (b"\x1f\x8b\x08\x00rubbish rubbish", "damaged"),
    ):
        with pytest.raises(NotJson, match=words):
            parse_json(content, source="it")


@pytest.mark.parametrize("packed_bytes", [packed(b"{}"), b"\x28\xb5\x2f\xfd\x20", zlib.compress(b"{}"), b"\xff\xfe{\0"])
def test_what_a_gateway_has_made_a_text_of_is_told_as_packed(packed_bytes: bytes) -> None:
    """API Gateway hands bodies over as text, unless their type or `Content-Encoding` says that they are bytes."""
    with pytest.raises(NotJson, match="packed: save it as UTF-8, and say `Content-Encoding`"):
        parse_json(packed_bytes.decode(errors="replace"), source="it")


@pytest.mark.parametrize("content", [b'{"a": 1}', b'{\n "a": 1}', b'{\r\n"a": 1}', b'[{"a": 1}]', packed(b"{}")])
def test_base64_is_called_so(content: bytes) -> None:
    with pytest.raises(NotJson, match=r"it is base64: send what is in it\)\.$"):
        parse_json(base64.b64encode(content), source="it")


@pytest.mark.parametrize("content", [b'{ "a": 1}', b'[\n{"a": 1}]', b'{"a": "' + 200 * b"x" + b'"}'])
def test_base64_in_lines_is_called_so_too(content: bytes) -> None:
    """As the program `base64` writes it."""
    with pytest.raises(NotJson, match=r"it is base64: send what is in it\)\.$"):
        parse_json(base64.encodebytes(content), source="it")


@pytest.mark.parametrize(
    "text", ["ewok", "eyJ is a word", "W3schools.com", "eyJhbGciOiJIUzI1NiJ9" + "\n" * 1_000_000 + "!"]
)
def test_other_words_are_not_called_base64(text: str) -> None:
    with pytest.raises(NotJson, match="names and texts stand in double quotes"):
        parse_json(text, source="it")


def test_a_bomb_is_unpacked_no_further_than_the_limit() -> None:
    bomb = packed(b" " * 10_000_000) * 3
    with pytest.raises(PayloadTooLarge, match="20,000,000"):
        parse_json(bomb, source="it", most_bytes=20_000_000)


def test_members_of_gzip_are_unpacked_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    given_bytes = []

    class Counted:
        def __init__(self, wbits: int) -> None:
            self._member = plain(wbits=wbits)

        def decompress(self, part: bytes, limit: int) -> bytes:
            given_bytes.append(len(part))
            return self._member.decompress(part, limit)

        def __getattr__(self, name: str) -> object:
            return getattr(self._member, name)

    plain = zlib.decompressobj
    monkeypatch.setattr("comfy_serverless.json_text.zlib.decompressobj", Counted)
    content = packed(b"") * 2_000 + packed(b"[1]")
    assert parse_json(content, source="it") == [1]
    assert len(given_bytes) == 2_001
    assert sum(given_bytes) < 2_001 * 5_000 < sum(range(0, len(content), 20))


def test_what_follows_gzip_is_not_lost_in_silence() -> None:
    assert parse_json(packed(b"[1]") + b"\0" * 512, source="it") == [1]
    with pytest.raises(NotJson, match="something else follows it"):
        parse_json(packed(b"[1]") + b"[2]", source="it")


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_clear_refusal(content: bytes) -> None:
    for given_bytes in (content, b"\x1f\x8b" + content, packed(content)):
        with contextlib.suppress(InvalidRequest):
            parse_json(given_bytes, source="it")


@given(JSON)
def test_what_we_write_is_json_and_the_same_if_it_was(value: object) -> None:
    written = finite(value)
    json.dumps(written, allow_nan=False)
    assert (written is value) == is_finite(value)


def test_numbers_that_json_does_not_have_become_null_or_their_names() -> None:
    value = {"a": [math.nan, math.inf, -math.inf, 1.5]}
    assert finite(value) == {"a": [None, None, None, 1.5]}
    assert finite(value, instead=str) == {"a": ["NaN", "Infinity", "-Infinity", 1.5]}
