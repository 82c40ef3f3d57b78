"""A worker over an engine that owners share: the embedded one, or the ComfyUI in COMFYUI_DIR."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from tests.contract.engines import REAL_COMFYUI, START_PATIENCE_S, free_port
from tests.contract.packs_of_engine import fill_custom_nodes

HERE = Path(__file__).parent


@dataclass(frozen=True)
class RequestOf:
    """A request of an owner. A `RequestSource`."""

    owner_name: str
    request: Mapping[str, Any]
    default_id: str
    labels: Mapping[str, str]
    is_checked: bool = True
    origin_bucket: None = None
    extra_data: None = None
    trace: None = None

    def read(self, **_: object) -> JobRequest:
        return JobRequest.parse(dict(self.request))


class SharedWorker:
    """Runs jobs of several owners in one engine. Results are not stored: they are read where they are kept.

    Args:
        base: ComfyUI's folder.
        changes: settings.
    """

    def __init__(self, base: Path, **changes: Any) -> None:
        self.base = base
        for name in ("input", "output", "temp", "custom_nodes", "user"):
            (base / name).mkdir(parents=True)
        settings = replace(Settings.from_environment(), initial_port=free_port(), output_bucket=None, **changes)
        if REAL_COMFYUI:
            (base / "models").symlink_to(Path(REAL_COMFYUI) / "models")
            fill_custom_nodes(base, Path(REAL_COMFYUI))
            settings = replace(settings, comfyui_args=f"--cpu --base-directory {base}")
        else:
            command = f"{sys.executable} {HERE / 'lite_engine.py'} --base-directory {base}"
            settings = replace(settings, api_command_line=command)
        self.connector = ComfyConnector(settings=settings)
        self._sandbox = Sandbox()
        s3: Any = None
        inputs = InputFetcher(settings=settings, s3=s3, connector=self.connector, sandbox=self._sandbox)
        self._worker = Worker(
            settings=settings, engine=self.connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
        )

    def run(
        self, graph: Mapping[str, Any], *, owner: str = "bob", deadline_s: float = START_PATIENCE_S, **request: Any
    ) -> Outcome:
        """Run a job to its end. Its outputs can be read until it is released."""
        fields = {"workflow": dict(graph), "deadline_s": deadline_s, **request}
        source: Any = RequestOf(owner, fields, f"{owner}-{uuid.uuid4().hex}", {})
        return self._worker.run(source, Call())

    def contents(self, graph: Mapping[str, Any], **request: Any) -> tuple[Outcome, dict[str, bytes]]:
        """Run a job; return how it ended, and its outputs by node and name."""
        outcome = self.run(graph, **request)
        made = {f"{output.node_id}/{output.name}": outcome.made[output.id].read() for output in outcome.job.outputs}
        outcome.release()
        return outcome, made

    def files(self, *folders: str) -> set[str]:
        """The files in these folders of ComfyUI."""
        found = (path for folder in folders for path in (self.base / folder).rglob("*"))
        return {str(path.relative_to(self.base)) for path in found if path.is_file()}

    def close(self) -> None:
        self._worker.close()
        self.connector.kill_api()
        self._sandbox.close()
