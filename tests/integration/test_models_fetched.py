"""A model that a job names is there when its workflow runs, without a restart. Also on a real ComfyUI (COMFYUI_DIR)."""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws.s3 import S3Address, s3_client
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.model_store import ModelStore
from comfy_serverless.worker.model_store.forgetting import forget_everything
from comfy_serverless.worker.model_store.operator_models import places_of
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.contract.engines import free_port
from tests.patience import PATIENCE_S
from tests.unit.worker.test_model_store import safetensors, sha256

REAL = "COMFYUI_DIR" in os.environ
#: No real ComfyUI can paint with sixty-four bytes; it finds them, and tries.
FOUND = "node_execution_error" if REAL else None
#: A model in MODEL_DATA_DIR.
OPERATORS = "operators.safetensors"


class Place:
    """A worker with a model store, and the S3 its models come from."""

    def __init__(self, settings: Settings) -> None:
        self.connector = ComfyConnector(settings=settings)
        self.s3 = s3_client()
        self.forgotten = 0
        self.store = ModelStore(
            settings,
            self.s3,
            forget=self.forget,
            places=lambda deadline: places_of(self.connector, deadline=deadline),
        )
        self.worker = Worker(
            settings=settings,
            engine=self.connector,
            s3=self.s3,
            inputs=InputFetcher(settings=settings, s3=self.s3, connector=self.connector),
            models=self.store,
            named=Finder(None, None, nobody_declares),
        )

    def forget(self, deadline: float) -> None:
        self.forgotten += 1
        forget_everything(self.connector, deadline=deadline)

    def put(self, content: bytes, *, name: str, folder: str = "checkpoints") -> dict[str, str]:
        key = f"models/{uuid.uuid4().hex}/{name}"
        self.s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body=content)
        return {"url": f"s3://{INPUT_BUCKET}/{key}", "folder": folder, "sha256": sha256(content)}

    def run(self, models: list[dict[str, str]], *, checkpoint: str, text: str = "a hill") -> Outcome:
        payload = {
            "job_id": f"models-{uuid.uuid4().hex}",
            "workflow": painting(checkpoint, text),
            "models": models,
            "deadline_s": 120,
        }
        outcome = self.worker.run(SentRequest(payload=payload, default_id="none"), Call())
        outcome.release()
        return outcome

    def pixels(self, outcome: Outcome) -> bytes:
        place = S3Address.parse(outcome.job.outputs[0].s3_uri or "")
        content = self.s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        with Image.open(io.BytesIO(content)) as picture:
            return picture.tobytes()

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
        model_data_dir=tmp_path / "data",
    )
    (tmp_path / "data" / "checkpoints").mkdir(parents=True)
    (tmp_path / "data" / "checkpoints" / OPERATORS).write_bytes(safetensors(fill=b"o"))
    here = Place(settings)
    yield here
    here.close()


