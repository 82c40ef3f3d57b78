"""The template as people use it on their machines: `sam build`, `sam local invoke`, `sam local start-api`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from blake3 import blake3
from comfy_sdk import Comfy

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.table.api_keys import ApiKeyStore
from demo.sam import IMAGE, main
from examples import agent, sdk_tour
from local.aws.processes import LOOPBACK, LocalProcess, free_port
from local.aws.queue_poller import QueuePoller
from local.aws.stack import LocalStack
from local.aws.template import TABLE
from local.dev import OWNER
from tests import agents
from tests.e2e.lambda_container import LambdaContainer

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent.parent
#: A cold start of the worker's container, and the job.
JOB_TIMEOUT_S = 120
#: API Gateway passes bytes as base64. aws-sam-cli does so only for types that a template can name for REST APIs, and
#: fails with 502 for others that are not text: uploads of pictures in one request need this patch.
SAM_THAT_PASSES_BYTES = """
from samcli.cli.main import cli
from samcli.local.apigw import event_constructor

event_constructor._should_base64_encode = lambda _known, media_type: media_type.startswith("multipart/")
cli(prog_name="sam")
"""
#: A web page that may call the API.
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make sam-demo`, which builds the images and sends every event through `sam local invoke`."""
    folder = tmp_path_factory.mktemp("sam")
    assert main(["--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def workers(demo_folder: Path, stack_environment: dict[str, str], local_stack: LocalStack) -> Iterator[LambdaContainer]:
    """The template's worker in its image, fed from the job queue, because `sam local` polls no queues."""
    with LambdaContainer(IMAGE, stack_environment, timeout_s=JOB_TIMEOUT_S) as worker:
        poller = QueuePoller(local_stack.aws.sqs(), local_stack.queues["JobQueue"], worker.invoke, name="jobs")
        poller.start()
        yield worker
        poller.stop()


@pytest.fixture(scope="module")
def api_url(
    demo_folder: Path, stack_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The API of the template, with its authorizer, by `sam local start-api`."""
    variables = tmp_path_factory.mktemp("api") / "environment.json"
    settings = {**stack_environment, "CORS_ORIGINS": PAGE}
    variables.write_text(json.dumps({"Parameters": settings}), encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-c", SAM_THAT_PASSES_BYTES, "local", "start-api", "--port", str(port)]
    command += ["--template", str(_without_streams()), "--env-vars", str(variables)]
    command += ["--warm-containers", "LAZY", "--no-watch"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {**stack_environment, "SAM_CLI_TELEMETRY": "0"}
    with LocalProcess(command, environment, name="sam local start-api", working_directory=ROOT) as api:
        api.wait_until_listening(port, timeout_s=120)
        yield f"http://{LOOPBACK}:{port}"
        print(api.log.tail())


def _without_streams() -> Path:
    """The built template without what only LiveEvents=true adds: aws-sam-cli passes over conditions of resources.

    It would answer events by the function that streams, which its emulator of Lambda's runtime cannot run.
    """
    built = ROOT / ".aws-sam" / "build" / "template.yaml"
    template = yaml.safe_load(built.read_text(encoding="utf-8"))
    resources = template["Resources"]
    template["Resources"] = {
        name: one for name, one in resources.items() if "LiveEvents" not in one.get("Condition", "")
    }
    assert len(resources) > len(template["Resources"])
    path = built.with_name("without-streams.yaml")
    path.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def key(local_stack: LocalStack) -> str:
    """An API key in the table, as `comfy-serverless keys create` makes it."""
    store = ApiKeyStore(Table(local_stack.aws.dynamodb(), TABLE))
    return store.create(f"sam-{uuid.uuid4().hex[:8]}", owner=OWNER).text


@pytest.fixture
def client(api_url: str, key: str, workers: LambdaContainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    """The official client, which knows only address and key."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFY_BASE_URL", api_url)
    monkeypatch.setenv("COMFY_API_KEY", key)
    with Comfy() as official:
        yield official


def test_every_sample_event_succeeds_through_sam_local_invoke(demo_folder: Path) -> None:
    jobs = {path.name for path in (demo_folder / "jobs").iterdir()}
    assert {"sample-poster", "sample-lighthouse"} <= jobs
    assert list((demo_folder / "jobs").rglob("*.png"))


def test_health_and_the_documents_need_no_key(api_url: str) -> None:
    for path in ("/api/v2/health", "/openapi.json", "/docs"):
        assert requests.get(api_url + path, timeout=60).status_code == 200, path


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no key", "a wrong key"])
def test_everything_else_needs_one(api_url: str, headers: dict[str, str]) -> None:
    answer = requests.get(f"{api_url}/api/v2/jobs", headers=headers, timeout=60)
    assert answer.status_code == 401
    if headers:  # without the header API Gateway itself refuses
        assert answer.json()["error"]["code"] == "unauthorized"


def test_a_browser_asks_without_a_key_what_a_page_may_do(api_url: str) -> None:
    for path in ("/api/v2/jobs", "/generate", "/mcp"):
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        answer = requests.options(api_url + path, headers=asked, timeout=60)
        assert answer.ok, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE


def test_the_tour_of_the_official_sdk_runs_unchanged(client: Comfy) -> None:
    sdk_tour.tour(client)


def test_what_was_uploaded_to_s3_itself_is_found_by_its_hash_and_used(client: Comfy, api_url: str, key: str) -> None:
    content = sdk_tour.picture((30, 60, 200))
    upload(content, api_url, key)
    asset = client.assets.from_bytes(content, filename="photo.png", content_type="image/png")
    asset.commit()
    assert asset.created_new is False
    workflow = client.workflows.from_json(sdk_tour.ENLARGE)
    workflow.set_input("1", "image", asset)
    (output,) = client.submit(workflow).result().get_outputs("3")
    picture = output.to_bytes()
    assert picture.startswith(b"\x89PNG")
    assert output.to_bytes(range=(0, 7)) == picture[:8]
    link = output.get_download_url().url
    assert requests.get(link, timeout=60).content == picture


def test_post_generate_answers_with_the_finished_job(api_url: str, key: str, workers: LambdaContainer) -> None:
    body = {"workflow": sdk_tour.paint(steps=2, seed=41), "wait_s": 25}
    answer = requests.post(f"{api_url}/generate", json=body, headers=bearer(key), timeout=JOB_TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    (link,) = [output["url"] for output in answer.json()["outputs"]]
    assert requests.get(link, timeout=60).content.startswith(b"\x89PNG")


@pytest.mark.usefixtures("client")
def test_an_agent_finds_a_workflow_of_the_image_and_sees_what_it_makes(
    api_url: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agents.wake(api_url, key)
    asyncio.run(agent.main())
    said = capsys.readouterr().out
    assert "run_thumbnail" in said.splitlines()[0]
    assert "did you mean 'width'?" in said
    asked_again = said.partition("\nget_job ")[2]
    assert "has succeeded, and made 1 output." in asked_again, said
    assert "a picture, image/png" in asked_again


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def upload(content: bytes, api_url: str, key: str) -> None:
    """Upload in three requests: ask for the address, send the bytes, confirm."""
    announced = {"file_path": "photo.png", "content_type": "image/png", "size_bytes": len(content)}
    target = requests.post(f"{api_url}/api/v2/uploads", json=announced, headers=bearer(key), timeout=60).json()
    sent = requests.request(target["method"], target["url"], headers=target["headers"], data=content, timeout=60)
    sent.raise_for_status()
    completed = requests.post(f"{api_url}/api/v2/uploads/{target['id']}/complete", headers=bearer(key), timeout=60)
    assert completed.json()["hash"] == f"blake3:{blake3(content).hexdigest()}", completed.text
