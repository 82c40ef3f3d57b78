"""Webhooks: what a receiver gets, what is done when it fails, and where nothing is ever sent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.aws import s3
from comfy_serverless.aws.dynamodb import Update
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.fetch.web import Network
from comfy_serverless.handlers import webhooks, wiring
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls
from comfy_serverless.jobs.links import Links
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.webhooks import calls
from comfy_serverless.webhooks.signing import check_webhook
from tests.unit.jobs_table import REGION, aws, create_table

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
MAX_VISIBILITY_S = 12 * 3600


class Receiver:
    """Records what is posted to it, and answers as it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], object] = lambda request: status(request, 204)
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((self.path, headers, body))
                with contextlib.suppress(OSError):  # the caller has had enough, as it should
                    outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=hidden-token"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()


def status(request: BaseHTTPRequestHandler, code: int, **headers: str) -> None:
    request.send_response(code)
    for name, value in {"Content-Length": "0", **headers}.items():
        request.send_header(name, value)
    request.end_headers()


class Queue:
    """Knows how messages were put off."""

    def __init__(self) -> None:
        self.pauses: list[int] = []
        self.meta = SimpleNamespace(endpoint_url="https://sqs.example")

    def change_message_visibility(self, **request: Any) -> None:
        assert 0 <= request["VisibilityTimeout"] <= MAX_VISIBILITY_S, "SQS refuses this"
        self.pauses.append(request["VisibilityTimeout"])


class World:
    """A table with jobs that have ended, and the function that calls their webhooks."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table, _ = create_table(session)
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)
        self.queue = Queue()
        self.patch = monkeypatch
        self.use(Network(allow_private=True, allow_own_host=True))

    def use(self, network: Network) -> None:
        caller = calls.WebhookCaller(self.jobs, Links(s3.s3_client(), 60), network)
        self.patch.setattr(wiring, "webhook_caller", lambda: caller)
        self.patch.setattr(wiring, "sqs", lambda: self.queue)

    def ended(self, url: str, *, job_id: str = "job-1", secret: str = SECRET) -> str:
        webhook = Webhook(url=url, secret=secret)
        self.jobs.submit(
            NewJob(job_id=job_id, owner="team", request_uri="s3://a/b", result_uri="s3://a/c", webhook=webhook)
        )
        self.jobs.begin(job_id, run="run-1")
        now = datetime.now(UTC)
        job = Job(
            id=job_id,
            status=JobStatus.SUCCEEDED,
            created_at=now,
            started_at=now,
            completed_at=now,
            expires_at=now,
            outputs=(),
            metrics={"queue_ms": 1, "execution_ms": 1},
            urls=JobUrls.of(job_id),
        )
        assert self.jobs.finish(job_id, job, run="run-1", webhook=True, places=())
        return job_id

    def forget_webhook(self, job_id: str) -> None:
        self.table.delete(f"webhook#{job_id}", "webhook")

    def write_as_before(self, job_id: str, webhook: dict[str, str]) -> None:
        """As the first release wrote it: into the job's item."""
        self.table.update(Update(pk=f"job#{job_id}", sk="job", assign={"webhook": webhook}))

    def deliver(self, *bodies: str, received: int = 1) -> list[str]:
        """The messages that are to come again."""
        records = [
            {
                "messageId": str(index),
                "receiptHandle": str(index),
                "body": body if body.startswith(("{", "!")) else json.dumps({"job": body}),
                "attributes": {"ApproximateReceiveCount": str(received)},
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:webhooks",
            }
            for index, body in enumerate(bodies)
        ]
        answer = webhooks.handler({"Records": records}, None)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with aws() as session:
        yield World(session, monkeypatch)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_receiver_gets_the_job_with_a_signature_it_can_check(world: World, receiver: Receiver) -> None:
    begun_s = int(datetime.now(UTC).timestamp())
    assert world.deliver(world.ended(receiver.url)) == []
    [(path, headers, body)] = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "msg_job-1"
    assert begun_s <= int(headers["webhook-timestamp"]) <= datetime.now(UTC).timestamp()
    assert headers["content-type"] == "application/json"
    assert path == "/hook?token=hidden-token"
    document = json.loads(body)
    assert document["type"] == "job.succeeded"
    assert datetime.fromisoformat(document["timestamp"]).tzinfo is not None
    assert (document["data"]["id"], document["data"]["status"]) == ("job-1", "succeeded")


def test_without_a_secret_nothing_is_signed(world: World, receiver: Receiver) -> None:
    assert world.deliver(world.ended(receiver.url, secret="")) == []
    assert "webhook-signature" not in receiver.got[0][1]


def test_a_job_told_twice_has_the_same_id(world: World, receiver: Receiver) -> None:
    job_id = world.ended(receiver.url)
    world.deliver(job_id, job_id)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1


@pytest.mark.parametrize("code", [301, 307, 400, 404, 429, 500, 503])
def test_a_refused_call_is_made_again(world: World, receiver: Receiver, code: int) -> None:
    receiver.answer = lambda request: status(request, code, Location=receiver.url)
    assert world.deliver(world.ended(receiver.url)) == ["0"]
    assert len(receiver.got) == 1, "a redirect was followed"
    assert len(world.queue.pauses) == 1


