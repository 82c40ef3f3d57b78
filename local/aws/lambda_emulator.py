"""A Lambda function on this machine: AWS's own Runtime Interface Emulator around the real runtime client.

The emulator is the program `sam local invoke` puts into its containers; its binary comes with the aws-sam-cli
package and needs no container. It differs from Lambda in this: two invocations at once crash it (`invoke` lets
one after the other through), nothing freezes in between, and what a killed function leaves behind runs on until
`stop()`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from local.aws.processes import (
    LOOPBACK,
    POLL_S,
    LocalProcess,
    NotListening,
    OutputLog,
    ProcessDied,
    clean_environment,
    free_port,
)

HANDLER = "comfy_serverless.handlers.generate.handler"
SOURCE_ROOT = Path(__file__).parents[2] / "lambda"
FUNCTION_NAME = "GenerateFunction"
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
#: What the emulator may take beyond the function's own timeout: a cold start, and the end of a runtime.
ANSWER_MARGIN_S = 30.0
START_ATTEMPTS = 5
START_TIMEOUT_S = 30.0


class LambdaFailed(Exception):
    """The function failed, as Lambda reports it.

    Attributes:
        error_type: the class of the exception, or Lambda's own: "Sandbox.Timedout", "Runtime.ExitError", ...
        error_message: what it says.
        stack_trace: the lines of the traceback, if there is one.
    """

    def __init__(self, error_type: str, error_message: str, stack_trace: list[str] | None = None) -> None:
        super().__init__(f"{error_type}: {error_message}")
        self.error_type = error_type
        self.error_message = error_message
        self.stack_trace = stack_trace or []


class EmulatorNotFound(RuntimeError):
    """There is no Runtime Interface Emulator for this machine; the message says why."""


class LambdaEmulator:
    """One Lambda function, from `with` to the end of the block. Its process starts with the first invocation.

    Args:
        handler: module and function, as a Lambda function's configuration names it.
        environment: the function's environment variables; of ours it sees hardly more than PATH.
        timeout_s: the function's timeout in whole seconds.
        source_root: the folder that holds the handler's package, and the working directory.
        log_path: a file that gets everything the function prints.
    """

    def __init__(
        self,
        handler: str = HANDLER,
        environment: Mapping[str, str] | None = None,
        *,
        timeout_s: int = 60,
        memory_mb: int = 2048,
        source_root: Path = SOURCE_ROOT,
        log_path: Path | None = None,
    ) -> None:
        self._handler = handler
        self._environment = dict(environment or {})
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._source_root = source_root
        self._log_path = log_path
        self._process: LocalProcess | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._url = ""
        self._one_at_a_time = threading.Lock()
        self._session = requests.Session()
        self._session.trust_env = False  # proxies of the environment are not for loopback

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> OutputLog:
        """What the function and the emulator have printed."""
        return self._running().log

    @property
    def pid(self) -> int:
        """The process id of the emulator."""
        return self._running().pid

    def members(self) -> list[int]:
        """The process ids of the emulator, of the function, and of everything the function started."""
        return self._running().members()

    def start(self) -> Self:
        """Start the emulator and return when it accepts invocations. Does nothing while it is started.

        Raises:
            EmulatorNotFound: there is none for this machine.
            ProcessDied: it does not start; the message has what it printed.
        """
        if self._process is not None and self._process.exit_code is None:
            return self
        self.stop()
        binary = emulator_binary()
        self._temporary = tempfile.TemporaryDirectory(prefix="comfy-lambda-", ignore_cleanup_errors=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start(binary, Path(self._temporary.name))
            except ProcessDied as error:  # another program may have taken a port before it started
                if attempt < START_ATTEMPTS and "in use" in str(error):
                    self._stop_process()
                    continue
                self.stop()
                raise
            except BaseException:
                self.stop()
                raise
            break
        return self

    def stop(self) -> None:
        """End the emulator, the function, and everything the function started. Safe to call twice."""
        self._stop_process()
        self._session.close()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def invoke(self, event: object) -> Any:  # noqa: ANN401  (any JSON value)
        """Invoke the function synchronously; returns what the function returned.

        Raises:
            LambdaFailed: the handler raised, its process ended, or it took too long.
            ProcessDied: the emulator itself is gone.
        """
        body = json.dumps(event).encode()
        with self._one_at_a_time:
            process = self._running()
            process.check()
            try:
                response = self._session.post(
                    self._url,
                    data=body,
                    headers={"Content-Type": "application/json", "Connection": "close"},
                    timeout=self._timeout_s + ANSWER_MARGIN_S,
                )
            except requests.Timeout as error:
                raise LambdaFailed("Emulator.Timeout", f"no answer; its last lines:\n{process.log.tail()}") from error
            except requests.ConnectionError as error:
                _wait_for_death(process)
                raise LambdaFailed("Emulator.Disconnected", str(error)) from error
        return read_answer(response.text)

    def _start(self, binary: Path, temporary: Path) -> None:
        port, runtime_port = free_port(), free_port()
        command: list[str | Path] = [
            binary,
            *("--runtime-interface-emulator-address", f"{LOOPBACK}:{port}"),
            *("--runtime-api-address", f"{LOOPBACK}:{runtime_port}"),
            *(sys.executable, "-m", "awslambdaric", self._handler),
        ]
        environment = {
            **clean_environment(),
            "PYTHONPATH": str(self._source_root),
            "LAMBDA_TASK_ROOT": str(self._source_root),
            "TMPDIR": str(temporary),
            "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAME,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout_s),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self._memory_mb),
            **self._environment,
        }
        self._url = f"http://{LOOPBACK}:{port}/2015-03-31/functions/function/invocations"
        self._process = LocalProcess(
            command,
            environment,
            name="the Lambda emulator",
            working_directory=self._source_root,
            log_path=self._log_path,
        )
        self._process.wait_until_listening(port)
        self._wait_for_runtime_api(self._process, f"http://{LOOPBACK}:{runtime_port}/2018-06-01/ping")

    def _wait_for_runtime_api(self, process: LocalProcess, url: str) -> None:
        """The emulator opens its second port a moment after the first, and ends if it cannot."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            process.check()
            with contextlib.suppress(requests.RequestException):
                if self._session.get(url, timeout=1).text == "pong":
                    return
            time.sleep(POLL_S)
        raise NotListening(f"the Lambda emulator is not ready after {START_TIMEOUT_S:g} s:\n{process.log.tail()}")

    def _running(self) -> LocalProcess:
        if self._process is None:
            raise RuntimeError("the Lambda emulator has not been started: use it in a `with` statement")
        return self._process

    def _stop_process(self) -> None:
        if self._process is not None:
            self._process.stop()


