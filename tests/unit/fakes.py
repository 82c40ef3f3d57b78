"""A small world for the job tests: an engine that does what a test says, outputs without files, S3 in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from comfy_serverless.connector.facts import Timings
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.progress import Progress
from comfy_serverless.errors import ComfyError
from comfy_serverless.files import UNKNOWN_TYPE, OutputKind, kind_of, type_of_name
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.fetcher import PreparedInputs
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

IN, OUT = "in-bucket", "out-bucket"
WORKFLOW: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 20}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}, "_meta": {"title": "Result"}},
}


def png(width: int = 4, height: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def made(
    name: str = "a.png",
    content: bytes | None = None,
    *,
    node_id: str = "9",
    index: int = 0,
    subfolder: str = "",
    folder_type: str = "output",
    path: Path | None = None,
) -> Output:
    content_type = type_of_name(name) or UNKNOWN_TYPE
    return Output(
        node_id=node_id,
        class_type="SaveImage",
        title="Result",
        index=index,
        name=name,
        subfolder=subfolder,
        folder_type=folder_type,
        kind=OutputKind.TEXT if name.endswith(".txt") else kind_of("", content_type),
        content_type=content_type,
        path=path,
        content=None if path else (png() if content is None else content),
    )


@dataclass
class FakeExecution:
    outputs: tuple[Output, ...]
    warnings: tuple[str, ...] = ()
    timings: Timings = field(default_factory=lambda: Timings(queued_ms=1, executing_ms=2, total_ms=3))


@dataclass
class FakeEngine:
    """Makes `outputs` (`attempts` times), then calls `then`, then raises `error`, if there is one."""

    outputs: tuple[Output, ...] = field(default_factory=lambda: (made(),))
    error: ComfyError | Exception | None = None
    then: Callable[[], object] = lambda: None
    warnings: tuple[str, ...] = ()
    attempts: int = 1
    announces: bool = True
    begins: bool = True
    overlaps: bool = True
    engine: str = "a fake"
    runs: list[dict[str, Any]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    discarded: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    starts: int = 1
    lines: tuple[str, ...] = ()
    declares: Mapping[str, Any] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    def object_info_now(self) -> Mapping[str, Any]:
        return self.declares

    def file_names(self) -> frozenset[str]:
        return self.files

    def cancel(self, prompt_id: str) -> bool:
        self.canceled.append(prompt_id)
        return True

    def discard(self, prompt_id: str, *, apart_as: str | None = None) -> None:
        self.discarded.append({"prompt_id": prompt_id, "apart_as": apart_as})

    def kept_bytes(self, apart_as: str) -> int:
        return self.kept.get(apart_as, 0)

    def discard_kept(self, apart_as: str) -> None:
        self.kept.pop(apart_as, None)

    def may_overlap(self, workflow: Mapping[str, Any]) -> bool:
        return self.overlaps

    @contextmanager
    def hold_folders(self, check: Callable[[], None], *, owner: str | None = None) -> Iterator[None]:
        check()
        yield

    def run(
        self,
        workflow: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
        execution_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_output: Callable[[Output], None] | None = None,
        on_log: Callable[[Sequence[str]], None] | None = None,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        apart_as: str | None = None,
        recalls_as: str = "",
    ) -> FakeExecution:
        run = {"workflow": workflow, "deadline_s": deadline_s, "execution_s": execution_s, "prompt_id": prompt_id}
        self.runs.append(run | {"apart_as": apart_as, "recalls_as": recalls_as, "extra_data": extra_data})
        assert on_progress is not None
        assert on_output is not None
        if self.begins:
            on_progress(Progress(value=1.0, nodes_done=2, nodes_total=2))
        for output in self.outputs * self.attempts if self.announces else ():
            on_output(output)
        self.then()
        if on_log is not None:
            on_log(self.lines)
        if self.error is not None:
            if isinstance(self.error, ComfyError):
                self.error.outputs = self.outputs
            raise self.error
        return FakeExecution(self.outputs, self.warnings)


class FakeInputs:
    """Passes the graph on, or fails."""

    def __init__(self, error: ComfyError | None = None) -> None:
        self.error = error
        self.calls: list[dict[str, Any]] = []
        self.shown: list[str] = []
        self.released: list[str] = []

    def prepare(
        self,
        graph: Mapping[str, Any],
        inputs: Mapping[str, str | list[str]],
        *,
        job_id: str,
        owner: str,
        deadline: float,
    ) -> PreparedInputs:
        self.calls.append({"inputs": inputs, "job_id": job_id, "deadline": deadline})
        if self.error is not None:
            raise self.error
        return PreparedInputs(dict(graph), lambda _: self.shown.append(job_id), lambda: self.released.append(job_id))


def files_in(folder: Path | None) -> Finder:
    """The workflows that have names where there is no table: the files of a folder, as if it were WORKFLOWS_DIR."""
    return Finder(None, folder, nobody_declares)


class World:
    """A worker over fakes and an in-process S3."""

    def __init__(self, s3: S3Client, *, engine: FakeEngine | None = None, **settings: Any) -> None:
        self.s3 = s3
        self.engine = engine or FakeEngine()
        self.inputs = FakeInputs()
        self.settings = Settings(**{"output_bucket": OUT, **settings})
        self.worker = Worker(
            settings=self.settings,
            engine=self.engine,
            s3=s3,
            inputs=self.inputs,
            named=files_in(self.settings.workflows_dir),
        )

    def run(self, payload: object, call: Call | None = None, *, default_id: str = "drawn") -> Outcome:
        return self.worker.run(SentRequest(payload=payload, default_id=default_id), call or Call())

    def stored_keys(self, bucket: str = OUT) -> set[str]:
        return {item["Key"] for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])}

    def stored(self, key: str, bucket: str = OUT) -> bytes:
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def result(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stored(f"{job_id}/result.json"))
        return found
