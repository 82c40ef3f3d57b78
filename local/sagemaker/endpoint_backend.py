"""`make dev BACKEND=sagemaker`: jobs go to an asynchronous endpoint instead of to Lambda functions.

Announced by the SSM parameter that a GPU stack on AWS would write; jobs and batches wait in queues before it, and the
function that lets them through takes them from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comfy_serverless.table.target import EndpointTarget
from local.aws.function_pool import FunctionPool, LocalFunction
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LocalProcess, clean_environment, free_port
from local.aws.queue_poller import QueuePoller
from local.aws.release import DISPATCH
from local.aws.roles import role_of
from local.aws.server import LocalAws, credentials_of, local_client
from local.aws.stack import LocalStack
from local.sagemaker.async_endpoint import AsyncEndpoint

ENDPOINT = "comfy-local-gpu"
_START = [sys.executable, "-m", "comfy_serverless.handlers.start", "serve"]
_FORWARD = "comfy_serverless.handlers.forward.handler"
_BACKLOG_EVERY_S = 5.0
#: Short, so that everything stops soon.
_FORWARD_TIMEOUT_S = 12
#: Invocations at once from each queue, as on AWS.
_FORWARD_AT_ONCE = 2
QUEUES = ("JobQueue", "BatchQueue")


class EndpointBackend:
    """The endpoint, what announces it, and what sends jobs on to it.

    Args:
        environment: of the containers, which have the worker's role (a test in tests/infra holds that theirs is
            the same), and of the function that forwards, which has a role in infra/ only: it is the administrator.
        on_outcome: invokes the function that takes the ends of invocations, with an event of SNS.
        source_root: the folder of the packages of the containers, and of the function that forwards. With those of the
            last release (0.1.0) the whole stack is as it was: callers' jobs go straight to the endpoint, and that
            function is started again and again.
    """

    def __init__(
        self,
        stack: LocalStack,
        environment: Mapping[str, str],
        *,
        on_outcome: Callable[[Any], object],
        log_folder: Path,
        instances: int = 1,
        start_delay_s: float = 0.0,
        idle_s: float | None = None,
        source_root: Path = SOURCE_ROOT,
    ) -> None:
        self._aws: LocalAws = stack.aws
        self._environment = {
            **clean_environment(),
            **environment,
            **credentials_of(role_of("GenerateFunction")),
            "PYTHONPATH": str(source_root),
        }
        self._is_old = source_root != SOURCE_ROOT
        self._on_outcome = on_outcome
        self._log_folder = log_folder
        self._started = 0
        self._is_over = threading.Event()
        self._queue_urls = tuple(stack.queues[name] for name in QUEUES)
        self.endpoint = AsyncEndpoint(
            ENDPOINT,
            s3=stack.aws.client(),
            bucket=stack.environment["OUTPUT_BUCKET"],
            start=self._start_container,
            notify=self._notify,
            max_instances=instances,
            start_delay_s=start_delay_s,
            idle_s=idle_s,
        )
        forward = {**environment, **self.function_variables, "ENDPOINT_NAME": ENDPOINT}
        self._forward_pool = FunctionPool(
            {
                _FORWARD: LocalFunction(
                    environment=forward, processes=len(QUEUES) * _FORWARD_AT_ONCE, source_root=source_root
                )
            },
            log_path=log_folder / "forward.log",
        )
        self._pollers = [
            QueuePoller(stack.aws.sqs(), url, self._forward, name=f"forward {name}", workers=_FORWARD_AT_ONCE)
            for name, url in ([] if self._is_old else zip(QUEUES, self._queue_urls, strict=True))
        ]
        self._backlog_thread = threading.Thread(target=self._publish_backlog, name="endpoint backlog", daemon=True)
        self._old_thread = threading.Thread(target=self._forward_as_before, name="forward", daemon=True)

    @property
    def function_variables(self) -> dict[str, str]:
        """What the functions of the stack need beside their own."""
        return {
            "DISPATCH_PARAMETER": DISPATCH,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.endpoint.url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.endpoint.url,
        }

    def start(self) -> None:
        """Announce it. The first container starts with the first job."""
        self.endpoint.__enter__()
        job_queue_url, batch_queue_url = self._queue_urls
        value = EndpointTarget(ENDPOINT, batch_queue_url, "" if self._is_old else job_queue_url).to_text()
        ssm: Any = local_client("ssm", self._aws.endpoint_url)
        ssm.put_parameter(Name=DISPATCH, Value=value, Type="String", Overwrite=True)
        self._backlog_thread.start()
        if self._is_old:
            self._old_thread.start()
        for poller in self._pollers:
            poller.start()

    def stop(self) -> None:
        """Stop everything. Safe to call twice."""
        self._is_over.set()
        for poller in self._pollers:
            poller.stop(timeout_s=0.0)
        self.endpoint.stop()
        self._forward_pool.close()
        for poller in self._pollers:
            poller.stop(timeout_s=5.0)

    def kill(self) -> None:
        """End all containers at once, engine and all, as if their machines had lost power."""
        for instance in list(self.endpoint.instances):
            for pid in instance.process.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_forward(self) -> None:
        """End the processes of the function that sends jobs on, wherever they are; the next message starts another."""
        self._forward_pool.kill()

    def _start_container(self, port: int) -> LocalProcess:
        self._started += 1
        environment = {
            **self._environment,
            **({"ENDPOINT_NAME": ENDPOINT, **self.function_variables} if self._is_old else {}),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "INITIAL_PORT": str(free_port()),
        }
        return LocalProcess(_START, environment, name="serve", log_path=self._log_folder / f"serve-{self._started}.log")

    def _notify(self, message: dict[str, Any]) -> None:
        record = {"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {"Message": json.dumps(message)}}
        for _ in range(3):  # SNS sends again, too
            try:
                self._on_outcome({"Records": [record]})
            except Exception:  # noqa: BLE001  (sent again, and in the function's log)
                if self._is_over.wait(0.5):
                    return
            else:
                return

    def _publish_backlog(self) -> None:
        """What CloudWatch knows of the endpoint on AWS."""
        cloudwatch: Any = local_client("cloudwatch", self._aws.endpoint_url)
        while not self._is_over.wait(_BACKLOG_EVERY_S):
            with contextlib.suppress(Exception):  # the local AWS has stopped
                cloudwatch.put_metric_data(
                    Namespace="AWS/SageMaker",
                    MetricData=[
                        {
                            "MetricName": "ApproximateBacklogSize",
                            "Dimensions": [{"Name": "EndpointName", "Value": ENDPOINT}],
                            "Timestamp": datetime.now(UTC),
                            "Value": self.endpoint.backlog,
                        }
                    ],
                )

    def _forward(self, event: Any) -> Any:  # noqa: ANN401  (any JSON value)
        return self._forward_pool.invoke(_FORWARD, event, timeout_s=_FORWARD_TIMEOUT_S)

    def _forward_as_before(self) -> None:
        while not self._is_over.wait(1.0):
            with contextlib.suppress(Exception):  # it is in the function's log; started again, as on AWS
                self._forward_pool.invoke(_FORWARD, {}, timeout_s=_FORWARD_TIMEOUT_S)
