"""What the text of an input means."""

from __future__ import annotations

import pytest

from comfy_serverless.fetch import sources
from comfy_serverless.fetch.sources import Embedded, S3Source, Unusable, WebAddress, parse
from comfy_serverless.graph.file_inputs import ADDRESS_BEGINNINGS, is_address, scheme_of


def test_every_address_that_is_fetched_has_a_kind_of_source() -> None:
    assert {scheme_of(beginning) for beginning in ADDRESS_BEGINNINGS} == set(sources._KINDS)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("S3://bucket/key.png", S3Source),
        ("HTTPS://host/a.png?token=x", WebAddress),
        ("http://host/a.png", WebAddress),
        ("data:image/png;base64,AAAA", Embedded),
        ("A" * 40, Embedded),
    ],
)
def test_a_scheme_tells_the_kind(text: str, kind: type) -> None:
    assert isinstance(parse(text), kind)
    assert is_address(text) == (kind is not Embedded or text.startswith("data:"))


@pytest.mark.parametrize("text", ["gs://bucket/key", "ftp://host/a", "s3:bucket", "photo.png", "C:\\\\photo", "word"])
def test_what_is_no_kind_of_source_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        parse(text)
    assert not is_address(text)
