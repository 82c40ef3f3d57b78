"""`extra_data`: what ComfyUI gets beside a workflow. What may be kept of it, and what may not. No IO.

`extra_pnginfo` and the like are part of the request, and are stored with it. Keys of services that nodes call are
secrets: they travel in the job's message only, never in the table, S3 or a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from comfy_serverless.graph.workflow import MAX_DEPTH, is_shallow

#: Without the secrets. An editor's workflow of a thousand nodes has a megabyte.
MAX_EXTRA_DATA_BYTES = 2_000_000
#: All of them together: a message of SQS has a megabyte for everything.
MAX_SECRET_BYTES = 16_384
_SECRET = re.compile(r"api_?key|token|secret|passw|credential|auth(?:_|$|oriz)|(?:^|_)key(?:_|$)", re.IGNORECASE)


def check_extra_data(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data. Raises ValueError if it is too large or too deep."""
    if not is_shallow(data):
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    for part, limit, what in zip(
        split(data), (MAX_EXTRA_DATA_BYTES, MAX_SECRET_BYTES), ("", " of keys and tokens"), strict=True
    ):
        size_bytes = len(json.dumps(part))
        if size_bytes > limit:
            raise ValueError(f"has {size_bytes:,} bytes{what}; at most {limit:,} are passed on")
    return data


def split(data: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may be stored, and the secrets."""
    stored: dict[str, Any] = {}
    secret: dict[str, Any] = {}
    for name, value in (data or {}).items():
        (secret if _SECRET.search(name) else stored)[name] = value
    return stored, secret
