"""Records what a release writes, for the tests of later ones: `python -m tests.record_release VERSION COMMIT`.

Its code is taken from git and runs in what `make dev` starts: the API, ingest, caretaker and worker of that release,
with the local AWS and the permissions of this checkout. Two states are kept in tests/unit/data/releases/VERSION:

- waiting.json: jobs, a drop and a manifest that no worker has begun, with their messages; an asset, and an upload that
  nobody has completed;
- ended.json: a job that has ended well, one that has failed and one that was canceled, with webhooks, and one whose
  worker was lost while it ran.

With them goes the code itself (lambda.tar.xz), which the tests run beside this release's. Record a release when it is
tagged; recordings of older ones stay for as long as users may update from them.
"""

from __future__ import annotations

import base64
import io
import json
import lzma
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import requests
from PIL import Image

from local.aws.stack import BUCKETS, QUEUES
from local.aws.template import TABLE, name_of
from local.dev import DevStack
from tests.releases import FUNCTIONS, RELEASES, WEBHOOK_URL, unpack

PATIENCE_S: Final = 120.0
SECRET: Final = "whsec_" + "A" * 40


def main(version: str, commit: str) -> None:
    """Record a release."""
    folder = RELEASES / version
    folder.mkdir(parents=True, exist_ok=True)
    code = subprocess.run(["git", "archive", commit, "lambda"], check=True, capture_output=True).stdout
    (folder / "lambda.tar.xz").write_bytes(lzma.compress(code, preset=9 | lzma.PRESET_EXTREME))
    with tempfile.TemporaryDirectory() as temporary:
        root = unpack(version, Path(temporary))
        for name, workers, play in (("waiting", 0, _wait), ("ended", 1, _end)):
            roots = dict.fromkeys(FUNCTIONS, root)
            log_folder = Path(temporary) / name
            # Webhooks are not delivered, so that they are owed: nobody listens there.
            with DevStack(log_folder=log_folder, workers=workers, source_roots=roots) as stack:
                play(Api(stack))
                state = json.dumps(_state(stack), indent=1, sort_keys=True)
            (folder / f"{name}.json").write_text(state + "\n", encoding="utf-8")


