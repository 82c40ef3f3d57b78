"""`make dev`: the whole service on this machine, behind http://127.0.0.1:8189. Ctrl-C ends it.

    python -m local.dev [--port PORT] [--workers N] [--log-dir DIR]

The same handlers as on AWS, against a local S3, SQS and DynamoDB, with the embedded engine or a real ComfyUI. Each
function may do what its role in template.yaml may, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from rich.console import Console

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.cli.batch import STACK_VARIABLE
from comfy_serverless.table.api_keys import ApiKeyStore
from local.aws.front import TIMEOUT_S, Front
from local.aws.function_pool import FunctionPool, LocalFunction
from local.aws.lambda_emulator import LambdaEmulator
from local.aws.processes import (
    ENGINE_VARIABLES,
    LOOPBACK,
    NotListening,
    ProcessDied,
    chosen_engine,
    free_port,
)
from local.aws.queue_poller import QueuePoller
from local.aws.roles import functions_by_handler, role_of
from local.aws.s3 import LocalS3, local_client
from local.aws.stack import LocalStack
from local.aws.template import STACK, TABLE
from local.sagemaker.async_endpoint import AsyncEndpoint
from local.sagemaker.endpoint_backend import EndpointBackend

ROOT = Path(__file__).parent.parent
PORT = 8189
API_KEY = "local-key-for-development-only"
OWNER = "local"
#: Lambda's longest.
GENERATE_TIMEOUT_S = 900
CARETAKER_EVERY_S = 5.0
API_PROCESSES = 4
_HANDLERS = "comfy_serverless.handlers"

_EPILOG = f"""\
settings (environment variables):
  PORT             where it listens (default: {PORT})
  API_KEY          the key it takes (default: {API_KEY})
  BACKEND          lambda (default) or sagemaker: what runs jobs
  COMFYUI_DIR      a ComfyUI checkout to run jobs on; also {", ".join(ENGINE_VARIABLES[1:])}

then, in another terminal (env.sh lies where the logs are):
  source out/dev/env.sh
  python -m examples.sdk_tour
  comfy-serverless batch submit events/manifest.jsonl --watch
