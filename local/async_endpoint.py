"""An asynchronous endpoint of SageMaker on this machine: a queue, instances from zero, and notifications.

    invoke_endpoint_async ──► queue ──► instance: /ping, /invocations ──► output or failure object ──► notification
                               └── nobody waits: after a while the last instance goes

It is for trying the whole way, and for its faults: an instance that dies is replaced and its invocations are delivered
again; what waits too long expires; what takes too long fails.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import requests

from local.processes import LOOPBACK, LocalProcess, free_port

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: SageMaker's limits.
MAX_BODY_BYTES = 128_000
PING_TIMEOUT_S = 2.0
DEFAULT_TTL_S, DEFAULT_TIMEOUT_S = 21_600, 900
_HEADER = "X-Amzn-SageMaker-"
_POLL_S = 0.05
#: Times an invocation is delivered, if the instance that has it dies. AWS does not say how often it does.
MAX_DELIVERIES = 3

#: Starts a container (or a process that is one) which listens on a port.
Start = Callable[[int], LocalProcess]
#: Gets the messages of both topics.
Notify = Callable[[dict[str, Any]], None]


@dataclass(slots=True, kw_only=True)
class Invocation:
    """One request that waits or runs."""

    inference_id: str
    body: bytes
    headers: dict[str, str]
    output: str
    failure: str
    expires: float
    timeout_s: float
    received: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    deliveries: int = 0


class Refused(ValueError):
    """A request that SageMaker would not take."""


class Instance:
    """One container, and as many invocations at once as the endpoint allows."""

    def __init__(self, start: Start) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.process = start(port)
        self.session = requests.Session()
        self.session.trust_env = False  # proxies of the environment are not for loopback
        self.busy = 0
        self.is_leaving = False

    @property
    def is_alive(self) -> bool:
        """Whether the process lives."""
        return self.process.exit_code is None

    def is_healthy(self) -> bool:
        """Whether it answers a ping with 200, in time."""
        try:
            return self.session.get(f"{self.url}/ping", timeout=PING_TIMEOUT_S).status_code == HTTPStatus.OK
        except requests.RequestException:
            return False


class AsyncEndpoint:
    """The endpoint, from `with` to the end of the block.

    Args:
        name: what `EndpointName` must be.
        start: starts one container.
        notify: gets each notification, from a thread of the endpoint.
        bucket: where outputs and failures go, below `endpoint/`.
        in_flight: invocations at once on one instance.
        max_instances: how many there may be; one for so many waiting invocations as an instance takes.
        start_delay_s: between the need for an instance and its start.
        idle_s: after so long without work all instances go; None for never.
    """

    def __init__(
        self,
        name: str,
        *,
        s3: S3Client,
        bucket: str,
        start: Start,
        notify: Notify,
        in_flight: int = 3,
        max_instances: int = 1,
        start_delay_s: float = 0.0,
        idle_s: float | None = None,
        port: int = 0,
    ) -> None:
        self._name, self._s3, self._bucket, self._start, self._notify = name, s3, bucket, start, notify
        self._in_flight, self._max_instances = in_flight, max_instances
        self._start_delay_s, self._idle_s = start_delay_s, idle_s
        self._queue: queue.Queue[Invocation] = queue.Queue()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._needed_since: float | None = None
        self._idle_since = time.monotonic()
        self.instances: list[Instance] = []
        self._server = ThreadingHTTPServer((LOOPBACK, port), self._handler())
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="endpoint http", daemon=True),
            threading.Thread(target=self._scale, name="endpoint scaling", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME must be."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    @property
    def backlog(self) -> int:
        """How many invocations wait."""
        return self._queue.qsize()

    @property
    def running(self) -> int:
        """How many invocations are with an instance."""
        return sum(instance.busy for instance in self.instances)

    def stop(self) -> None:
        """Stop everything. What waits is lost, as when an endpoint is deleted."""
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()
        for instance in list(self.instances):
            instance.process.stop()

    # What clients see.

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    invocation = endpoint.take(self.path, dict(self.headers.items()), body)
                except Refused as refusal:
                    self._answer(400, {"message": str(refusal)}, {"x-amzn-ErrorType": "ValidationError"})
                else:
                    locations = {
                        f"{_HEADER}OutputLocation": invocation.output,
                        f"{_HEADER}FailureLocation": invocation.failure,
                    }
                    self._answer(202, {"InferenceId": invocation.inference_id}, locations)

            def _answer(self, status: int, document: dict[str, Any], headers: dict[str, str]) -> None:
                content = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Not to the terminal."""

        return Handler

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Invocation:
        """Put a request into the queue.

        Raises:
            Refused: SageMaker would.
        """
        given = {name.lower().removeprefix(_HEADER.lower()): value for name, value in headers.items()}
        if path != f"/endpoints/{self._name}/async-invocations":
            raise Refused(f"Endpoint of {path} not found.")
        location = given.get("inputlocation")
        if bool(location) == bool(body):
            raise Refused("Exactly one of InputLocation and Body must be given.")
        if len(body) > MAX_BODY_BYTES:
            raise Refused(f"Body has {len(body)} bytes; at most {MAX_BODY_BYTES}.")
        extension, name = given.get("s3outputpathextension", ""), given.get("filename", f"{uuid.uuid4()}.out")
        key = "/".join(part for part in (extension, name) if part)
        invocation = Invocation(
            inference_id=given.get("inference-id") or str(uuid.uuid4()),
            body=body or self._read(location or ""),
            headers={
                "Content-Type": given.get("content-type", "application/octet-stream"),
                "Accept": given.get("accept", "*/*"),
                **({f"{_HEADER}Custom-Attributes": given["custom-attributes"]} if "custom-attributes" in given else {}),
            },
            output=f"s3://{self._bucket}/endpoint/output/{key}",
            failure=f"s3://{self._bucket}/endpoint/failure/{key}",
            expires=time.monotonic() + float(given.get("requestttlseconds", DEFAULT_TTL_S)),
            timeout_s=float(given.get("invocationtimeoutseconds", DEFAULT_TIMEOUT_S)),
        )
        self._queue.put(invocation)
        return invocation

    def _read(self, location: str) -> bytes:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._s3.exceptions.ClientError as error:
            raise Refused(f"InputLocation {location} cannot be read: {error}") from error

    # Instances: from zero, as many as are needed, and back.

    def _scale(self) -> None:
        while not self._is_over.wait(_POLL_S):
            self._expire()
            for instance in [one for one in self.instances if not one.is_alive]:
                self.instances.remove(instance)
            waiting, running = self.backlog, self.running
            if waiting or running:
                self._idle_since = time.monotonic()
            wanted = min(self._max_instances, -(-(waiting + running) // self._in_flight))
            if waiting and len(self.instances) < wanted:
                self._needed_since = self._needed_since or time.monotonic()
                if time.monotonic() - self._needed_since >= self._start_delay_s:
                    self._add_instance()
                    self._needed_since = None
            elif self._idle_s is not None and time.monotonic() - self._idle_since >= self._idle_s:
                self._remove_instances()

    def _add_instance(self) -> None:
        instance = Instance(self._start)
        self.instances.append(instance)
        for number in range(self._in_flight):
            threading.Thread(target=self._serve, args=(instance,), name=f"endpoint {number}", daemon=True).start()

    def _remove_instances(self) -> None:
        for instance in list(self.instances):
            instance.is_leaving = True
            self.instances.remove(instance)
            instance.process.stop()

    def _serve(self, instance: Instance) -> None:
        """Give one invocation after the other to an instance, once it is healthy, while it lives."""
        while not self._is_over.is_set() and instance.is_alive and not instance.is_healthy():
            time.sleep(_POLL_S)
        while not self._is_over.is_set() and instance.is_alive and not instance.is_leaving:
            try:
                invocation = self._queue.get(timeout=_POLL_S * 4)
            except queue.Empty:
                continue
            with self._lock:
                instance.busy += 1
            try:
                self._deliver(instance, invocation)
            finally:
                with self._lock:
                    instance.busy -= 1

    def _deliver(self, instance: Instance, invocation: Invocation) -> None:
        invocation.deliveries += 1
        headers = {**invocation.headers, f"{_HEADER}Inference-Id": invocation.inference_id}
        try:
            answer = instance.session.post(
                f"{instance.url}/invocations", data=invocation.body, headers=headers, timeout=invocation.timeout_s
            )
        except requests.ReadTimeout:
            self._fail(invocation, f"no answer within {invocation.timeout_s:g} s")
        except requests.RequestException as error:
            if self._is_over.is_set():
                return
            if invocation.deliveries < MAX_DELIVERIES:
                self._queue.put(invocation)
            else:
                self._fail(invocation, f"the container has died {invocation.deliveries} times: {error}")
        else:
            self._conclude(invocation, answer)

    # How invocations end.

    def _conclude(self, invocation: Invocation, answer: requests.Response) -> None:
        if "Content-Length" not in answer.headers:
            self._fail(
                invocation,
                "The response from container primary did not specify the required Content-Length header",
            )
        elif not answer.ok:
            self._fail(invocation, f"status {answer.status_code}: {answer.text[:1000]}", content=answer.content)
        else:
            self._put(invocation.output, answer.content)
            content_type = answer.headers.get("Content-Type", "")
            self._tell(invocation, "Completed", contentType=content_type, outputLocation=invocation.output)

    def _fail(self, invocation: Invocation, reason: str, *, content: bytes = b"") -> None:
        self._put(invocation.failure, content or reason.encode())
        self._tell(invocation, "Failed", failureReason=reason, failureLocation=invocation.failure)

    def _expire(self) -> None:
        """What has waited too long leaves the queue."""
        for _ in range(self._queue.qsize()):
            try:
                invocation = self._queue.get_nowait()
            except queue.Empty:
                return
            if invocation.expires > time.monotonic():
                self._queue.put(invocation)
            else:
                self._tell(invocation, "Expired")

    def _put(self, address: str, content: bytes) -> None:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def _tell(self, invocation: Invocation, status: str, **response: str) -> None:
        self._notify(
            {
                "awsRegion": "eu-central-1",
                "eventTime": datetime.now(UTC).isoformat(),
                "receivedTime": invocation.received,
                "invocationStatus": status,
                "requestParameters": {"endpointName": self._name},
                "responseParameters": response,
                "inferenceId": invocation.inference_id,
                "eventVersion": "1.0",
                "eventSource": "aws:sagemaker",
                "eventName": "InferenceResult",
            }
        )
