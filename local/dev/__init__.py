"""`make dev`: the whole service on this machine. `command_line` starts and ends it.

The same handlers as on AWS, against a local S3, SQS and DynamoDB, with the embedded engine or a real ComfyUI. Each
function may do what its role in template.yaml may, and nothing else.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from rich.console import Console

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.cli.job_logs import FOLDER_OUTPUT
from comfy_serverless.cli.stack import STACK_VARIABLE
from comfy_serverless.table.api_keys import ApiKeyStore
from local.aws.function_pool import FunctionPool, LocalFunction
from local.aws.gateway import TIMEOUT_S, Gateway, GatewayServer
from local.aws.lambda_backend import FUNCTION, LambdaBackend
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LOOPBACK, chosen_engine, free_port
from local.aws.queue_poller import QueuePoller
from local.aws.release import DISPATCH, LocalRelease, ReleaseWish
from local.aws.roles import functions_by_handler
from local.aws.server import LocalAws
from local.aws.stack import LocalStack, allow_origins
from local.aws.template import STACK, TABLE
from local.sagemaker.async_endpoint import AsyncEndpoint
from local.sagemaker.endpoint_backend import EndpointBackend

if TYPE_CHECKING:
    from comfy_serverless.api.event_streams import EventStreams

API_KEY = "local-key-for-development-only"
OWNER = "local"
#: The function that streams events: here the gateway does what it does.
EVENTS_FUNCTION = "EventsFunction"
#: Requests at once, at most: who waits for a job has one for a while. Each starts when it is needed.
API_PROCESSES = 6
#: The same of agents: a call that waits for its job has one for a second at a time.
AGENT_PROCESSES = 3
CARETAKER_EVERY_S = 5.0
WEBHOOK_TIMEOUT_S = 180
INGEST_TIMEOUT_S = 900

Backend = Literal["lambda", "sagemaker"]


class StoppedEarly(RuntimeError):
    """Somebody has asked for the end before all had started."""


class DevStack:
    """Everything, from `with` to the end of the block.

    Args:
        port: where the API listens; 0 for a free one.
        workers: how many jobs run at once, each in a Lambda emulator of its own.
        environment: settings of the functions, on top of the stack's.
        engine: the command that starts the engine; None for the embedded one, or the one that variables name.
        backend: what runs jobs: "lambda", or an asynchronous endpoint of "sagemaker".
        source_roots: the folders of packages of another release, by the functions that run it ("GenerateFunction"):
            a stack in the middle of an update. With "sagemaker" the GPU stack runs that of "GenerateFunction".
        releases: named releases to start beside the workers.

    Attributes:
        aws: the local AWS.
        stack: the resources in it, once started.
        functions: the functions that run no jobs, once started.
        log_folder: what they all log is in files there.
    """

    stack: LocalStack
    functions: FunctionPool
    _backend: LambdaBackend | EndpointBackend

    def __init__(
        self,
        *,
        log_folder: Path,
        port: int = 0,
        api_key: str = API_KEY,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        engine: str | None = None,
        backend: Backend = "lambda",
        source_roots: Mapping[str, Path] | None = None,
        releases: Sequence[ReleaseWish] = (),
    ) -> None:
        self.api_key = api_key
        self.port = port or free_port()
        self.aws = LocalAws()
        self.log_folder = log_folder
        self._workers = workers
        self._settings = {"ALLOW_PRIVATE_ADDRESSES": "true", "DROP_OWNER": OWNER, **(environment or {})}
        self._engine = {**chosen_engine(), **({"API_COMMAND_LINE": engine} if engine is not None else {})}
        self._backend_name = backend
        self._source_roots = source_roots or {}
        self._wishes = releases
        self._is_over = threading.Event()
        self._running = ExitStack()
        self._making_events = threading.Lock()
        self._made_events: EventStreams | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and return when requests are served.

        Raises:
            PortTaken, ProcessDied, NotListening: something does not start; all that has started is stopped.
            StoppedEarly: `end_soon` was called; likewise.
        """
        steps = (self._start_aws, self._start_backend, self._start_queues, self._start_caretaker, self._start_api)
        try:
            for step in steps:
                self.go_on()
                step()
        except BaseException:
            self.stop()
            raise

    def end_soon(self) -> None:
        """Ask for the end: what waits stops waiting, and a start goes no further. `stop` does the rest."""
        self._is_over.set()

    def go_on(self) -> None:
        """Raise StoppedEarly if somebody has asked for the end."""
        if self._is_over.is_set():
            raise StoppedEarly

    def stop(self) -> None:
        """Stop everything, in the opposite order. Safe to call twice."""
        self._is_over.set()
        self._running.close()

    @property
    def url(self) -> str:
        """What COMFY_BASE_URL must be."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def keys(self) -> ApiKeyStore:
        """The API keys."""
        return ApiKeyStore(Table(self.aws.dynamodb(), TABLE))

    @property
    def endpoint_backend(self) -> EndpointBackend:
        """What runs jobs with the backend "sagemaker"."""
        assert isinstance(self._backend, EndpointBackend), 'there is an endpoint with backend="sagemaker" only'
        return self._backend

    @property
    def endpoint(self) -> AsyncEndpoint:
        """Its endpoint."""
        return self.endpoint_backend.endpoint

    @property
    def client_variables(self) -> dict[str, str]:
        """What makes SDKs, AWS libraries and the command line use this machine."""
        return {
            **self.aws.environment,
            "COMFY_BASE_URL": self.url,
            "COMFY_API_KEY": self.api_key,
            STACK_VARIABLE: STACK,
        }

    def describe(self) -> None:
        """Let the command line find the resources as it does on AWS, by a stack of CloudFormation."""
        folder = str(self.log_folder.resolve())
        self.aws.describe(STACK, {**self.stack.outputs, "ApiUrl": self.url, FOLDER_OUTPUT: folder})

    def kill_workers(self) -> None:
        """End all workers at once, engine and all, as if their machines had lost power; new ones take their places."""
        self._backend.kill()

    def _start_aws(self) -> None:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        for old in self.log_folder.glob("*.log"):
            old.unlink()
        self._running.callback(self.aws.stop)
        self.stack = LocalStack.create(self.aws.start())
        if origins := self._settings.get("CORS_ORIGINS"):
            allow_origins(self.aws, *origins.split(","))
        is_admin = "AuthorizerFunction" not in self._source_roots  # that of an older release knows no admins
        self.keys.register(self.api_key, name="local", owner=OWNER, is_admin=is_admin)

    def _start_backend(self) -> None:
        """Start the functions, and what runs jobs: each has to know where the other is."""
        environment = {**self._settings, **self._engine}
        if self._backend_name == "sagemaker":
            self._backend = EndpointBackend(
                self.stack,
                {**self.stack.environment, **environment},
                on_outcome=lambda event: self._call("outcome")(event),
                log_folder=self.log_folder,
                instances=self._workers,
                source_root=self._source_roots.get(FUNCTION, SOURCE_ROOT),
            )
        else:
            self._backend = LambdaBackend(
                self.stack,
                environment,
                log_folder=self.log_folder,
                workers=self._workers,
                source_root=self._source_roots.get(FUNCTION, SOURCE_ROOT),
            )
        variables = {**self._settings, **self._backend.function_variables}
        if self._wishes:
            variables["DISPATCH_PARAMETER"] = DISPATCH
        functions = {
            handler: LocalFunction(
                environment={**self.stack.environment_of(name), **variables},
                processes={"ApiFunction": API_PROCESSES, "McpFunction": AGENT_PROCESSES}.get(name, 1),
                source_root=self._source_roots.get(name, SOURCE_ROOT),
            )
            for handler, name in functions_by_handler().items()
            if name != EVENTS_FUNCTION
        }
        self.functions = FunctionPool(functions, log_path=self.log_folder / "api.log")
        self._running.callback(self.functions.close)
        for name in ("caretaker", "authorizer", "api"):
            self.functions.warm(_handler(name))
        self._running.callback(self._backend.stop)
        self._backend.start()
        for wish in self._wishes:
            chosen = self._settings if wish.engine else environment
            release = LocalRelease(self.stack, wish, chosen, log_folder=self.log_folder)
            self._running.callback(release.stop)
            release.start()

    def _start_queues(self) -> None:
        webhooks = self._call("webhooks", timeout_s=WEBHOOK_TIMEOUT_S)
        ingest = self._call("ingest", timeout_s=INGEST_TIMEOUT_S)
        pollers = [
            self.stack.feed("WebhookQueue", "WebhookFunction", webhooks, name="webhooks", batch_size=10),
            self.stack.feed("DropQueue", "IngestFunction", ingest, name="drops"),
            self.stack.feed("ManifestQueue", "IngestFunction", ingest, name="manifests"),
        ]
        self._running.callback(_stop_pollers, pollers)

    def _start_caretaker(self) -> None:
        caretaker = threading.Thread(target=self._look_after_jobs, name="caretaker", daemon=True)
        caretaker.start()
        self._running.callback(caretaker.join, 5.0)

    def _start_api(self) -> None:
        api, authorizer, agents = (
            functools.partial(self.functions.submit, _handler(name), timeout_s=TIMEOUT_S)
            for name in ("api", "authorizer", "mcp")
        )
        known = API_KEY if self.api_key == API_KEY else None
        server = GatewayServer(Gateway(api, authorizer, agents, self._events, known), port=self.port)
        self._running.callback(server.stop)
        server.start()
        threading.Thread(target=self._events, name="warms events", daemon=True).start()
        self._call("caretaker")({})

    def _events(self) -> EventStreams:
        """What answers with live events. Made when it is first needed: what it stands on takes a moment to load."""
        with self._making_events:
            if self._made_events is None:
                from local.aws.live_events import event_streams, quick_pace

                wait = self._is_over.wait
                self._made_events = event_streams(self.stack, self._settings, wait=wait, pace=quick_pace)
            return self._made_events

    def _call(self, name: str, *, timeout_s: float = 60.0) -> Callable[[Any], Any]:
        """What invokes a function with an event and returns its result."""
        return functools.partial(self.functions.invoke, _handler(name), timeout_s=timeout_s)

    def _look_after_jobs(self) -> None:
        look = self._call("caretaker")
        while not self._is_over.wait(CARETAKER_EVERY_S):
            try:
                look({"source": "aws.scheduler"})
            except Exception as error:  # noqa: BLE001  (the next round does it)
                if not self._is_over.is_set():
                    Console(stderr=True).print(f"the caretaker failed: {error}", markup=False)


def _handler(name: str) -> str:
    return f"comfy_serverless.handlers.{name}.handler"


def _stop_pollers(pollers: Sequence[QueuePoller]) -> None:
    for timeout_s in (0.0, 5.0):  # all are asked to end before the first is waited for
        for poller in pollers:
            poller.stop(timeout_s=timeout_s)