def test_a_receiver_that_is_gone_is_left_alone(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda request: status(request, 410)
    assert world.deliver(world.ended(receiver.url)) == []


def test_a_receiver_that_hangs_does_not_hold_the_function(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CALL_S", 0.3)
    receiver.answer = lambda _: receiver.stopping.wait(5)
    assert world.deliver(world.ended(receiver.url)) == ["0"]


def test_a_connection_that_breaks_is_tried_again(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda request: request.connection.shutdown(socket.SHUT_RDWR)
    assert world.deliver(world.ended(receiver.url)) == ["0"]


def test_an_endless_answer_is_not_read(world: World, receiver: Receiver) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not receiver.stopping.is_set():
            request.wfile.write(b"x" * 65536)

    receiver.answer = endless
    assert world.deliver(world.ended(receiver.url)) == []


def test_calls_come_later_and_later_and_never_later_than_sqs_can(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answer = lambda request: status(request, 500)
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    job_id = world.ended(receiver.url)
    for received in (1, 2, 3, 4, 5, 8, 10, 99):
        assert world.deliver(job_id, received=received) == ["0"]
    assert world.queue.pauses == sorted(world.queue.pauses)
    assert world.queue.pauses[0] in range(4, 8)


def test_a_webhook_of_an_older_release_is_in_the_job_and_called_all_the_same(world: World, receiver: Receiver) -> None:
    job_id = world.ended("https://example.invalid/")
    assert world.deliver(job_id) == ["0"]
    world.forget_webhook(job_id)
    assert world.deliver(job_id) == [], "nobody knows whom to call"
    for secret in (SECRET, ""):
        world.write_as_before(job_id, {"url": receiver.url, "secret": secret})
        assert world.deliver(job_id) == []
    (_, signed, _), (_, unsigned, _) = receiver.got
    assert ("webhook-signature" in signed, "webhook-signature" in unsigned) == (True, False)


def test_the_webhooks_own_item_counts_and_not_what_is_written_into_the_job(world: World, receiver: Receiver) -> None:
    job_id = world.ended(receiver.url)
    world.write_as_before(job_id, {"url": "https://elsewhere.invalid/", "secret": ""})
    assert world.deliver(job_id) == []
    assert len(receiver.got) == 1


def test_a_bad_message_costs_the_others_nothing(world: World, receiver: Receiver) -> None:
    job_id = world.ended(receiver.url)
    assert world.deliver("!", "{}", job_id, "unknown") == ["0", "1"]
    assert len(receiver.got) == 1
    assert len(world.queue.pauses) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1", "inside.example"])
def test_nothing_is_sent_into_a_private_network(world: World, receiver: Receiver, host: str) -> None:
    def resolve(name: str, _port: int) -> list[str]:
        return ["127.0.0.1"] if name == "inside.example" else [name]

    world.use(Network(resolve=resolve))
    url = f"https://{host}:{receiver.server.server_port}/hook"
    assert world.deliver(world.ended(url)) == ["0"]
    assert receiver.got == []


def test_metadata_is_never_asked(world: World) -> None:
    world.use(Network(allow_private=True, resolve=lambda *_: ["169.254.169.254"]))
    assert world.deliver(world.ended("http://harmless.example/")) == ["0"]


def test_a_name_is_resolved_once_for_a_call(world: World, receiver: Receiver) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    world.use(Network(allow_private=True, allow_own_host=True, resolve=lambda *_: answers.pop(0)))
    url = f"http://rebinds.example:{receiver.server.server_port}/"
    assert world.deliver(world.ended(url)) == []
    assert len(answers) == 1


def test_logs_have_no_secrets(world: World, receiver: Receiver, caplog: Any, capsys: Any) -> None:
    receiver.answer = lambda request: status(request, 500)
    with caplog.at_level(logging.INFO):
        world.deliver(world.ended(receiver.url))
        receiver.close()
        world.deliver("job-1")
    written = caplog.text + "".join(capsys.readouterr())
    assert "hidden-token" not in written
    assert SECRET.removeprefix("whsec_") not in written


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://a.example",
        "ftp://a.example",
        "https://",
        "https://u:p@a.example",
        "https://a.example:99999",
        "https://a.example/ b",
        "https://a.example\\@b.example",
        "https://a.example/\n",
        "https://a.example/" + "x" * 9000,
        "https://127.0.0.1/",
        "https://169.254.169.254/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
    ],
)
def test_addresses_that_can_never_be_called_are_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="public https"):
        check_webhook(url, None)


@pytest.mark.parametrize("url", ["https://a.example", "https://a.example:8443/hook?x=1", "https://93.184.215.14/"])
def test_public_addresses_are_taken(url: str) -> None:
    check_webhook(url, SECRET)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "plain text of some length, 24 or more",
        "whsec_",
        "whsec_é",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        SECRET.removeprefix("whsec_"),
    ],
)
def test_secrets_of_another_form_are_refused(secret: str) -> None:
    with pytest.raises(InvalidRequest, match="whsec_"):
        check_webhook("https://a.example", secret)
