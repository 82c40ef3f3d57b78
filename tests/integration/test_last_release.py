"""What the last release has left in table, buckets and queues ends well with this one, and what the next adds too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.jobs.stored_request import VERSION
from local.aws.template import TABLE, name_of
from local.dev import DevStack
from tests.integration.test_mixed_releases import Receiver, ended, wait_for
from tests.patience import PATIENCE_S
from tests.releases import jobs_of, load, recorded

pytestmark = pytest.mark.timeout(1800)

NEW = {"of_the_next_release": {"any": ["thing"]}}


def as_it_was(kind: str, document: Any) -> Any:
    """Only that nothing has a keeper who looks after it later."""
    if kind == "item" and "lease_until" in document and document["sk"]["S"] in {"batch", "job"}:
        return {**document, "lease_until": {"N": "1"}}
    return document


def with_fields_of_the_next_release(kind: str, document: Any) -> Any:
    """Of every kind of document, and values where formats promise that they are tolerated."""
    document = as_it_was(kind, document)
    match kind:
        case "item":
            return {**document, "of_the_next_release": {"M": {"any": {"L": [{"S": "thing"}]}}}}
        case "request":
            request = document["request"]
            return {**document, **NEW, "request": {**request, **NEW, "output": {**request["output"], **NEW}}}
    return {**document, **NEW}


class Left:
    """A stack of this release, into which what the last one left was brought."""

    def __init__(self, stack: DevStack, receiver: Receiver, logs: Path) -> None:
        self.stack, self.receiver, self.logs = stack, receiver, logs
        self.api = requests.Session()
        self.api.headers["authorization"] = f"Bearer {stack.api_key}"
        self.s3 = stack.aws.client()
        self.jobs: dict[str, str] = {}

    def load(self, name: str, change: Any) -> None:
        state = recorded(name)
        state["objects"].pop("InputBucket", None)  # S3 would tell of them as of new ones
        load(state, self.stack, webhook_url=self.receiver.url, change=change)
        self.jobs |= jobs_of(state)

    def url(self, which: str) -> str:
        return f"{self.stack.url}/api/v2/jobs/{self.jobs[which]}"

    def get(self, path: str) -> dict[str, Any]:
        answer = self.api.get(path, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=name_of(bucket)).get("Contents", [])]

    def item(self, which: str) -> dict[str, Any]:
        key: Any = {"pk": {"S": f"job#{self.jobs[which]}"}, "sk": {"S": "job"}}
        return dict(self.stack.aws.dynamodb().get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"])


@pytest.fixture
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    receiver, logs = Receiver(), tmp_path_factory.mktemp("dev")
    with DevStack(log_folder=logs) as stack:
        yield Left(stack, receiver, logs)
        assert stack.aws.usage().denials == []
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.mark.parametrize("change", [as_it_was, with_fields_of_the_next_release])
def test_all_that_the_last_release_left_ends_as_it_would_have(left: Left, change: Any) -> None:
    left.load("waiting", change)
    left.load("ended", change)

    # Workers run what was submitted, the caretaker what was lost, and the API shows both.
    for which in ("plain", "keyed", "with an asset", "generated"):
        job = ended(left.api, left.url(which))
        assert job["status"] == "succeeded", (which, job["error"])
        assert job["metadata"] == {"is": which}
        [output] = job["outputs"]
        assert requests.get(output["url"], timeout=PATIENCE_S).content.startswith(b"\x89PNG")
        assert left.get(f"{left.url(which)}/workflow")["workflow"]
    for job_id in ("dropped", *(job_id for job_id in left.jobs if job_id.startswith("line-"))):
        wait_for(lambda job_id=job_id: f"{job_id}/result.json" in left.keys("OutputBucket"), job_id)
        result = left.s3.get_object(Bucket=name_of("OutputBucket"), Key=f"{job_id}/result.json")["Body"].read()
        assert json.loads(result)["status"] == "succeeded"
    wait_for(lambda: [key for key in left.keys("OutputBucket") if key.endswith(".report.json")], "the batch's report")

    # What had ended is as it was.
    assert {which: left.get(left.url(which))["status"] for which in ("good", "failed", "canceled")} == {
        "good": "succeeded",
        "failed": "failed",
        "canceled": "canceled",
    }
    [output] = left.get(left.url("good"))["outputs"]
    assert requests.get(output["url"], timeout=PATIENCE_S).content.startswith(b"\x89PNG")
    wait_for(lambda: int(left.item("lost")["runs"]["N"]) == 2, "another run of the job whose worker was lost")
    left.api.post(f"{left.url('lost')}/cancel", timeout=PATIENCE_S)
    assert ended(left.api, left.url("lost"))["status"] == "canceled"

    # Webhooks are called at the address that is in the job's item, and signed with the secret beside it.
    queue = left.stack.stack.queues["WebhookQueue"]
    for which in ("good", "failed", "canceled"):
        left.stack.aws.sqs().send_message(QueueUrl=queue, MessageBody=json.dumps({"job": left.jobs[which]}))
    wanted = {left.jobs[which] for which in ("plain", "good", "failed", "canceled")}
    wait_for(lambda: {one["data"]["id"] for one in left.receiver.got} >= wanted, "the webhooks")
    assert all(one["signed"] for one in left.receiver.got)

    # Assets, uploads and idempotency keys go on.
    [upload] = [key.rpartition("/")[2] for key in left.keys("AssetsBucket") if key.startswith("uploads/")]
    completed = left.api.post(f"{left.stack.url}/api/v2/uploads/{upload}/complete", timeout=PATIENCE_S)
    assert (completed.status_code, completed.json()["file_path"]) == (200, "later.png"), "it has the photo's bytes"
    again = left.api.post(
        f"{left.stack.url}/api/v2/jobs",
        json={"workflow": {"1": {"class_type": "EmptyImage", "inputs": {}}}},
        headers={"Idempotency-Key": "once"},
        timeout=PATIENCE_S,
    )
    assert again.json()["error"]["code"] == "idempotency_key_reuse"


@pytest.mark.parametrize("where", ["message", "request"])
def test_what_only_the_next_release_can_run_waits_for_it_and_ends_no_job(left: Left, where: str) -> None:
    def newer(kind: str, document: Any) -> Any:
        """The item of such a job says so too: the caretaker makes new messages of it."""
        if kind == "item" and document["sk"]["S"] == "job":
            return {**document, "version": {"N": str(VERSION + 1)}}
        return {**document, "version": VERSION + 1} if kind == where else document

    left.load("waiting", newer)
    callers = ("plain", "keyed", "with an asset", "generated")
    wait_for(lambda: all("last_run" in left.item(which) for which in callers), "the worker's attempts")
    for which in callers:
        job = left.get(left.url(which))
        assert (job["status"], job["error"]) == ("running", None), "it is between two runs"
        assert left.item(which)["runs"] == {"N": "0"}, "and this was none of those it has"
    log = "".join(path.read_text(encoding="utf-8") for path in left.logs.glob("generate-*.log"))
    assert re.search(r'"code": ?\[?"worker_outdated"', log), "an alarm can see it"
    assert left.receiver.got == []
