"""SnapStart: functions in their real runtime, with a Runtime API that keeps them waiting for the restore.

What only AWS can show is in docs/deploy-lambda.md: that the machine itself is kept, and goes on elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.samples import worker_environment
from demo.seed import OUTPUT_BUCKET, seed
from local.aws.lambda_emulator import HANDLER, SOURCE_ROOT
from local.aws.processes import LocalProcess
from local.aws.server import LocalAws
from local.aws.stack import LocalStack
from local.aws.template import of_type
from tests.integration.snap_start import RuntimeApi, SnapshotFailed, snap_started
from tests.patience import wait_until

API = "comfy_serverless.handlers.api.handler"


class Door:
    """The way to AWS: what goes through is counted.

    Attributes:
        opened: how many connections there have been.
        keys: the access keys that requests were signed with, in order.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.opened = 0
        self.keys: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                self.opened += 1
                outside = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._carry, args=(inside, outside, self.keys), daemon=True).start()
                threading.Thread(target=self._carry, args=(outside, inside, None), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, keys: list[str] | None) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                if keys is not None:
                    keys += [key.decode() for key in re.findall(rb"Credential=([^/]+)/", content)]
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class CredentialsServer(ThreadingHTTPServer):
    """Gives the credentials of a role, as Lambda does with SnapStart, which has none in the environment.

    Attributes:
        given: the access keys that were given, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Credentials)
        self.key = ""
        self.secret = ""
        self.lasts = timedelta(hours=6)
        self.given: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/credentials"


class _Credentials(BaseHTTPRequestHandler):
    server: CredentialsServer

    def do_GET(self) -> None:
        self.server.given.append(self.server.key)
        content = json.dumps(
            {
                "AccessKeyId": self.server.key,
                "SecretAccessKey": self.server.secret,
                "Token": "token",
                "Expiration": (datetime.now(UTC) + self.server.lasts).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalAws() as aws:
        seed(aws.client())
        yield LocalStack.create(aws)


@pytest.fixture
def door(stack: LocalStack) -> Iterator[Door]:
    door = Door(stack.aws.port)
    yield door
    door.close()


@contextmanager
def worker(stack: LocalStack, door: Door, folder: Path, **more: str) -> Iterator[tuple[RuntimeApi, LocalProcess]]:
    environment = {**stack.aws.environment, **worker_environment(), "AWS_ENDPOINT_URL": door.url, **more}
    with snap_started(HANDLER, environment, folder) as started:
        yield started


def job() -> dict[str, Any]:
    picture = {"width": 16, "height": 16, "batch_size": 1, "color": 255}
    return {
        "job_id": f"snap-{uuid.uuid4().hex}",
        "workflow": {
            "1": {"class_type": "EmptyImage", "inputs": picture},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "snap"}},
        },
        "reply": "links",
    }


def engine_of(process: LocalProcess) -> tuple[int, int]:
    """The id of the engine's process, and its port."""
    for pid in process.members():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"comfy_lite" in words:
            return pid, int(words[words.index(b"--port") + 1])
    raise AssertionError("there is no engine")