def emulator_binary() -> Path:
    """The Runtime Interface Emulator for this machine, out of the installed aws-sam-cli package.

    Raises:
        EmulatorNotFound: the package is missing, or has none for this machine.
    """
    architecture = ARCHITECTURES.get(platform.machine().lower())
    if platform.system() != "Linux" or architecture is None:
        raise EmulatorNotFound(
            f"the Lambda emulator runs on Linux (x86_64, arm64), not on {platform.system()}"
            f" {platform.machine()}: use `make sam-demo`, which runs it in a container"
        )
    package = importlib.util.find_spec("samcli")
    if package is None or package.origin is None:
        raise EmulatorNotFound("aws-sam-cli, which brings the Lambda emulator, is not installed: `make setup`")
    binary = Path(package.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{architecture}"
    if not binary.is_file():
        raise EmulatorNotFound(f"the installed aws-sam-cli has no {binary.name}: `make setup` installs the right one")
    return binary


def read_answer(text: str) -> Any:  # noqa: ANN401  (any JSON value)
    """What a function returned, out of the emulator's answer; its errors come with status 200, too.

    Raises:
        LambdaFailed: it is an error.
    """
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:  # the emulator reports timeouts in plain words
        error_type = "Sandbox.Timedout" if "timed out" in text else "Emulator.BadAnswer"
        raise LambdaFailed(error_type, text.strip()) from None
    if isinstance(answer, dict) and {"errorType", "errorMessage"} <= answer.keys():
        raise LambdaFailed(answer["errorType"], answer["errorMessage"], answer.get("stackTrace"))
    return answer


def _wait_for_death(process: LocalProcess) -> None:
    """Raise `ProcessDied` if the process ends within a moment; a connection breaks a little before that."""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        process.check()
        time.sleep(0.01)
