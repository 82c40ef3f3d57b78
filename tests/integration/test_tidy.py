"""What a warm worker leaves in its engine after delivered jobs: nothing. Also against a real ComfyUI (COMFYUI_DIR)."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws.s3 import s3_client
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.contract.engines import free_port
from tests.patience import PATIENCE_S


class Place:
    """A worker over an engine and an S3, and a look into the engine's folders."""

    def __init__(self, connector: ComfyConnector, settings: Settings) -> None:
        s3 = s3_client()
        self.connector = connector
        self.worker = Worker(
            settings=settings,
            engine=connector,
            s3=s3,
            inputs=InputFetcher(settings=settings, s3=s3, connector=connector),
            named=Finder(None, None, nobody_declares),
        )
        self.folders = [folder for kind in ("output", "temp") if (folder := connector._engine.folder(kind))]
        self.before = self.files()

    def run(self, workflow: dict[str, Any], **fields: Any) -> Outcome:
        payload = {"job_id": f"tidy-{uuid.uuid4().hex}", "workflow": workflow, **fields}
        return self.worker.run(SentRequest(payload=payload, default_id="none"), Call())

    def files(self) -> set[Path]:
        return {path for folder in self.folders for path in folder.rglob("*") if path.is_file()}

    def kept(self) -> set[Path]:
        """The files that wait to be delivered, out of the engine's sight."""
        own = self.connector._engine.own_folders
        assert own is not None
        return {path for path in own.kept("x").parent.rglob("*") if path.is_file()}

    def history(self) -> dict[str, Any]:
        history: dict[str, Any] = self.connector._engine.client._get_json("/history")
        return history


@pytest.fixture
def place(local_s3: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Place]]:
    for name, value in local_s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = replace(Settings.from_environment(), output_bucket=OUTPUT_BUCKET, initial_port=free_port())
    if "COMFYUI_DIR" not in os.environ:
        settings = replace(
            settings, api_command_line=f"{sys.executable} -m comfy_lite --base-directory {tmp_path} --enable-faults"
        )
    connector = ComfyConnector(settings=settings)
    places: list[Place] = []

    def make() -> Place:
        places.append(Place(connector, settings))
        return places[-1]

    yield make
    for made in places:
        made.worker.close()
    connector.kill_api()


def pictures(*, color: int = 255, prefix: str = "tidy/picture") -> dict[str, Any]:
    inputs = {"width": 16, "height": 16, "batch_size": 2, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "4": {"class_type": "SaveAnimatedWEBP", "inputs": webp() | {"images": ["1", 0]}},
    }


def webp() -> dict[str, Any]:
    return {"filename_prefix": "moving", "fps": 6.0, "lossless": True, "quality": 80, "method": "default"}


def test_nothing_is_left_after_jobs_that_were_delivered(place: Callable[[], Place]) -> None:
    here = place()
    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(lambda color: here.run(pictures(color=color)), range(9)))
    assert all(len(outcome.job.outputs) == 5 for outcome in outcomes)
    assert here.files() == here.before, "the next owner's job would find it"
    assert len(here.kept()) == 45, "before the replies have been made nothing is removed"
    for outcome in outcomes:
        outcome.release()
    here.worker.close()
    assert here.files() == here.before
    assert here.kept() == set()
    assert here.history() == {}


def test_the_same_workflow_again_makes_its_files_anew_and_only_its_files(place: Callable[[], Place]) -> None:
    here = place()
    for _ in range(3):
        outcome = here.run(pictures(), reply="inline")
        assert [output.name for output in outcome.job.outputs if output.node_id == "2"] == [
            "picture_00001_.png",
            "picture_00002_.png",
        ]
        assert all(made.read() for made in outcome.made.values())
        assert here.connector.starts == 1
        outcome.release()
        here.worker._tidying._thread.submit(lambda: None).result(PATIENCE_S)


def test_files_that_could_not_be_delivered_stay(place: Callable[[], Place]) -> None:
    here = place()
    with no_pictures(here):
        outcome = here.run(pictures())
    assert outcome.error is not None
    assert outcome.error.code == "delivery_failed"
    outcome.release()
    here.worker._tidying._thread.submit(lambda: None).result(PATIENCE_S)
    assert {path.suffix for path in here.kept()} == {".png", ".webp"}, "all, for the next try to find"
    again = here.run(pictures(), job_id=outcome.job.id)
    assert again.error is None
    assert len(again.job.outputs) == 5
    again.release()
    here.worker.close()
    assert here.kept() == set()


def test_a_try_that_failed_is_tidied_by_the_one_that_succeeded_whoever_is_released_first(
    place: Callable[[], Place],
) -> None:
    here = place()
    with no_pictures(here):
        first = here.run(pictures())
    second = here.run(pictures(), job_id=first.job.id)
    assert (first.error is None, second.error) == (False, None)
    third = here.run(pictures(), job_id=first.job.id)
    assert not third.has_run
    for outcome in (second, first, third):
        outcome.release()
    here.worker.close()
    assert here.files() == here.before
    assert here.kept() == set()


@contextmanager
def no_pictures(here: Place) -> Iterator[None]:
    """Meanwhile S3 takes no PNG."""
    events = here.worker._s3.meta.events
    events.register("before-call.s3.PutObject", refuse_pictures)
    try:
        yield
    finally:
        events.unregister("before-call.s3.PutObject", refuse_pictures)


def refuse_pictures(model: Any, params: dict[str, Any], **_: Any) -> None:
    if params["url_path"].endswith(".png"):
        raise ConnectionError("no route")


@pytest.mark.skipif("COMFYUI_DIR" in os.environ, reason="only the embedded engine fails on demand")
def test_a_job_that_was_run_twice_because_the_engine_died_leaves_nothing(place: Callable[[], Place]) -> None:
    here = place()
    here.connector._engine.client._post("/lite/faults", {"fault": "crash", "at": "node", "node": "SaveAnimatedWEBP"})
    outcome = here.run(pictures())
    assert outcome.error is None
    assert here.connector.starts == 2
    outcome.release()
    here.worker.close()
    assert here.files() == here.before
    assert here.kept() == set()
    assert here.history() == {}
