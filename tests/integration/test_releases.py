"""Two releases side by side on this machine: one is promoted while jobs run, one whose check fails never is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from local.aws.processes import clean_environment
from local.aws.release import ReleaseWish
from local.dev import DevStack
from tests.integration.test_dev_stack import small
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.timeout(1800)

RELEASES = ("next", "broken=/bin/false")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    wishes = [ReleaseWish.parse(text) for text in RELEASES]
    # With one run a release that cannot start is known at once.
    environment = {"MAX_RUNS": "1", "RELEASE_VERSION": "local-old"}
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment=environment, releases=wishes) as started:
        started.describe()
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


def release(stack: DevStack, *arguments: str, code: int = 0) -> tuple[Any, str]:
    """The command, as in another terminal; `code` is the exit code that it must have. What it prints, and says."""
    command = [sys.executable, "-m", "comfy_serverless.cli", "release", *arguments, "--json"]
    environment = {**clean_environment(), **stack.client_variables}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return json.loads(ended.stdout), ended.stderr


def call(stack: DevStack, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    answer = requests.request(method, f"{stack.url}{path}", headers=headers, timeout=PATIENCE_S, **arguments)
    assert answer.ok, answer.text
    return dict(answer.json())


def look_now(stack: DevStack, release: str) -> None:
    """Have the functions see at once which release is live: they look once a minute, and when they start."""
    stack.functions.kill()
    headers = {"Authorization": f"Bearer {stack.api_key}"}

    def is_seen() -> bool:
        answer = requests.get(f"{stack.url}/api/v2/health/workers", headers=headers, timeout=PATIENCE_S)
        return answer.ok and answer.json().get("release", "default") == release

    assert wait_until(is_seen)


def submit(stack: DevStack, numbers: Sequence[int]) -> list[str]:
    jobs = [call(stack, "POST", "/api/v2/jobs", json={"workflow": small(number)}) for number in numbers]
    return [job["id"] for job in jobs]


def ended(stack: DevStack, job_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The jobs, once all of them have ended."""
    found: dict[str, dict[str, Any]] = {}

    def are_over() -> bool:
        for job_id in job_ids:
            if job_id not in found and (job := call(stack, "GET", f"/api/v2/jobs/{job_id}"))["completed_at"]:
                found[job_id] = job
        return len(found) == len(job_ids)

    assert wait_until(are_over)
    return [found[job_id] for job_id in job_ids]


def states(stack: DevStack) -> dict[str, str | None]:
    listed, _ = release(stack, "ls")
    return {one["name"]: one["state"] for one in listed["releases"]}


def versions(jobs: Sequence[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(job["status"], job.get("release_version")) for job in jobs]


def test_a_release_is_promoted_while_jobs_run_and_rolled_back(stack: DevStack) -> None:
    assert states(stack) == {"default": "live", "next": None, "broken": None}
    # One whose check fails is never promoted: it says why, with the job and where to look.
    failure, _ = release(stack, "promote", "broken", code=1)
    assert failure["error"]["code"] == "engine_unavailable"
    assert "'broken' was not promoted, and nothing was moved" in failure["error"]["message"]
    assert f"comfy-serverless logs {failure['error']['details']['job_id']} --stack" in failure["error"]["message"]
    assert states(stack)["default"] == "live"

    # Jobs that were sent before end in the old release, although they still wait when another one is promoted.
    before = submit(stack, range(30))
    promoted, said = release(stack, "promote", "next", "--keep", "2")
    assert promoted == {"live": "next", "before": ["default"]}
    assert "1 output by local-next" in said
    look_now(stack, "next")
    after = submit(stack, range(30, 36))
    assert versions(ended(stack, before)) == [("succeeded", "local-old")] * 30
    assert versions(ended(stack, after)) == [("succeeded", "local-next")] * 6
    assert states(stack) == {"next": "live", "default": "previous", "broken": None}

    # Back by one write.
    waiting = submit(stack, range(36, 42))
    rolled_back, _ = release(stack, "rollback")
    assert rolled_back == {"live": "default", "before": []}
    look_now(stack, "default")
    old = submit(stack, range(42, 44))
    assert versions(ended(stack, waiting)) == [("succeeded", "local-next")] * 6
    assert versions(ended(stack, old)) == [("succeeded", "local-old")] * 2
    refused, _ = release(stack, "rollback", code=1)
    assert "nothing was before it" in refused["error"]["message"]

    # Nothing was run twice, and every job has what it made once.
    for job in ended(stack, [*before, *after, *waiting, *old]):
        assert len(job["outputs"]) == 1
    begun = [
        json.loads(line)["job_id"]
        for path in stack.log_folder.glob("generate-*.log")
        for line in path.read_text().splitlines()
        if '"the job is begun"' in line
    ]
    assert sorted(job_id for job_id in begun if not job_id.startswith("check-")) == sorted(
        [*before, *after, *waiting, *old]
    )


def test_a_release_that_nobody_has_announced_is_named_with_those_there_are(stack: DevStack) -> None:
    refused, _ = release(stack, "promote", "nxt", code=1)
    assert refused["error"]["code"] == "not_found"
    assert "There are: default, broken, next" in refused["error"]["message"]


def test_a_check_of_ones_own_that_fails_names_the_node(stack: DevStack, tmp_path: Path) -> None:
    workflow = small(1)
    workflow["1"]["inputs"]["width"] = "wide"
    (tmp_path / "wrong.json").write_text(json.dumps(workflow))
    refused, _ = release(stack, "promote", "next", "--check", str(tmp_path / "wrong.json"), code=1)
    assert refused["error"]["code"] == "invalid_workflow"
    assert "its check failed at node 1" in refused["error"]["message"]
    assert states(stack)["next"] is None
