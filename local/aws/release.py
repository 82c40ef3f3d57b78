"""`make dev DEV_ARGS="--release next=…"`: a named release beside the workers of the stack, as a stack of `infra/` is.

It has queues and a worker of its own, and announces itself; `comfy-serverless release promote` makes it live.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_serverless.table.live import DEFAULT, NAME
from comfy_serverless.table.target import QueueTarget
from local.aws.lambda_backend import FUNCTION, TIMEOUT_S, invoke_on
from local.aws.lambda_emulator import LambdaEmulator
from local.aws.processes import free_port
from local.aws.queue_poller import QueuePoller
from local.aws.server import local_client
from local.aws.stack import LocalStack, create_queue
from local.aws.template import STACK

#: The parameter in which a stack says where jobs run, and the folder in which releases announce themselves.
DISPATCH = f"/comfy-serverless/{STACK}/dispatch"
_FOLDER = f"/comfy-serverless/{STACK}/releases"


@dataclass(frozen=True, slots=True)
class ReleaseWish:
    """A release to be started: its name, and the variables that choose its engine (those of all others, if none)."""

    name: str
    engine: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> ReleaseWish:
        """Read NAME, NAME=FOLDER of a ComfyUI checkout, or NAME=COMMAND that starts an engine. Raises ValueError."""
        name, _, engine = text.partition("=")
        if not NAME.fullmatch(name) or name == DEFAULT:
            raise ValueError("must begin with a name of small letters, digits and -, other than default: next=FOLDER")
        if not engine:
            return cls(name, {})
        return cls(name, {"COMFYUI_DIR" if Path(engine).expanduser().is_dir() else "API_COMMAND_LINE": engine})


class LocalRelease:
    """The queues and the worker of a release, which is the administrator here: its role is in `infra/` only.

    Args:
        environment: of the worker, on top of what the stack gives the function of its own workers.
    """

    def __init__(
        self, stack: LocalStack, wish: ReleaseWish, environment: Mapping[str, str], *, log_folder: Path
    ) -> None:
        self.name = wish.name
        self._stack = stack
        self.queues = {
            resource: create_queue(stack.aws, resource, called=f"{STACK}-release-{wish.name}-{kind}")
            for resource, kind in (("JobQueue", "jobs"), ("BatchQueue", "batches"))
        }
        self._emulator = LambdaEmulator(
            environment={
                **stack.environment_of(FUNCTION),
                **stack.aws.environment,
                **environment,
                **wish.engine,
                "RELEASE_VERSION": f"local-{wish.name}",
                "WORKER_IMAGE": f"release-{wish.name}",
                "JOB_QUEUE_URL": self.queues["JobQueue"],
                "BATCH_QUEUE_URL": self.queues["BatchQueue"],
                "INITIAL_PORT": str(free_port()),
            },
            timeout_s=TIMEOUT_S,
            log_path=log_folder / f"generate-{wish.name}.log",
        )
        self._pollers: list[QueuePoller] = []

    def start(self) -> None:
        """Start the worker, give it messages, and announce it."""
        self._emulator.start()
        for resource, url in self.queues.items():
            name = f"{resource} of {self.name}"
            poller = QueuePoller(self._stack.aws.sqs(), url, invoke_on(self._emulator), name=name)
            poller.start()
            self._pollers.append(poller)
        target = QueueTarget(self.queues["JobQueue"], self.queues["BatchQueue"], f"release-{self.name}")
        told = {**json.loads(target.to_text()), "release_version": f"local-{self.name}"}
        ssm: Any = local_client("ssm", self._stack.aws.endpoint_url)
        ssm.put_parameter(Name=f"{_FOLDER}/{self.name}", Value=json.dumps(told), Type="String", Overwrite=True)

    def stop(self) -> None:
        """Stop the worker. A job that runs is cut off. Safe to call twice."""
        for poller in self._pollers:
            poller.stop(timeout_s=0.0)
        self._emulator.stop()
        for poller in self._pollers:
            poller.stop(timeout_s=5.0)
