"""Moto's notifications of S3 with what S3 itself says in them: which writing of a key it was, and which version.

Without that two writings of the same content could not be told apart, and would be one job here and two on AWS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from moto.s3 import notifications

_make_event: Final[Callable[..., Any]] = notifications._get_s3_event


@contextmanager
def numbered_drops() -> Iterator[None]:
    """Notifications have a `sequencer`, and a `versionId` if the bucket keeps versions, to the end of the block."""
    with patch.object(notifications, "_get_s3_event", _numbered):
        yield


def _numbered(event_name: str, bucket: Any, key: Any, notification_id: str) -> Any:  # noqa: ANN401  (moto's own)
    event = _make_event(event_name, bucket, key, notification_id)
    written_us = round(key.last_modified.timestamp() * 1_000_000)
    for record in event["Records"]:
        record["s3"]["object"]["sequencer"] = f"00{written_us:016X}"
        if bucket.is_versioned:
            record["s3"]["object"]["versionId"] = key.version_id
    return event
