"""Runs an image as Lambda does: root read-only, a user without a name, under the Runtime Interface Emulator."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import requests

from demo.sam import build_arguments
from local.aws.lambda_emulator import emulator_binary, read_answer
from local.dev import OWNER
from tests.start_limit import JOB_S

ROOT = Path(__file__).parent.parent.parent
BUILD_TIMEOUT_S = 1500
USER = "993:990"
#: How Lambda confines a function, as far as a container engine can: no name, no rights, and only /tmp to write to.
SANDBOX = (
    *("--read-only", "--tmpfs", "/tmp:rw,exec,mode=1777", "--user", USER),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
START_TIMEOUT_S = 60


def docker(*arguments: str, timeout_s: float = 120) -> str:
    """Run docker. Returns its output; a failure is an AssertionError with all of it."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def build_image(target: str, *options: str) -> str:
    """Build a target of the Dockerfile from the working tree. Returns the image's name."""
    name = f"comfy-serverless-test:{target}"
    here = [f"--build-arg={argument}={value}" for argument, value in build_arguments().items()]
    docker("build", "--target", target, "--tag", name, *here, *options, str(ROOT), timeout_s=BUILD_TIMEOUT_S)
    return name


def http_event(path: str, *, method: str = "GET", owner: str = OWNER, body: object = None) -> dict[str, Any]:
    """An event in API Gateway's form, after the authorizer; a body is sent as JSON."""
    sent = {} if body is None else {"body": json.dumps(body)}
    path, _, query = path.partition("?")
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": dict(parse_qsl(query, keep_blank_values=True)),
        "headers": {"host": "api.example", "content-type": "application/json", "accept": "application/json"},
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "-"},
            "stage": "$default",
            "requestId": "request",
            "authorizer": {"lambda": {"owner": owner, "key_id": "key"}},
        },
        "isBase64Encoded": False,
        **sent,
    }


class LambdaContainer:
    """One container, which lives for a `with` block.

    Args:
        timeout_s: the function's; of an image that may start for long, as long as that and a job together.
        start_s: how long the container may take to start, and ComfyUI in it.
        command: the handler, for an image of several functions; without it, the image's own.
        files: files of this machine that it sees, each with the path it has there.
        memory: what its function has, as the engine writes it ("1g"); without it, no limit.
    """

    def __init__(
        self,
        image: str,
        environment: Mapping[str, str],
        *,
        timeout_s: int = 120,
        start_s: int = START_TIMEOUT_S,
        files: Mapping[Path, str] | None = None,
        command: str = "",
        memory: str = "",
    ) -> None:
        self._image = image
        self._limits = ("--memory", memory) if memory else ()
        self._command = command
        self._start_s = start_s
        self._timeout_s = timeout_s if start_s <= timeout_s else start_s + JOB_S
        self._environment = {**environment, "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout_s)}
        self._files = {emulator_binary(): "/emulator", **(files or {})}
        self._name = f"comfy-serverless-test-{uuid.uuid4().hex[:12]}"
        self._url = ""

    def __enter__(self) -> Self:
        variables = [word for name, value in self._environment.items() for word in ("--env", f"{name}={value}")]
        entry_point = docker("inspect", "--format", "{{range .Config.Entrypoint}}{{println .}}{{end}}", self._image)
        own_command = docker("inspect", "--format", "{{range .Config.Cmd}}{{println .}}{{end}}", self._image)
        docker(
            *("run", "--detach", "--name", self._name, "--publish", "127.0.0.1::8080"),
            *SANDBOX,
            *self._limits,
            *(word for file, place in self._files.items() for word in ("--volume", f"{file}:{place}:ro")),
            *("--entrypoint", "/emulator"),
            *variables,
            self._image,
            *entry_point.split(),
            *(self._command or own_command).split(),
            timeout_s=max(120, self._start_s),
        )
        try:
            self._url = f"http://{self._address()}/2015-03-31/functions/function/invocations"
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def invoke(self, event: object) -> Any:
        """Invoke the function. Returns its result."""
        with requests.Session() as session:
            session.trust_env = False
            return read_answer(session.post(self._url, json=event, timeout=self._timeout_s + 30).text)

    def log(self) -> str:
        """Everything the function printed."""
        done = subprocess.run(["docker", "logs", self._name], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def shell(self, script: str) -> str:
        """Run a shell script in the container. Returns what it prints."""
        return docker("exec", self._name, "sh", "-c", script)

    def _address(self) -> str:
        address = docker("port", self._name, "8080/tcp").splitlines()[0]
        deadline = time.monotonic() + self._start_s
        while time.monotonic() < deadline:
            try:
                requests.get(f"http://{address}/", timeout=START_TIMEOUT_S)
            except requests.ConnectionError:
                time.sleep(0.05)
            else:
                return address
        raise AssertionError(f"{self._image} does not listen:\n{self.log()}")

    def _remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", self._name], capture_output=True, timeout=60, check=False)
