"""A model that a job names is there when its workflow runs, without a restart. Also on a real ComfyUI (COMFYUI_DIR)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws.s3 import s3_client
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.model_store import ModelStore
from comfy_serverless.worker.model_store.forgetting import forget_everything
from comfy_serverless.worker.worker import Call, Outcome, Worker
from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.contract.engines import free_port
from tests.unit.worker.test_model_store import safetensors, sha256

REAL = "COMFYUI_DIR" in os.environ


class Place:
    """A worker with a model store, and the S3 its models come from."""

    def __init__(self, settings: Settings) -> None:
        self.connector = ComfyConnector(settings=settings)
        self.s3 = s3_client()
        self.forgotten = 0
        self.worker = Worker(
            settings=settings,
            engine=self.connector,
            s3=self.s3,
            inputs=InputFetcher(settings=settings, s3=self.s3, connector=self.connector),
            models=ModelStore(settings, self.s3, forget=self.forget),
        )

    def forget(self, deadline: float) -> None:
        self.forgotten += 1
        forget_everything(self.connector, deadline=deadline)

    def put(self, content: bytes, *, name: str) -> dict[str, str]:
        key = f"models/{uuid.uuid4().hex}/{name}"
        self.s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body=content)
        return {"url": f"s3://{INPUT_BUCKET}/{key}", "folder": "checkpoints", "sha256": sha256(content)}

    def run(self, models: list[dict[str, str]], *, checkpoint: str) -> Outcome:
        payload = {
            "job_id": f"models-{uuid.uuid4().hex}",
            "workflow": painting(checkpoint),
            "models": models,
            "deadline_s": 120,
        }
        outcome = self.worker.run(SentRequest(payload=payload, default_id="none"), Call())
        outcome.release()
        return outcome

    def close(self) -> None:
        self.worker.close()
        self.connector.kill_api()


@pytest.fixture
def place(local_s3: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in local_s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = replace(
        Settings.from_environment(),
        output_bucket=OUTPUT_BUCKET,
        initial_port=free_port(),
        model_store_dir=tmp_path / "store",
    )
    here = Place(settings)
    yield here
    here.close()


def painting(checkpoint: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(Path("workflows/text_to_image.json").read_text())
    for node in workflow.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = checkpoint
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": 1, "seed": 7}
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 64, "height": 64}
    return workflow


def code(outcome: Outcome) -> str | None:
    return outcome.job.error.code if outcome.job.error else None


def test_a_model_is_there_for_the_job_that_names_it(place: Place) -> None:
    name = f"fox-{uuid.uuid4().hex[:8]}.safetensors"
    assert code(place.run([], checkpoint=name)) == "invalid_workflow"
    model = place.put(safetensors(), name=name)
    outcome = place.run([model], checkpoint=name)
    # No real ComfyUI can paint with sixty-four bytes; it has found them, and tried.
    assert code(outcome) == ("node_execution_error" if REAL else None), outcome.job.error
    assert place.connector.starts == 1


def test_another_content_under_the_same_name_is_what_the_next_job_gets(place: Place) -> None:
    name = f"fox-{uuid.uuid4().hex[:8]}.safetensors"
    for number, fill in enumerate((b"1", b"2", b"2", b"1")):
        outcome = place.run([place.put(safetensors(fill=fill), name=name)], checkpoint=name)
        assert code(outcome) == ("node_execution_error" if REAL else None), outcome.job.error
        assert place.forgotten == (0, 1, 1, 2)[number]
    assert place.connector.starts == 1


def test_a_model_that_cannot_be_had_fails_the_job_before_the_engine_gets_it(place: Place) -> None:
    model = place.put(safetensors(), name="fox.safetensors") | {"sha256": "0" * 64}
    outcome = place.run([model], checkpoint="fox.safetensors")
    assert code(outcome) == "missing_asset"
    assert not outcome.has_run