class Api:
    """The API of a stack."""

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self.session = requests.Session()
        self.session.headers["authorization"] = f"Bearer {stack.api_key}"

    def post(self, path: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> dict[str, Any]:
        """Ask. Raises if that is refused."""
        answer = self.session.post(f"{self.stack.url}{path}", json=body or None, headers=headers, timeout=PATIENCE_S)
        answer.raise_for_status()
        return dict(answer.json())

    def get(self, path: str) -> dict[str, Any]:
        """Ask. Raises if that is refused."""
        answer = self.session.get(f"{self.stack.url}{path}", timeout=PATIENCE_S)
        answer.raise_for_status()
        return dict(answer.json())

    def drop(self, key: str, content: str) -> None:
        """Put an object into the input bucket."""
        self.stack.aws.client().put_object(Bucket=name_of("InputBucket"), Key=key, Body=content.encode())


def picture(number: int, **more: Any) -> dict[str, Any]:
    """A graph that makes a small picture."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": number}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "small"}},
        **more,
    }


def _wait(api: Api) -> None:
    hook: dict[str, Any] = {"webhook_url": WEBHOOK_URL, "webhook_secret": SECRET}
    once = {"Idempotency-Key": "once"}
    api.post("/api/v2/jobs", workflow=picture(1), metadata={"is": "plain"}, headers=once, **hook)
    api.post("/api/v2/jobs", workflow=picture(2), extra_data={"api_key_comfy_org": "k"}, metadata={"is": "keyed"})
    api.session.post(
        f"{api.stack.url}/api/v2/assets",
        files={"file": ("photo.png", _png(), "image/png")},
        data={"content_type": "image/png", "file_path": "photo.png"},
        timeout=PATIENCE_S,
    ).raise_for_status()
    load = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    }
    api.post("/api/v2/jobs", workflow=load, metadata={"is": "with an asset"})
    api.post(
        "/generate",
        job_id="generated",
        workflow=load,
        set={"2.filename_prefix": "set"},
        inputs={"1.image": f"data:image/png;base64,{base64.b64encode(_png()).decode()}"},
        deadline_s=300,
        reply="links",
        wait_s=0,
        metadata={"is": "generated"},
    )
    target = api.post("/api/v2/uploads", file_path="later.png", content_type="image/png", size_bytes=len(_png()))
    requests.put(target["url"], data=_png(), headers=target["headers"], timeout=PATIENCE_S).raise_for_status()
    api.drop("jobs/drop.json", json.dumps({"job_id": "dropped", "workflow": picture(3), "metadata": {"is": "dropped"}}))
    lines = [json.dumps({"job_id": f"line-{number}", "workflow": picture(number)}) for number in (11, 12)]
    api.drop("batches/many.jsonl", "\n".join([*lines, json.dumps({"workflow": picture(13)}), "no request"]))
    _wait_for(lambda: sum(_queued(api.stack).values()) >= 8)


def _end(api: Api) -> None:
    hook: dict[str, Any] = {"webhook_url": WEBHOOK_URL, "webhook_secret": SECRET}
    good = api.post("/api/v2/jobs", workflow=picture(1), metadata={"is": "good"}, **hook)
    bad = {"3": {"class_type": "LoadImage", "inputs": {"image": "data:image/png;base64,AAAA"}}}
    saver = {"4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "no"}}}
    failed = api.post("/api/v2/jobs", workflow=picture(2, **bad, **saver), metadata={"is": "failed"}, **hook)
    for job in (good, failed):
        _wait_for(partial(_has_run, api, job["id"]))
    long = json.loads((Path(__file__).parent.parent / "workflows" / "text_to_image.json").read_text(encoding="utf-8"))
    for node in long.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 5000
    lost = api.post("/api/v2/jobs", workflow=long, metadata={"is": "lost"})
    canceled = api.post("/api/v2/jobs", workflow=picture(5), metadata={"is": "canceled"}, **hook)
    api.post(f"/api/v2/jobs/{canceled['id']}/cancel")
    _wait_for(lambda: api.get(f"/api/v2/jobs/{lost['id']}")["progress"] is not None)


def _has_run(api: Api, job_id: str) -> bool:
    return api.get(f"/api/v2/jobs/{job_id}")["status"] in {"succeeded", "failed"}


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def _queued(stack: DevStack) -> dict[str, int]:
    sqs = stack.aws.sqs()
    depth: Any = "ApproximateNumberOfMessages"
    counts = {}
    for name in ("JobQueue", "BatchQueue"):
        answer = sqs.get_queue_attributes(QueueUrl=stack.stack.queues[name], AttributeNames=[depth])
        counts[name] = int(answer["Attributes"][depth])
    return counts


def _wait_for(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError("the release does not come so far")
        time.sleep(0.2)


def _state(stack: DevStack) -> dict[str, Any]:
    """Everything that is in the table, the buckets and the queues."""
    s3, sqs = stack.aws.client(), stack.aws.sqs()
    objects: dict[str, dict[str, Any]] = {}
    for bucket in BUCKETS:
        for entry in s3.list_objects_v2(Bucket=name_of(bucket)).get("Contents", []):
            answer = s3.get_object(Bucket=name_of(bucket), Key=entry["Key"])
            content = base64.b64encode(answer["Body"].read()).decode()
            objects.setdefault(bucket, {})[entry["Key"]] = {"type": answer["ContentType"], "base64": content}
    messages: dict[str, list[str]] = {}
    for queue in QUEUES:
        while found := sqs.receive_message(QueueUrl=stack.stack.queues[queue], MaxNumberOfMessages=10).get("Messages"):
            messages.setdefault(queue, []).extend(message["Body"] for message in found)
    items = stack.aws.dynamodb().scan(TableName=TABLE)["Items"]
    items = [item for item in items if item["pk"]["S"] not in {"keys", "admins"}]  # whoever loads it has a key
    recorded_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"recorded_at": recorded_at, "items": items, "objects": objects, "messages": messages}


if __name__ == "__main__":
    main(*sys.argv[1:])