"""


Backend = Literal["lambda", "sagemaker"]


class PortTaken(RuntimeError):
    """Somebody else listens there."""


class DevStack:
    """Everything, from `with` to the end of the block.

    Args:
        port: where the API listens; 0 for a free one.
        workers: how many jobs run at once, each in a Lambda emulator of its own.
        environment: settings of the functions, on top of the stack's.
        engine: the command that starts the engine; None for the embedded one, or the one that variables name.
        backend: what runs jobs: "lambda", or an asynchronous endpoint of "sagemaker".
    """

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
    ) -> None:
        self.api_key = api_key
        self.port = port or free_port()
        self._log_folder = log_folder
        self._workers = workers
        self._settings = dict(environment or {})
        self._engine = engine
        self._backend = backend
        self._endpoint: EndpointBackend | None = None
        self.aws = LocalS3()
        self._emulators: list[LambdaEmulator] = []
        self._pollers: list[QueuePoller] = []
        self._pool: FunctionPool | None = None
        self._server: _Server | None = None
        self._is_over = threading.Event()
        self._caretaker = threading.Thread(target=self._look_after_jobs, name="caretaker", daemon=True)
        self.stack: LocalStack

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What COMFY_BASE_URL must be."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def keys(self) -> ApiKeyStore:
        """The API keys."""
        return ApiKeyStore(Table(self.aws.dynamodb(), TABLE))

    @property
    def functions(self) -> FunctionPool:
        """The functions that run no jobs."""
        if self._pool is None:
            raise RuntimeError("the stack has not been started: use it in a `with` statement")
        return self._pool

    @property
    def endpoint(self) -> AsyncEndpoint:
        """The endpoint that runs jobs, with the backend "sagemaker"."""
        return self.endpoint_backend.endpoint

    @property
    def endpoint_backend(self) -> EndpointBackend:
        """The same with what belongs to it."""
        if self._endpoint is None:
            raise RuntimeError('there is an endpoint with backend="sagemaker" only')
        return self._endpoint

    @property
    def client_variables(self) -> dict[str, str]:
        """What makes SDKs, AWS libraries and the command line mean this machine."""
        return {
            **self.aws.environment,
            "COMFY_BASE_URL": self.url,
            "COMFY_API_KEY": self.api_key,
            STACK_VARIABLE: STACK,
        }

    def describe(self) -> None:
        """Let the command line find the resources as it does on AWS, by a stack of CloudFormation."""
        outputs = {name: {"Value": value} for name, value in self.stack.outputs.items()}
        outputs["ApiUrl"] = {"Value": self.url}
        cloudformation: Any = local_client("cloudformation", self.aws.endpoint_url)
        cloudformation.create_stack(StackName=STACK, TemplateBody=json.dumps({"Resources": {}, "Outputs": outputs}))

    def kill_workers(self) -> None:
        """End all workers at once, engine and all, as if their machines had lost power; new ones take their places."""
        for emulator in self._emulators:
            for pid in emulator.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._endpoint is not None:
            self._endpoint.kill_containers()

    def stop(self) -> None:
        """Stop everything. Safe to call twice."""
        self._is_over.set()
        if self._server is not None:
            self._server.stop()
        for poller in self._pollers:
            poller.stop(timeout_s=0.0)
        for emulator in self._emulators:
            emulator.stop()
        for poller in self._pollers:
            poller.stop(timeout_s=5.0)
        if self._endpoint is not None:
            self._endpoint.stop()
        if self._caretaker.is_alive():
            self._caretaker.join(5.0)
        if self._pool is not None:
            self._pool.close()
        self.aws.stop()

    def _start(self) -> None:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        self.aws.start()
        self.stack = LocalStack.create(self.aws)
        variables = {"ALLOW_PRIVATE_ADDRESSES": "true", **self._settings}
        if self._backend == "sagemaker":
            self._endpoint = EndpointBackend(
                self.stack,
                {**self.stack.environment, **variables, **self._engine_variables()},
                hear=self._hear_outcome,
                log_folder=self._log_folder,
                instances=self._workers,
            )
            variables |= self._endpoint.function_variables
        self._pool = FunctionPool(self._functions(variables), log_path=self._log_folder / "api.log")
        for name in ("caretaker", "authorizer", "api"):
            self._pool.warm(f"{_HANDLERS}.{name}.handler")
        self.keys.register(self.api_key, name="local", owner=OWNER)
        if self._endpoint is not None:
            self._endpoint.start()
        else:
            for number in range(self._workers):
                self._start_worker(variables, number)
        self._add_poller("WebhookQueue", "WebhookFunction", self._call_webhooks, name="webhooks", batch_size=10)
        self._add_poller("DropQueue", "IngestFunction", self._ingest, name="drops")
        self._add_poller("ManifestQueue", "IngestFunction", self._ingest, name="manifests")
        self._caretaker.start()
        api = functools.partial(self._pool.submit, f"{_HANDLERS}.api.handler", timeout_s=TIMEOUT_S)
        authorizer = functools.partial(self._pool.submit, f"{_HANDLERS}.authorizer.handler", timeout_s=TIMEOUT_S)
        self._server = _Server(Front(_future_of(api), _future_of(authorizer)), port=self.port)
        self._server.start()
        self._pool.invoke(f"{_HANDLERS}.caretaker.handler", {})

    def _functions(self, variables: Mapping[str, str]) -> dict[str, LocalFunction]:
        return {
            handler: LocalFunction(
                environment={**self.stack.environment_of(name), **variables},
                processes=API_PROCESSES if name == "ApiFunction" else 1,
            )
            for handler, name in functions_by_handler().items()
        }

    def _start_worker(self, variables: Mapping[str, str], number: int) -> None:
        environment = {**self.stack.environment_of("GenerateFunction"), **variables}
        settings = {**environment, **self._engine_variables(), "INITIAL_PORT": str(free_port())}
        emulator = LambdaEmulator(
            environment=settings,
            timeout_s=GENERATE_TIMEOUT_S,
            log_path=self._log_folder / f"generate-{number + 1}.log",
        )
        self._emulators.append(emulator)
        emulator.start()

        def invoke(event: Any) -> Any:  # noqa: ANN401
            emulator.start()  # anew, if it was killed: Lambda has always another machine
            return emulator.invoke(event)

        self._add_poller("JobQueue", "GenerateFunction", invoke, name=f"jobs {number + 1}")
        self._add_poller("BatchQueue", "GenerateFunction", invoke, name=f"batches {number + 1}")

    def _engine_variables(self) -> dict[str, str]:
        return {**chosen_engine(), **({"API_COMMAND_LINE": self._engine} if self._engine is not None else {})}

    def _hear_outcome(self, event: Any) -> Any:  # noqa: ANN401
        return self.functions.invoke(f"{_HANDLERS}.outcome.handler", event)

    def _add_poller(self, queue: str, function: str, invoke: Any, *, name: str, batch_size: int = 1) -> None:  # noqa: ANN401
        sqs = self.aws.sqs(role=role_of(function))  # Lambda takes messages in the name of the function
        poller = QueuePoller(sqs, self.stack.queues[queue], invoke, name=name, batch_size=batch_size)
        self._pollers.append(poller)
        poller.start()

    def _call_webhooks(self, event: Any) -> Any:  # noqa: ANN401
        return self.functions.invoke(f"{_HANDLERS}.webhooks.handler", event, timeout_s=180)

    def _ingest(self, event: Any) -> Any:  # noqa: ANN401
        return self.functions.invoke(f"{_HANDLERS}.ingest.handler", event, timeout_s=GENERATE_TIMEOUT_S)

    def _look_after_jobs(self) -> None:
        while not self._is_over.wait(CARETAKER_EVERY_S):
            try:
                self.functions.invoke(f"{_HANDLERS}.caretaker.handler", {"source": "aws.scheduler"})
            except Exception as error:  # noqa: BLE001  (the next round does it)
                if not self._is_over.is_set():
                    Console(stderr=True).print(f"the caretaker failed: {error}", markup=False)


class _Server:
    """The front's own thread and event loop."""

    def __init__(self, front: Front, *, port: int) -> None:
        self._front = front
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._is_up: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Return when it listens.

        Raises:
            PortTaken: somebody else does.
        """
        self._thread.start()
        try:
            self._is_up.result(timeout=10)
        except OSError as error:
            raise PortTaken(
                f"port {self._port} cannot be used ({error.strerror or error}): end what listens there, or choose "
                "another with PORT=…"
            ) from error

    def stop(self) -> None:
        """Close all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except BaseException as error:  # noqa: BLE001  (it is the starter's)
            self._is_up.set_exception(error)
            return
        self._is_up.set_result(None)
        self._loop.run_forever()
        if self._runner is not None:
            self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _listen(self) -> None:
        self._runner = web.AppRunner(self._front.application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._port).start()