def painting(checkpoint: str, text: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(Path("workflows/text_to_image.json").read_text())
    for node in workflow.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = checkpoint
        if node["class_type"] == "CLIPTextEncode":
            node["inputs"]["text"] = text
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
    assert code(outcome) == FOUND, outcome.job.error
    assert place.connector.starts == 1


def test_another_content_under_the_same_name_is_what_the_next_job_gets(place: Place) -> None:
    name = f"fox-{uuid.uuid4().hex[:8]}.safetensors"
    for number, fill in enumerate((b"1", b"2", b"2", b"1")):
        outcome = place.run([place.put(safetensors(fill=fill), name=name)], checkpoint=name)
        assert code(outcome) == FOUND, outcome.job.error
        assert place.forgotten == (0, 1, 1, 2)[number]
    assert place.connector.starts == 1


def test_a_model_that_cannot_be_had_fails_the_job_before_the_engine_gets_it(place: Place) -> None:
    model = place.put(safetensors(), name="fox.safetensors") | {"sha256": "0" * 64}
    outcome = place.run([model], checkpoint="fox.safetensors")
    assert code(outcome) == "missing_asset"
    assert not outcome.has_run


@pytest.mark.parametrize("subfolder", ["", "styles/", "styles/more/"])
def test_what_a_job_has_brought_is_not_there_for_the_next(place: Place, subfolder: str) -> None:
    name = f"secret-{uuid.uuid4().hex[:8]}.safetensors"
    model = place.put(safetensors(), name=name, folder=f"checkpoints/{subfolder}".rstrip("/"))
    for _ in range(2):
        assert code(place.run([model], checkpoint=subfolder + name)) == FOUND
        taken = place.run([], checkpoint=subfolder + name)
        assert code(taken) == "invalid_workflow"
        asked = place.run([], checkpoint="zzz.safetensors")
        assert asked.job.error is not None
        told = asked.job.error.model_dump_json()
        assert OPERATORS in told
        assert "secret" not in told
        assert code(place.run([], checkpoint=OPERATORS)) == FOUND
    assert place.forgotten == 0
    assert place.connector.starts == 1


def test_a_name_of_the_operators_is_not_taken_and_the_same_content_is_used(place: Place, tmp_path: Path) -> None:
    outcome = place.run([place.put(safetensors(fill=b"e"), name=OPERATORS)], checkpoint=OPERATORS)
    assert code(outcome) == "invalid_request"
    assert outcome.job.error is not None
    assert "Give this one another `name`" in outcome.job.error.message
    assert code(place.run([], checkpoint=OPERATORS)) == FOUND
    assert code(place.run([place.put(safetensors(fill=b"o"), name=OPERATORS)], checkpoint=OPERATORS)) == FOUND
    assert list((tmp_path / "store" / "blobs").iterdir()) == []


@pytest.mark.skipif(not REAL, reason="the embedded engine has no models folder of its own")
def test_a_name_in_comfyuis_own_folder_is_not_taken(place: Place) -> None:
    name = "v1-5-pruned-emaonly.safetensors"
    assert code(place.run([place.put(safetensors(), name=name)], checkpoint=name)) == "invalid_request"
    assert code(place.run([], checkpoint=name)) is None


@pytest.mark.skipif(not REAL, reason="the embedded engine knows no embeddings")
def test_an_embedding_is_used_that_the_same_text_named_before_it_was_there(place: Place) -> None:
    name = f"fox{uuid.uuid4().hex[:8]}"
    values = (np.arange(768, dtype=np.float32) % 7 - 3).tobytes()
    header = json.dumps({"emb_params": {"dtype": "F32", "shape": [1, 768], "data_offsets": [0, len(values)]}}).encode()
    content = len(header).to_bytes(8, "little") + header + values
    model = place.put(content, name=f"{name}.safetensors", folder="embeddings")
    pictures = []
    for models in ([], [model], [model]):
        outcome = place.run(models, checkpoint="v1-5-pruned-emaonly.safetensors", text=f"embedding:{name}, a hill")
        assert code(outcome) is None, outcome.job.error
        pictures.append(place.pixels(outcome))
    assert pictures[0] != pictures[1] == pictures[2]
    assert place.forgotten == 1


@pytest.mark.parametrize("old", ["unet", "clip"])
def test_a_renamed_folder_is_found_by_its_new_name(place: Place, old: str) -> None:
    """Also: what is brought is found in every folder that ComfyUI lists."""
    new = {"unet": "diffusion_models", "clip": "text_encoders"}[old]
    model = ModelRequest(**place.put(safetensors(), name="fox.safetensors", folder=old))
    held = place.store.hold([model], job_id="j", deadline=time.monotonic() + PATIENCE_S)
    held.show(time.monotonic() + PATIENCE_S)
    assert "fox.safetensors" in listed(place, new)
    held.release()
    assert "fox.safetensors" not in listed(place, new)


def listed(place: Place, folder: str) -> list[str]:
    with urllib.request.urlopen(f"{place.connector.server_address}/models/{folder}") as answer:
        names: list[str] = json.load(answer)
    return names
