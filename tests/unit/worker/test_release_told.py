"""What a worker's image was built from stands in all that it tells."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfy_serverless.handlers import wiring
from comfy_serverless.handlers.sagemaker_server import SageMakerServer
from comfy_serverless.jobs.document import Job
from comfy_serverless.observability import emit, log, name_release
from comfy_serverless.settings import Settings
from comfy_serverless.worker.engine_watch import Health
from comfy_serverless.worker.record import JobRecord

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
VERSION = "3f2a91c07b5e"


@pytest.fixture
def named() -> Iterator[None]:
    name_release(VERSION)
    yield
    name_release("")


def line_of(message: str) -> dict[str, object]:
    """A line of the log, as it is written."""
    stream = io.StringIO()
    handler = log.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(stream)
    try:
        log.warning(message)
    finally:
        if before is not None:
            handler.setStream(before)
    return dict(json.loads(stream.getvalue()))


@pytest.mark.usefixtures("named")
def test_each_line_of_the_log_tells_it() -> None:
    assert line_of("something")["release_version"] == VERSION


def test_without_one_there_is_nothing_in_it() -> None:
    assert "release_version" not in line_of("something")


@pytest.mark.usefixtures("named")
def test_metrics_tell_it_as_a_property_and_are_counted_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"Jobs": [1.0]}, {"service": "comfy_serverless"})
    line = json.loads(capsys.readouterr().out)
    assert line["release_version"] == VERSION
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_the_settings_of_a_process_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_VERSION", VERSION)
    wiring.settings.cache_clear()
    try:
        assert wiring.settings().release_version == VERSION
        assert line_of("something")["release_version"] == VERSION
    finally:
        wiring.settings.cache_clear()
        name_release("")


def test_the_result_of_a_job_tells_it_and_one_without_stays_as_it_was() -> None:
    told = JobRecord(job_id="a", metadata={}, release_version=VERSION).document(None)
    assert json.loads(told.to_stored_bytes())["release_version"] == VERSION
    assert "release_version" not in JobRecord(job_id="a", metadata={}).document(None).to_json()


def test_results_of_this_release_and_of_those_before_are_read() -> None:
    found = [
        Job.model_validate_json((FIXTURES / f"result_{name}.json").read_text()).release_version
        for name in ("of_release", "succeeded")
    ]
    assert found == [VERSION, None]


@pytest.mark.parametrize(("version", "told"), [(VERSION, {"release_version": VERSION}), ("", {})])
def test_a_ping_tells_it(monkeypatch: pytest.MonkeyPatch, version: str, told: dict[str, str]) -> None:
    server = SageMakerServer.__new__(SageMakerServer)
    monkeypatch.setattr(server, "watch", SimpleNamespace(health=Health.HEALTHY), raising=False)
    monkeypatch.setattr(wiring, "settings", lambda: Settings(release_version=version))
    assert server.ping() == (200, {"status": "healthy", **told})