def _future_of(submit: Any) -> Any:  # noqa: ANN401
    """Invocations that could not even begin fail like others."""

    def begin(event: Any) -> Future[Any]:  # noqa: ANN401
        try:
            future: Future[Any] = submit(event)
        except Exception as error:  # noqa: BLE001  (told by the future)
            future = Future()
            future.set_exception(error)
        return future

    return begin


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; answers the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m local.dev",
        description=(__doc__ or "").splitlines()[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or PORT), help="where it listens")
    parser.add_argument("--workers", type=int, default=1, help="jobs that run at once (default: 1)")
    parser.add_argument(
        "--backend",
        choices=["lambda", "sagemaker"],
        default=os.environ.get("BACKEND") or "lambda",
        help="what runs jobs (default: lambda)",
    )
    parser.add_argument("--log-dir", type=Path, default=ROOT / "out" / "dev", help="where logs go (default: out/dev/)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
    signal.signal(signal.SIGINT, lambda *_: asked_to_end.set())
    stack = DevStack(
        port=options.port,
        api_key=os.environ.get("API_KEY") or API_KEY,
        workers=options.workers,
        backend=options.backend,
        log_folder=options.log_dir,
    )
    try:
        with console.status("Starting"):
            stack.__enter__()
            stack.describe()
        key = "the one in API_KEY" if os.environ.get("API_KEY") else stack.api_key
        variables = options.log_dir / "env.sh"
        _write_variables(variables, stack)
        print(f"comfy-serverless is ready at {stack.url}  key: {key}  docs: {stack.url}/docs", flush=True)
        console.print(f"In another terminal: source {_short(variables)}", style="dim")
        asked_to_end.wait()
    except (PortTaken, ProcessDied, NotListening) as error:
        console.print(f"[bold red]It did not start:[/] {error}")
        return 1
    finally:
        with console.status("Stopping"):
            stack.stop()
    return 0


def _write_variables(path: Path, stack: DevStack) -> None:
    """For `source`. A key that somebody has chosen is not written anywhere."""
    variables = {name: value for name, value in stack.client_variables.items() if value != os.environ.get("API_KEY")}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    path.write_text("".join(lines), encoding="utf-8")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
