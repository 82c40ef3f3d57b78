"""Forms as clients make them come back as they were put in; damaged ones are refused, and never a failure."""

from __future__ import annotations

import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from comfy_serverless.api.body_reader import Malformed, Part, parts_of

#: Names without what clients write in a way of their own: quotes, line breaks, backslashes and the percent sign.
NAMES = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters='"\\%'), min_size=1, max_size=40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TYPES = st.sampled_from(["image/png", "application/octet-stream", "text/plain; charset=utf-8"])
FILES = st.tuples(NAMES, st.binary(max_size=2000), TYPES)


@given(fields=st.lists(st.tuples(NAMES, TEXTS | FILES), min_size=1, max_size=8))
def test_what_urllib3_writes_is_read(fields: list[tuple[str, str | tuple[str, bytes, str]]]) -> None:
    body, content_type = encode_multipart_formdata(fields)
    assert parts_of(body, content_type) == [
        Part(name, value.encode()) if isinstance(value, str) else Part(name, value[1], value[0], value[2])
        for name, value in fields
    ]


@given(
    fields=st.lists(st.tuples(NAMES, TEXTS), max_size=4),
    files=st.lists(st.tuples(NAMES, FILES), min_size=1, max_size=4),
)
def test_what_requests_writes_is_read(
    fields: list[tuple[str, str]], files: list[tuple[str, tuple[str, bytes, str]]]
) -> None:
    sent = requests.Request("POST", "http://localhost/", data=fields, files=files).prepare()
    assert isinstance(sent.body, bytes)
    assert parts_of(sent.body, sent.headers["Content-Type"]) == [
        *(Part(name, text.encode()) for name, text in fields),
        *(Part(name, content, file_name, content_type) for name, (file_name, content, content_type) in files),
    ]


@given(content=st.binary(max_size=500), end=st.integers(min_value=0, max_value=600))
def test_a_form_that_breaks_off_is_refused(content: bytes, end: int) -> None:
    body, content_type = encode_multipart_formdata([("file", ("a.png", content, "image/png"))], "boundary")
    # The line break after the last boundary may be missing.
    assert _is_refused(body[: min(end, len(body) - 3)], content_type)


@given(body=st.binary(max_size=300), content_type=st.text(max_size=80))
def test_no_bytes_are_a_failure(body: bytes, content_type: str) -> None:
    for kind in (content_type, "multipart/form-data; boundary=x"):
        for sent in (body, b"--x\r\n" + body + b"\r\n--x--", b'--x\r\nContent-Disposition: form-data; name="' + body):
            _is_refused(sent, kind)


def test_a_quoted_boundary_and_escaped_names_are_understood() -> None:
    body = b'--a b\r\nContent-Disposition: form-data; name="x"; filename="a%22b.png"\r\n\r\n1\r\n--a b--\r\n'
    assert parts_of(body, 'multipart/form-data; boundary="a b"') == [Part("x", b"1", 'a"b.png')]


def _is_refused(body: bytes, content_type: str) -> bool:
    try:
        parts_of(body, content_type)
    except Malformed:
        return True
    return False
