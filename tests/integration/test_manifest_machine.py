"""The state machine of the template, executed: a large manifest is read by many at once, whatever happens to them."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.handlers import wiring_ingest
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from local.aws.processes import LOOPBACK, LocalProcess, clean_environment, free_port
from local.aws.server import REGION, LocalAws
from local.aws.stack import LocalStack
from local.aws.template import TABLE, properties_of
from tests.unit.wired import wired

LAMBDA = Path(__file__).parent.parent.parent / "lambda"
ROLE = "arn:aws:iam::000000000000:role/any"
#: Each range fails once before it is read, as if its function had been throttled or had lost its machine. Then every
#: invocation has too little time for a range: what is left is for the next one.
FUNCTION = """
import pathlib
from comfy_serverless.batches import reading
from comfy_serverless.handlers.ingest import handler as ingest

reading.CHUNK_LINES = 20

class Hurried:
    def get_remaining_time_in_millis(self):
        return 1000

def handler(event, context):
    marker = pathlib.Path({folder!r}) / str(event["start"])
    with marker.open("a") as file:
        file.write("x")
    if marker.stat().st_size == 1:
        raise RuntimeError("lost")
    return ingest(event, Hurried())
"""
#: Until the emulator ends an invocation.
TIMEOUT_S = 300


@dataclass
class Machine:
    """Step Functions and Lambda of one emulator, everything else of another."""

    url: str
    arn: str
    invocations: Path
    aws: LocalAws
    stack: LocalStack

    def wait(self, *, timeout_s: float = 150) -> list[str]:
        step_functions: Any = client("stepfunctions", self.url)
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = [one["status"] for one in step_functions.list_executions(stateMachineArn=self.arn)["executions"]]
            if found and "RUNNING" not in found:
                return found
            time.sleep(0.5)
        raise TimeoutError("the state machine does not end")


def client(service: Any, url: str) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="local", aws_secret_access_key="local"
    )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    port = free_port()
    environment = {**clean_environment(), "BIND_HOST": LOOPBACK, "GATEWAY_PORT": str(port), "HOME": str(tmp_path)}
    command = [str(Path(sys.executable).parent / "ministack")]
    invocations = tmp_path / "invocations"
    invocations.mkdir()
    log_path = tmp_path / "ministack.log"
    with LocalAws() as aws, LocalProcess(command, environment, name="ministack", log_path=log_path) as emulator:
        stack = LocalStack.create(aws)
        emulator.wait_until_listening(port, timeout_s=60)
        url = f"http://{LOOPBACK}:{port}"
        path = ":".join([str(LAMBDA), *filter(None, sys.path)])
        variables = {**stack.environment_of("IngestFunction"), "PYTHONPATH": path}
        function = create_function(url, FUNCTION.format(folder=str(invocations)), variables)
        definition = json.dumps(properties_of("ManifestMachine")["Definition"]).replace("${IngestArn}", function)
        step_functions = client("stepfunctions", url)
        arn = step_functions.create_state_machine(name="manifests", definition=definition, roleArn=ROLE)
        yield Machine(url, arn["stateMachineArn"], invocations, aws, stack)
        assert aws.usage().denials == []


def create_function(url: str, code: str, variables: dict[str, str]) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("function.py", code)
    created = client("lambda", url).create_function(
        FunctionName="ingest",
        Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        Handler="function.handler",
        Role=ROLE,
        Timeout=TIMEOUT_S,
        Environment={"Variables": variables},
        Code={"ZipFile": archive.getvalue()},
    )
    arn: str = created["FunctionArn"]
    return arn


def begin(machine: Machine, manifest: bytes, monkeypatch: pytest.MonkeyPatch) -> Batch:
    for name, value in {
        **machine.stack.environment,
        "BATCH_STATE_MACHINE": machine.arn,
        "BATCH_MAP_BYTES": "1000000",
        "AWS_ENDPOINT_URL_SFN": machine.url,
    }.items():
        monkeypatch.setenv(name, value)
    with wired(monkeypatch, Settings.from_environment()):
        bucket = machine.stack.environment["ASSETS_BUCKET"]
        machine.aws.client().put_object(Bucket=bucket, Key="large.jsonl", Body=manifest)
        return wiring_ingest.ingest().begin_batch(DroppedObject(address=S3Address(bucket, "large.jsonl"), version="1"))


@pytest.mark.timeout(1800)
def test_every_line_of_a_large_manifest_is_one_job_although_each_range_fails_and_is_cut_off(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        json.dumps({"workflow": "thumbnail", "set": {"1.text": f"{number} " + 7000 * "x"}}) for number in range(900)
    ]
    lines[7], lines[700] = "{", "[]"
    batch = begin(machine, "\n".join(lines).encode(), monkeypatch)
    assert machine.wait() == ["SUCCEEDED"]
    ranges = BatchStore(Table(machine.aws.dynamodb(), TABLE)).ranges(batch.id)
    assert len(ranges) == 2
    assert all(one.is_read for one in ranges)
    assert sum(one.lines for one in ranges) == 900
    assert sum(one.bad for one in ranges) == 2
    heads = machine.aws.dynamodb().scan(
        TableName=TABLE, FilterExpression="sk = :job", ExpressionAttributeValues={":job": {"S": "job"}}, Select="COUNT"
    )
    assert heads["Count"] == 898
    tries = [len(marker.read_text()) for marker in machine.invocations.iterdir()]
    assert min(tries) >= 2  # each has failed once
    assert max(tries) >= 3  # and what an invocation did not manage was read on by the next one
