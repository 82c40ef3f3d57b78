"""What an event of S3 tells of: the objects that were created, each one a request for a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.sources import DroppedObject, SentRequest


def is_s3_event(event: Mapping[str, Any]) -> bool:
    """Whether it is an event of S3, by its records' source; the one that S3 sends to try the way has none."""
    return event.get("Event") == "s3:TestEvent" or has_records_of(event, "aws:s3")


def has_records_of(event: Mapping[str, Any], service: str) -> bool:
    """Whether an event has records, all of them of this service."""
    records = event.get("Records")
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(record, Mapping) and record.get("eventSource") == service for record in records)
    )


def drops_of(event: Mapping[str, Any]) -> list[DroppedObject | SentRequest]:
    """One for each object created. Removals, folders and the test event ask for nothing.

    A record that S3 never sends is a request that will be refused and reported, and costs the other records nothing.
    """
    found = [_drop_of(record) for record in event.get("Records", ())]
    return [drop for drop in found if drop is not None]


def dropped_objects(event: object) -> list[DroppedObject]:
    """The objects an event of S3 tells of; none for the one that S3 sends to try the way.

    Raises:
        ValueError: it is no event of S3.
    """
    if not isinstance(event, Mapping) or not is_s3_event(event):
        raise ValueError("neither an event of S3 nor a message of our own")
    return [drop for drop in drops_of(event) if isinstance(drop, DroppedObject)]


def _drop_of(record: Mapping[str, Any]) -> DroppedObject | SentRequest | None:
    """The object a record tells of, if it was created. Keys come form-encoded: `a+b%C3%BC.json` is `a bü.json`."""
    if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
        return None
    try:
        bucket, item = str(record["s3"]["bucket"]["name"]), record["s3"]["object"]
        key = unquote_plus(str(item["key"]))
        version = str(item.get("versionId") or item.get("sequencer") or item.get("eTag") or "")
    except (AttributeError, KeyError, TypeError):
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return SentRequest(payload=record, default_id=f"s3-{digest[:32]}", what="the S3 record")
    if key.endswith("/"):  # the console makes "folders" by writing empty objects
        return None
    return DroppedObject(address=S3Address(bucket, key), version=version)
