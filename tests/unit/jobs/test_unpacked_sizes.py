"""A packed request is unpacked no further than a plain one may be long, whoever sends it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from comfy_serverless.errors import PayloadTooLarge
from comfy_serverless.jobs.lines import MAX_LINE_BYTES, document_of
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES, SentRequest
from comfy_serverless.settings import Settings

REQUEST = json.dumps({"workflow": {"1": {"class_type": "EmptyImage", "inputs": {}}}}).encode()
_NOTHING: Any = None


def sent(content: bytes) -> object:
    request = SentRequest(payload=content, default_id="a", what="the body")
    return request.read(s3=_NOTHING, settings=Settings())


@pytest.mark.parametrize(("read", "limit"), [(sent, MAX_PAYLOAD_BYTES), (document_of, MAX_LINE_BYTES)])
@pytest.mark.parametrize("times", [1, 2])
def test_packed_and_plain_have_one_limit(read: Callable[[bytes], object], limit: int, times: int) -> None:
    fits, too_long = (REQUEST + b" " * (limit + excess - len(REQUEST)) for excess in (0, 1))
    for _ in range(times):
        fits, too_long = gzip.compress(fits), gzip.compress(too_long)
    assert read(fits)
    with pytest.raises(PayloadTooLarge, match=f"{limit:,} bytes when it is unpacked"):
        read(too_long)
