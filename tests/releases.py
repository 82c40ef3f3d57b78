"""The release before this one: its code, and what it has written (`tests/record_release.py` has recorded both)."""

from __future__ import annotations

import base64
import json
import re
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from local.aws.template import TABLE, name_of
from local.dev import DevStack

#: What users may have deployed while they update to this one.
LAST: Final = "0.1.0"
RELEASES: Final = Path(__file__).parent / "unit" / "data" / "releases"
FUNCTIONS: Final = (
    "ApiFunction",
    "AuthorizerFunction",
    "IngestFunction",
    "CaretakerFunction",
    "OutcomeFunction",
    "WebhookFunction",
    "GenerateFunction",
)
#: The address of webhooks in what was recorded: nobody listens there.
WEBHOOK_URL: Final = "http://127.0.0.1:9/hook"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
#: Numbers that are seconds since 1970.
_EPOCH_S = re.compile(r'"N": "(1[5-9]\d{8}|2\d{9})"')


def unpack(version: str, folder: Path) -> Path:
    """Unpack the packages of a release; returns their folder, which stands where `lambda/` does."""
    with tarfile.open(RELEASES / version / "lambda.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lambda"


def recorded(name: str, *, version: str = LAST) -> dict[str, Any]:
    """A state that a release has left, as if it were from just now: what it has written expires after some days."""
    text = (RELEASES / version / f"{name}.json").read_text(encoding="utf-8")
    later = datetime.now(UTC) - datetime.fromisoformat(json.loads(text)["recorded_at"])
    text = _MOMENT.sub(lambda found: _moment_later(found[0], later), text)
    text = _EPOCH_S.sub(lambda found: f'"N": "{int(found[1]) + int(later.total_seconds())}"', text)
    return dict(json.loads(text))


def load(
    state: dict[str, Any], stack: DevStack, *, webhook_url: str, change: Callable[[str, Any], Any] | None = None
) -> None:
    """Bring a state into a stack: objects, then items, then messages.

    Args:
        change: what becomes of an item ("item"), a stored request ("request") or a message ("message").
    """
    change = change or (lambda _kind, document: document)
    s3, sqs = stack.aws.client(), stack.aws.sqs()
    for bucket, objects in state["objects"].items():
        for key, entry in objects.items():
            content = base64.b64decode(entry["base64"])
            if bucket == "AssetsBucket" and re.fullmatch(r"requests/(?!batches/).+\.json", key):
                content = json.dumps(change("request", json.loads(content))).encode()
            s3.put_object(Bucket=name_of(bucket), Key=key, Body=content, ContentType=entry["type"])
    for item in state["items"]:
        text = json.dumps(change("item", item)).replace(WEBHOOK_URL, webhook_url)
        stack.aws.dynamodb().put_item(TableName=TABLE, Item=json.loads(text))
    for queue, bodies in state["messages"].items():
        for body in bodies:
            message = json.dumps(change("message", json.loads(body)))
            sqs.send_message(QueueUrl=stack.stack.queues[queue], MessageBody=message)


def jobs_of(state: dict[str, Any]) -> dict[str, str]:
    """The ids of its jobs, by the label `is`, or by themselves."""
    found = {}
    for item in state["items"]:
        if item["sk"]["S"] == "job":
            job_id = item["id"]["S"]
            found[item.get("labels", {}).get("M", {}).get("is", {}).get("S", job_id)] = job_id
    return found


def _moment_later(text: str, later: timedelta) -> str:
    moment = datetime.fromisoformat(text) + later
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
