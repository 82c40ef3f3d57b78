"""The template as people use it on their machine: `sam build`, `sam local invoke`, `sam local start-api`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import requests

from local.lambda_emulator import FUNCTION_NAME
from local.processes import LOOPBACK, LocalProcess, free_port
from local.s3 import LocalS3
from local.sam_demo import SAM, main

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make sam-demo` left: it builds the image, and sends every event of events/ through `sam local invoke`."""
    folder = tmp_path_factory.mktemp("sam")
    assert main(["--out", str(folder)]) == 0
    return folder


def test_every_sample_event_succeeds_through_sam_local_invoke(demo_folder: Path) -> None:
    jobs = {path.name for path in (demo_folder / "jobs").iterdir()}
    assert {"sample-poster", "sample-lighthouse"} <= jobs
    assert list((demo_folder / "jobs").rglob("*.png"))


def test_post_generate_answers_through_sam_local_start_api(
    demo_folder: Path, local_s3: LocalS3, container_environment: dict[str, str], tmp_path: Path
) -> None:
    variables = tmp_path / "environment.json"
    variables.write_text(json.dumps({FUNCTION_NAME: container_environment}), encoding="utf-8")
    port = free_port()
    command = [SAM, "local", "start-api", "--port", str(port), "--env-vars", variables]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {**local_s3.environment, "SAM_CLI_TELEMETRY": "0"}
    body = json.loads(json.loads((ROOT / "events" / "http.json").read_text(encoding="utf-8"))["body"])
    with LocalProcess(command, environment, name="sam local start-api", working_directory=ROOT) as api:
        api.wait_until_listening(port, timeout_s=120)
        answer = requests.post(
            f"http://{LOOPBACK}:{port}/generate", json={**body, "job_id": "through-the-api"}, timeout=180
        )
        assert answer.status_code == 200, answer.text + api.log.tail()
    job = answer.json()
    assert (job["id"], job["status"]) == ("through-the-api", "succeeded")
    assert job["outputs"]
