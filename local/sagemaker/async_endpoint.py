"""An asynchronous endpoint of SageMaker on this machine: a queue, instances from zero, and notifications.

    invoke_endpoint_async ──► queue ──► instance: /ping, /invocations ──► output or failure object ──► notification
                               └── queue empty: after a while the last instance goes

It is for trying the whole way, and for its faults: an instance that dies, or fails its pings, is replaced and its
invocations are delivered again; what waits too long expires; what takes too long fails. It takes no request that
SageMaker would not take.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import requests
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import NewConnectionError

from local.aws.http_server import LocalServer
from local.aws.processes import LOOPBACK
from local.sagemaker.async_instance import Health, Instance, Start
from local.sagemaker.async_invocation import HEADER, FailureLayout, Invocation, Refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_POLL_S = 0.05
#: Times an invocation is delivered, if the instance that has it dies. AWS does not say how often it does.
MAX_DELIVERIES = 3
#: Invocations that can be delivered a second time: the newest.
MAX_REMEMBERED = 200

#: Gets the messages of both topics.
Notify = Callable[[dict[str, Any]], None]


class AsyncEndpoint:
    """The endpoint, from `with` to the end of the block.

    Args:
        name: what `EndpointName` must be.
        start: starts one container.
        notify: gets each notification, one after the other, from a thread of the endpoint.
        bucket: where outputs and failures go, below `endpoint/`.
        in_flight: invocations at once on one instance.
        max_instances: how many there may be; one for so many waiting invocations as an instance takes.
        start_delay_s: between the need for an instance and its start.
        idle_s: after so long without work all instances go; None for never.
        health: how instances are watched.
        failure_layout: how notifications tell of failures.
        shortest_ttl_s: of an invocation; below AWS's limit for tests only, who cannot wait that long.

    Attributes:
        instances: those that there are, without those that are on their way out.
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
        health: Health | None = None,
        failure_layout: FailureLayout = FailureLayout.NESTED,
        shortest_ttl_s: int | None = None,
        port: int = 0,
    ) -> None:
        self._name, self._s3, self._bucket, self._start, self._notify = name, s3, bucket, start, notify
        self._in_flight, self._max_instances = in_flight, max_instances
        self._health = health or Health()
        self.start_delay_s, self._idle_s = start_delay_s, idle_s
        self.failure_layout, self.shortest_ttl_s = failure_layout, shortest_ttl_s
        self._change = threading.Condition()
        self._queue: deque[Invocation] = deque()
        self._running = 0
        self._remembered: OrderedDict[str, Invocation] = OrderedDict()
        self._notifications: queue.Queue[dict[str, Any]] = queue.Queue()
        self._is_over = threading.Event()
        self._needed_since: float | None = None
        self._busy_at = time.monotonic()
        self.instances: list[Instance] = []
        self._leaving: list[Instance] = []
        self._server = LocalServer((LOOPBACK, port), _handler_of(self))
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="endpoint http", daemon=True),
            threading.Thread(target=self._scale, name="endpoint scaling", daemon=True),
            threading.Thread(target=self._notify_all, name="endpoint notifications", daemon=True),
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
    def waiting(self) -> int:
        """How many invocations wait."""
        with self._change:
            return len(self._queue)

    @property
    def backlog(self) -> int:
        """How many invocations wait or are being processed: what AWS calls the backlog."""
        with self._change:
            return len(self._queue) + self._running

    def stop(self) -> None:
        """Stop everything. What waits is lost, as when an endpoint is deleted. Safe to call twice."""
        self._is_over.set()
        with self._change:
            self._change.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for instance in [*self.instances, *self._leaving]:
            instance.is_leaving = True
            instance.process.stop()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Invocation:
        """Put a request into the queue.

        Raises:
            Refused: SageMaker would.
        """
        if path != f"/endpoints/{self._name}/async-invocations":
            raise Refused(f"Endpoint of {path} not found.")
        invocation = Invocation.of(headers, body, shortest_ttl_s=self.shortest_ttl_s)
        self._put_back(invocation)
        return invocation

    def describe(self, name: str) -> dict[str, Any]:
        """What DescribeEndpoint says, as far as we ask.

        Raises:
            Refused: there is no endpoint of this name.
        """
        if name != self._name:
            raise Refused(f'Could not find endpoint "{name}".')
        with self._change:
            count = len(self.instances)
        return {
            "EndpointName": name,
            "EndpointArn": f"arn:aws:sagemaker:eu-central-1:000000000000:endpoint/{name}",
            "EndpointStatus": "InService",
            "CreationTime": 0,
            "LastModifiedTime": 0,
            "ProductionVariants": [{"VariantName": "worker", "CurrentInstanceCount": count}],
        }

    def locations(self, invocation: Invocation) -> tuple[str, str]:
        """Where its output goes, and where its failure."""
        folder = f"s3://{self._bucket}/endpoint"
        return f"{folder}/output/{invocation.key}", f"{folder}/failure/{invocation.key}"

    def deliver_again(self, inference_id: str) -> None:
        """Deliver an invocation a second time, next of all: SageMaker promises nowhere that it does not.

        While the first delivery runs, another thread or instance gets the second.

        Raises:
            KeyError: there was none of this id, or it was long ago.
        """
        with self._change:
            self._queue.appendleft(replace(self._remembered[inference_id], deliveries=0))
            self._change.notify_all()

    def scale_in(self, instance: Instance) -> None:
        """Take an instance away in order, though it may have work."""
        with self._change:
            if instance not in self.instances:
                return
            self.instances.remove(instance)
            self._leaving.append(instance)
            instance.is_leaving = True
        threading.Thread(target=instance.leave, name="endpoint scale-in", daemon=True).start()

    # Instances: from zero, as many as are needed, and back.

    def _scale(self) -> None:
        while not self._is_over.wait(_POLL_S):
            self._expire()
            with self._change:
                self.instances[:] = [one for one in self.instances if one.is_alive]
                self._leaving[:] = [one for one in self._leaving if one.is_alive]
                waiting, backlog = len(self._queue), len(self._queue) + self._running
            if backlog:
                self._busy_at = time.monotonic()
            if waiting and len(self.instances) < min(self._max_instances, math.ceil(backlog / self._in_flight)):
                self._needed_since = self._needed_since or time.monotonic()
                if time.monotonic() - self._needed_since >= self.start_delay_s:
                    self._add_instance()
                    self._needed_since = None
            elif self._idle_s is not None and time.monotonic() - self._busy_at >= self._idle_s:
                for instance in list(self.instances):
                    self.scale_in(instance)

    def _add_instance(self) -> None:
        instance = Instance(self._start, self._health, give_up=self._replace)
        self.instances.append(instance)
        for number in range(self._in_flight):
            threading.Thread(target=self._serve, args=(instance,), name=f"endpoint {number}", daemon=True).start()

    def _replace(self, instance: Instance) -> None:
        """An instance that fails its pings is ended at once; another starts if there is work."""
        with self._change:
            if instance in self.instances:
                self.instances.remove(instance)
        instance.cut_off()

    def _serve(self, instance: Instance) -> None:
        """Give one invocation after the other to an instance, while it lives."""
        while instance.is_alive and not instance.is_leaving and not self._is_over.is_set():
            invocation = self._next_for(instance)
            if invocation is None:
                continue
            try:
                self._deliver(instance, invocation)
            except Exception:  # noqa: BLE001  (its place must not be lost)
                if not self._is_over.is_set():
                    traceback.print_exc()
            finally:
                with self._change:
                    self._running -= 1

    def _next_for(self, instance: Instance) -> Invocation | None:
        with self._change:
            self._change.wait_for(lambda: bool(self._queue) and instance.is_usable, timeout=_POLL_S)
            if self._is_over.is_set() or not self._queue or not instance.is_usable:
                return None
            invocation = self._queue.popleft()
            self._running += 1
            invocation.deliveries += 1
            self._remembered[invocation.inference_id] = invocation
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
            return invocation

    def _put_back(self, invocation: Invocation) -> None:
        with self._change:
            self._queue.append(invocation)
            self._change.notify_all()

    def _deliver(self, instance: Instance, invocation: Invocation) -> None:
        try:
            body = self._body(invocation)
        except (ClientError, BotoCoreError) as error:
            self._fail(invocation, f"{invocation.location} cannot be read: {error}")
            return
        headers = {**invocation.headers, f"{HEADER}Inference-Id": invocation.inference_id}
        try:
            answer = instance.session.post(
                f"{instance.url}/invocations", data=body, headers=headers, timeout=invocation.timeout_s
            )
        except requests.ReadTimeout:
            self._fail(invocation, f"no answer within {invocation.timeout_s} s")
        except requests.RequestException as error:
            if self._is_over.is_set():
                return
            instance.is_healthy = False  # until it has answered a ping: the end of a process is seen a moment later
            if _was_not_reached(error):
                invocation.deliveries -= 1
            if invocation.deliveries < MAX_DELIVERIES:
                self._put_back(invocation)
            else:
                self._fail(invocation, f"the container has died {invocation.deliveries} times: {error}")
        else:
            self._conclude(invocation, answer)

    def _body(self, invocation: Invocation) -> bytes:
        if invocation.body is not None:
            return invocation.body
        bucket, _, key = invocation.location.removeprefix("s3://").partition("/")
        return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    # How invocations end.

    def _conclude(self, invocation: Invocation, answer: requests.Response) -> None:
        output, _ = self.locations(invocation)
        if "Content-Length" not in answer.headers:
            self._fail(
                invocation,
                "The response from container primary did not specify the required Content-Length header",
            )
        elif not 200 <= answer.status_code < 300:
            self._fail(invocation, f"status {answer.status_code}: {answer.text[:1000]}", content=answer.content)
        else:
            self._put(output, answer.content)
            content_type = answer.headers.get("Content-Type", "")
            self._tell(invocation, "Completed", contentType=content_type, outputLocation=output)

    def _fail(self, invocation: Invocation, reason: str, *, content: bytes = b"") -> None:
        _, failure = self.locations(invocation)
        self._put(failure, content or reason.encode())
        self._tell(invocation, "Failed", failureReason=reason, failureLocation=failure)

    def _expire(self) -> None:
        """What has waited too long leaves the queue."""
        with self._change:
            expired = [invocation for invocation in self._queue if invocation.has_expired]
            for invocation in expired:
                self._queue.remove(invocation)
        for invocation in expired:
            self._tell(invocation, "Expired")

    def _put(self, address: str, content: bytes) -> None:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def _tell(self, invocation: Invocation, status: str, **response: str) -> None:
        self._notifications.put(invocation.notification(self._name, status, layout=self.failure_layout, **response))

    def _notify_all(self) -> None:
        """In a thread of its own: an instance does not wait for receivers."""
        while not self._is_over.is_set():
            try:
                message = self._notifications.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._notify(message)


def _was_not_reached(error: requests.RequestException) -> bool:
    """Whether no program listens there, so that the invocation was not delivered."""
    return bool(error.args) and isinstance(getattr(error.args[0], "reason", None), NewConnectionError)


def _handler_of(endpoint: AsyncEndpoint) -> type[BaseHTTPRequestHandler]:
    """What clients see."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("X-Amz-Target") == "SageMaker.DescribeEndpoint":
                self._describe(json.loads(body)["EndpointName"])
                return
            try:
                invocation = endpoint.take(self.path, dict(self.headers.items()), body)
            except Refused as refusal:
                self._answer(400, {"message": str(refusal)}, {"x-amzn-ErrorType": "ValidationError"})
            else:
                output, failure = endpoint.locations(invocation)
                locations = {f"{HEADER}OutputLocation": output, f"{HEADER}FailureLocation": failure}
                self._answer(202, {"InferenceId": invocation.inference_id}, locations)

        def _describe(self, name: str) -> None:
            try:
                self._answer(200, endpoint.describe(name), {})
            except Refused as refusal:
                self._answer(400, {"message": str(refusal)}, {"x-amzn-ErrorType": "ValidationException"})

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
