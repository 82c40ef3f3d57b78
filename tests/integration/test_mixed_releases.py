"""A stack in the middle of an update: functions of the last release beside those of this one end every job.

The last release's own code runs here (tests/unit/data/releases), under this release's permissions, in what `make dev`
starts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from local.aws.processes import LOOPBACK
from local.aws.template import name_of
from local.dev import Backend, DevStack
from tests.integration.test_dev_stack import small
from tests.patience import PATIENCE_S
from tests.releases import FUNCTIONS, LAST, unpack

pytestmark = pytest.mark.timeout(1800)

#: By which are of the last release: a GPU stack or a worker that was deployed earlier, an update that has got only as
#: far as the worker, and functions that are updated one after the other.
MIXES = {
    "an old worker": ("GenerateFunction",),
    "a new worker": tuple(name for name in FUNCTIONS if name != "GenerateFunction"),
    "an old API and old webhooks": ("ApiFunction", "WebhookFunction"),
    "an old GPU stack": ("GenerateFunction",),
    "an old caretaker and old ingest": ("CaretakerFunction", "IngestFunction", "OutcomeFunction"),
}


class Receiver:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.got.append({"signed": "webhook-signature" in self.headers, **body})
                self.send_response(204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(LAST, tmp_path_factory.mktemp("release"))


@pytest.fixture(params=MIXES)
def stack(
    request: pytest.FixtureRequest, last_release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevStack]:
    roots = dict.fromkeys(MIXES[request.param], last_release)
    backend: Backend = "sagemaker" if "GPU" in request.param else "lambda"
    logs = tmp_path_factory.mktemp("dev")
    with DevStack(log_folder=logs, source_roots=roots, backend=backend) as started:
        yield started
        if request.param == "an old worker":
            log = (logs / "generate-1.log").read_text(encoding="utf-8")
            assert f"cwd={last_release}" in log, "it was the old one"
        assert started.aws.usage().denials == [], "this release's roles allow what the last release's functions do"


def test_every_job_of_a_stack_of_two_releases_ends(
    stack: DevStack, receiver: Receiver, request: pytest.FixtureRequest
) -> None:
    mix = MIXES[request.node.callspec.params["stack"]]
    api = requests.Session()
    api.headers["authorization"] = f"Bearer {stack.api_key}"
    s3 = stack.aws.client()

    def submit(number: int, **fields: Any) -> str:
        answer = api.post(f"{stack.url}/api/v2/jobs", json={"workflow": small(number), **fields}, timeout=PATIENCE_S)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    secret = "whsec_" + "A" * 40
    jobs = {
        submit(1, metadata={"who": "me"}),
        submit(2, webhook_url=receiver.url, webhook_secret=secret),
        submit(3, extra_data={"api_key_comfy_org": "k"}),
    }
    if "ApiFunction" not in mix:  # the last release's API does not know the field
        jobs.add(submit(5, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}}))
    waited = api.post(f"{stack.url}/generate", json={"workflow": small(4), "wait_s": 25}, timeout=PATIENCE_S).json()
    assert waited["status"] in {"succeeded", "queued", "running"}
    jobs.add(waited["id"])
    lines = [json.dumps({"job_id": f"line-{number}", "workflow": small(number)}) for number in range(10, 13)]
    s3.put_object(Bucket=name_of("InputBucket"), Key="batches/many.jsonl", Body="\n".join(lines).encode())
    s3.put_object(
        Bucket=name_of("InputBucket"), Key="jobs/drop.json", Body=json.dumps({"workflow": small(20)}).encode()
    )

    for job_id in jobs:
        job = ended(api, f"{stack.url}/api/v2/jobs/{job_id}")
        assert job["status"] == "succeeded", job["error"]
        [output] = job["outputs"]
        assert requests.get(output["url"], timeout=PATIENCE_S).content.startswith(b"\x89PNG")
    wait_for(lambda: receiver.got, "the webhook")
    assert receiver.got[0]["signed"]
    assert receiver.got[0]["data"]["status"] == "succeeded"

    def reports() -> list[str]:
        found = s3.list_objects_v2(Bucket=name_of("OutputBucket")).get("Contents", [])
        return [entry["Key"] for entry in found]

    wait_for(lambda: len([key for key in reports() if key.endswith("result.json")]) >= len(jobs) + 4, "the results")
    for number in range(10, 13):
        result = s3.get_object(Bucket=name_of("OutputBucket"), Key=f"line-{number}/result.json")["Body"].read()
        assert json.loads(result)["status"] == "succeeded"


def ended(api: requests.Session, url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(api.get(url, timeout=PATIENCE_S).json())
        return found["status"] in {"succeeded", "failed", "canceled", "expired"}

    wait_for(look, f"the end of {url}")
    return found


def wait_for(look: Any, what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < until, f"{what} has not come"
        time.sleep(0.2)