def connections_to(port: int) -> int:
    """How many connections to a port of this machine are open."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)


def test_a_worker_goes_on_with_the_engine_that_was_in_the_snapshot(
    stack: LocalStack, door: Door, tmp_path: Path
) -> None:
    with worker(stack, door, tmp_path) as (lambda_, process):
        lambda_.wait_for_snapshot()
        assert lambda_.asked == ["GET /2018-06-01/runtime/restore/next"]
        engine, port = engine_of(process)
        with socket.create_connection(("127.0.0.1", port)):
            pass  # it answers already
        assert wait_until(lambda: connections_to(port) == 0), "a connection to the engine is in the snapshot"
        assert door.opened == 0, "a connection to AWS is in the snapshot"
        lambda_.restore()
        answer = lambda_.invoke(job())
        assert answer["status"] == "succeeded", answer
        assert engine_of(process) == (engine, port)
        assert door.opened > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["died", "does not answer"])
def test_an_engine_that_has_not_outlived_the_snapshot_is_started_anew(
    stack: LocalStack, door: Door, tmp_path: Path, number: signal.Signals
) -> None:
    with worker(stack, door, tmp_path) as (lambda_, process):
        lambda_.wait_for_snapshot()
        engine, _ = engine_of(process)
        os.kill(engine, number)
        lambda_.restore()
        answer = lambda_.invoke(job())
        assert answer["status"] == "succeeded", answer
        assert engine_of(process)[0] != engine
        process.log.wait_for(lambda line: "has not outlived the snapshot" in line)


def test_all_that_slept_for_long_wakes_up(stack: LocalStack, door: Door, tmp_path: Path) -> None:
    with worker(stack, door, tmp_path) as (lambda_, process):
        lambda_.wait_for_snapshot()
        members = process.members()
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in members:
            os.kill(pid, signal.SIGCONT)
        lambda_.restore()
        assert lambda_.invoke(job())["status"] == "succeeded"
        assert lambda_.invoke(job())["status"] == "succeeded"


def test_a_worker_whose_engine_does_not_start_is_no_snapshot(stack: LocalStack, door: Door, tmp_path: Path) -> None:
    with (
        worker(stack, door, tmp_path, API_COMMAND_LINE="sh -c 'echo no driver; exit 3'") as (lambda_, _),
        pytest.raises(SnapshotFailed) as failed,
    ):
        lambda_.wait_for_snapshot()
    assert "EngineUnavailable" in str(failed.value)
    assert "no driver" in str(failed.value)


def test_models_are_fetched_after_the_restore(stack: LocalStack, door: Door, tmp_path: Path) -> None:
    """A transfer cannot be kept, and what it has fetched would be more than a snapshot may have."""
    manifest = f"s3://{OUTPUT_BUCKET}/no-such-manifest.json"
    with worker(stack, door, tmp_path, MODELS_MANIFEST=manifest) as (lambda_, _):
        lambda_.wait_for_snapshot()
        assert door.opened == 0
        lambda_.restore()
        answer = lambda_.invoke(job())
        assert answer["status"] == "failed"
        assert manifest in answer["error"]["message"]


def test_random_numbers_are_not_those_of_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(
        "import random\n"
        "from comfy_serverless.handlers import snapshot\n"
        "random.seed(1)\n"
        "snapshot.hooks()\n"
        "def handler(event, context):\n"
        "    return random.random()\n"
    )
    drawn = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with snap_started("drawing.handler", {}, folder, source_root=tmp_path) as (lambda_, _):
            lambda_.wait_for_snapshot()
            lambda_.restore()
            drawn.append(lambda_.invoke({}))
    assert len({*drawn, random.Random(1).random()}) == 3


def request(path: str, owner: str = "bob") -> dict[str, Any]:
    """A request as API Gateway sends it."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example"},
        "requestContext": {
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
            "stage": "$default",
            "requestId": str(uuid.uuid4()),
            "authorizer": {"lambda": {"owner": owner, "key_id": "key-1"}},
        },
        "isBase64Encoded": False,
    }


def test_the_api_goes_on_with_fresh_connections_and_fresh_credentials(
    stack: LocalStack, door: Door, tmp_path: Path
) -> None:
    credentials = CredentialsServer()
    own = stack.environment_of("ApiFunction")
    environment: Mapping[str, str] = {
        **{name: value for name, value in own.items() if name not in _CREDENTIALS},
        "AWS_ENDPOINT_URL": door.url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials.url,
    }
    credentials.key, credentials.secret, credentials.lasts = "OFTHESNAPSHOT", "secret", timedelta(seconds=1)
    with snap_started(API, environment, tmp_path) as (lambda_, _):
        lambda_.wait_for_snapshot()
        assert door.opened == 0, "a connection to AWS is in the snapshot"
        time.sleep(1)
        credentials.key, credentials.secret = own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"]
        credentials.lasts = timedelta(hours=6)
        lambda_.restore()
        health = lambda_.invoke(request("/api/v2/health"))
        assert health["statusCode"] == 200
        jobs = lambda_.invoke(request("/api/v2/jobs"))
        assert jobs["statusCode"] == 200, jobs
    assert door.opened > 0
    assert set(door.keys) == {own["AWS_ACCESS_KEY_ID"]}
    credentials.shutdown()


_CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


@pytest.mark.parametrize("handler", [HANDLER, API])
def test_a_function_that_is_no_snapshot_asks_for_no_restore(stack: LocalStack, tmp_path: Path, handler: str) -> None:
    environment = {**stack.environment, **worker_environment(), "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}
    with snap_started(handler, environment, tmp_path) as (lambda_, _):
        lambda_.restore()
        assert lambda_.asked == ["GET /2018-06-01/runtime/invocation/next"]


def test_every_function_of_the_template_that_may_be_a_snapshot_has_the_hooks() -> None:
    may_be = {
        name: properties
        for name, properties in of_type("AWS::Serverless::Function").items()
        if "SnapStart" in properties
    }
    assert may_be
    for name, properties in may_be.items():
        command = properties.get("ImageConfig", {}).get("Command", [HANDLER])[0]
        source = SOURCE_ROOT / f"{command.rpartition('.')[0].replace('.', '/')}.py"
        assert "snapshot.hooks(" in source.read_text(), name
