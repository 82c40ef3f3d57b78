"""An engine in the image that looks for our credentials in every way finds none: as on Lambda, and as on SageMaker."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lambda_container import LambdaContainer, docker
from tests.e2e.test_serve import serving

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

PRYING = Path(__file__).parents[1] / "prying_engine.py"
REPORT = "/tmp/report.json"
PATIENCE_S = 90.0


@pytest.fixture
def secret() -> str:
    return f"secret-{uuid.uuid4().hex}"


@pytest.fixture
def environment(container_environment: dict[str, str], secret: str) -> dict[str, str]:
    return {
        **container_environment,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": f"token-{secret}",
        "MAX_COMFY_START_ATTEMPTS": "5",
        "API_COMMAND_LINE": f"/opt/worker/bin/python /prying_engine.py {REPORT} {secret[::-1]}",
    }


def report_of(shell: Callable[[str], str]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while not (text := shell(f"cat {REPORT} 2>/dev/null || true")):
        assert time.monotonic() < end, "the engine has not started"
        time.sleep(0.1)
    report: dict[str, Any] = json.loads(text)
    assert report["looked_at"] > 0
    assert report["ways"] == report["links"] == []
    assert {name for name in report["variables"] if name.startswith("AWS_")} <= {"AWS_REGION", "AWS_DEFAULT_REGION"}
    targets = {entry.split(" -> ")[1] for entry in report["own_descriptors"]}
    assert all(target.startswith(("/dev/null", "pipe:", "/proc/")) for target in targets), targets
    return report


def test_as_on_lambda_where_it_is_our_own_user(lite_image: str, environment: dict[str, str]) -> None:
    with LambdaContainer(lite_image, environment, files={PRYING: "/prying_engine.py"}) as running:
        running.invoke({"workflow": "text_to_image"})  # the emulator starts the function with its first event
        report = report_of(running.shell)
    assert report["uid"] == 993
    # Process 1 is the emulator, which stands for what AWS starts functions with, and is not one of ours.
    found = [entry for entry in report["found"] if " of 1 (emulator)" not in entry]
    assert found == []
    assert report["parent"] != 1
    assert report["descriptors"].keys() <= {"1"}


def test_as_on_sagemaker_where_we_are_root(lite_image: str, environment: dict[str, str]) -> None:
    with serving(lite_image, environment, "--volume", f"{PRYING}:/prying_engine.py:ro") as running:
        report = report_of(lambda script: docker("exec", running.name, "sh", "-c", script))
        owner = docker("exec", running.name, "stat", "-c", "%U", REPORT)
    assert owner == "comfy-engine"
    assert report["uid"] != 0
    assert report["found"] == []
    assert report["descriptors"] == {}
