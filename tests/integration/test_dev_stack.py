"""The whole service on this machine, used by the official SDK: what `make dev` starts."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import io
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from comfy_sdk import AsyncComfy, Comfy
from comfy_sdk.exceptions import ComfyError
from PIL import Image

from examples import agent, sdk_tour, sdk_tour_async
from examples.sdk_tour import paint
from local.aws.processes import LOOPBACK
from local.dev import DevStack
from tests import agents, typescript
from tests.doc_blocks import blocks
from tests.patience import PATIENCE_S, QuietClock, wait_until
from tests.unit.editor_samples import plain

pytestmark = pytest.mark.timeout(1800)

#: A start takes seconds on a busy machine: killed for ever, nothing would ever be done.
MAX_KILLS = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment={"LEASE_S": "3"}) as started:
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


@pytest.fixture
def environment(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", stack.url)
    monkeypatch.setenv("COMFY_API_KEY", stack.api_key)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("environment")
def test_the_tour_of_the_official_sdk_runs_unchanged() -> None:
    with Comfy() as client:
        sdk_tour.tour(client)


@pytest.mark.usefixtures("environment")
def test_the_tour_of_the_asynchronous_client_runs_unchanged() -> None:
    async def run() -> None:
        async with AsyncComfy() as client:
            await sdk_tour_async.tour(client)

    asyncio.run(run())


@pytest.mark.usefixtures("environment")
def test_an_agent_finds_runs_and_sees_workflows_as_its_transcript_says(
    stack: DevStack, capsys: pytest.CaptureFixture[str]
) -> None:
    agents.wake(stack.url, stack.api_key)
    asyncio.run(agent.main())  # the first waits for the engine, too
    capsys.readouterr()
    asyncio.run(agent.main())
    said = re.sub(r"(?<= at )http\S+", "LINK", capsys.readouterr().out)
    said = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "JOB", said)
    (transcript,) = (block.text for block in blocks() if block.page.name == "mcp.md" and block.kind == "tested by")
    # How often progress is heard depends on the machine.
    progress = re.compile(r"  … \w+, \d+%")
    heard, written = (
        [line for line in text.splitlines() if not progress.fullmatch(line)] for text in (said, transcript)
    )
    assert heard == written
    assert "  … succeeded, 100%" in said


def test_the_examples_of_the_api_s_description_run(stack: DevStack) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    described = requests.get(f"{stack.url}/openapi.json", timeout=PATIENCE_S).json()
    (pushed,) = described["paths"]["/api/v2/workflows/{name}"]["put"]["requestBody"]["content"].values()
    bodies = {"example": pushed["example"]}
    bodies |= {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (typescript.ROOT / "workflows").glob("*.json")
    }
    for name, body in bodies.items():
        url = f"{stack.url}/api/v2/workflows/{name}"
        assert requests.put(url, json=body, headers=headers, timeout=PATIENCE_S).status_code == 201, name
    # With a key, there is a path for each of them.
    described = requests.get(f"{stack.url}/openapi.json", headers=headers, timeout=PATIENCE_S).json()
    assert {f"/api/v2/workflows/{name}/runs" for name in bodies} <= described["paths"].keys()
    ids: list[str] = []
    # A job runs again after it has run. No batch of the examples has a line to retry.
    paths = [entry for entry in described["paths"].items() if not entry[0].endswith("/retry")]
    for template, operations in sorted(paths, key=lambda entry: entry[0].endswith("/again")):
        path = template.replace("{name}", "example").replace("{id}", ids[0] if ids else "{id}")
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or path == "/api/v2/assets/from-hash":  # which needs the file that a form has brought
            continue
        answer = requests.post(f"{stack.url}{path}", json=content["example"], headers=headers, timeout=PATIENCE_S)
        assert answer.ok, answer.text
        if "urls" in (job := answer.json()):
            ids.append(job["id"])
            url = f"{stack.url}{job['urls']['self']}"
            ask = functools.partial(requests.get, url, headers=headers, timeout=PATIENCE_S)
            assert wait_until(functools.partial(tells_of_an_end, ask))
            assert ask().json()["status"] == "succeeded", (path, ask().text)
            assert ask().json()["outputs"]


@pytest.mark.usefixtures("environment")
def test_the_example_for_typescript_runs_and_its_types_are_right(tmp_path: Path) -> None:
    folder = typescript.folder()
    typescript.run("node_modules/typescript/bin/tsc", cwd=folder)
    for name in ("workflows", "events"):
        (tmp_path / name).symlink_to(typescript.ROOT / name)
    printed = typescript.run(folder / "quickstart.ts", cwd=tmp_path)
    (made,) = (tmp_path / "out").iterdir()
    assert f"made {made.name}" in printed
    with Image.open(made) as picture:
        assert picture.width > 0


@pytest.mark.usefixtures("environment")
def test_the_program_that_the_console_writes_for_typescript_runs_with_the_sdk(tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": 'a "${quoted}` name\\'}},
    }
    modules = typescript.ROOT / "lambda" / "comfy_serverless" / "api" / "console"
    writer = tmp_path / "writer.mts"
    writer.write_text(
        f"import {{ snippets }} from {json.dumps(str(modules / 'snippets.js'))};\n"
        f'console.log(snippets("http://127.0.0.1:1", {json.dumps(graph)}).typescript);\n',
        encoding="utf-8",
    )
    program = typescript.run(writer, cwd=tmp_path)
    assert "@comfyorg/sdk" in program
    (tmp_path / "program.mts").write_text(program, encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(typescript.folder() / "node_modules")
    made = tmp_path / typescript.run(tmp_path / "program.mts", cwd=tmp_path).strip()
    with Image.open(made) as picture:
        assert picture.size == (32, 32)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("key", "hint"), [("", "new Comfy({ apiKey: process.env.COMFY_API_KEY })"), ("made-up", "keys create")]
)
def test_the_sdk_for_typescript_says_what_a_request_without_a_good_key_lacks(
    monkeypatch: pytest.MonkeyPatch, key: str, hint: str
) -> None:
    monkeypatch.setenv("COMFY_API_KEY", key)
    program = """
      import { Comfy, Unauthorized } from "@comfyorg/sdk";
      const client = new Comfy({ apiKey: process.env.COMFY_API_KEY || undefined });
      const workflow = await client.workflows.fromFile("../../workflows/text_to_image.json");
      await client.run(workflow).catch((error) => console.log(error instanceof Unauthorized, error.message));
    """
    told = typescript.run("--input-type=module", "--eval", program, cwd=typescript.folder())
    assert told.startswith("true ")
    assert hint in told


@pytest.mark.usefixtures("environment")
def test_events_are_live_and_bring_progress_and_previews() -> None:
    with Comfy() as client, QuietClock() as clock:
        client.submit(client.workflows.from_json(paint(steps=2, seed=1))).result()  # warm
        job = client.submit(client.workflows.from_json(paint(steps=1500, seed=5)))
        begun = clock()
        seen: list[tuple[str, float]] = []
        for event in job.events():
            seen.append((type(event).__name__, clock() - begun))
            if type(event).__name__ == "Preview":
                assert event.data[:2] in {b"\xff\xd8", b"\x89P"}  # type: ignore[union-attr]
                job.cancel()
    kinds = [kind for kind, _ in seen]
    assert {"Progress", "Preview", "StatusChange"} <= set(kinds)
    assert seen[0][1] < 2.0, "the snapshot comes promptly"


@pytest.mark.usefixtures("environment")
def test_two_hundred_jobs_of_twenty_clients_all_end_right_whatever_dies(stack: DevStack) -> None:
    chance = random.Random(4)
    is_over = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        while kills < MAX_KILLS and not is_over.wait(chance.uniform(3, 7)):
            stack.kill_workers()
            kills += 1

    def submit_ten(number: int) -> list[tuple[str, str]]:
        with Comfy() as client:
            jobs = [submit_surely(client, small(number * 10 + place), {"run": "many"}) for place in range(10)]
            return [(job.id, colour_of(number * 10 + place)) for place, job in enumerate(jobs)]

    with ThreadPoolExecutor(20) as clients:
        submitted = [pair for pairs in clients.map(submit_ten, range(20)) for pair in pairs]
    assert len({job_id for job_id, _ in submitted}) == 200
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with Comfy() as client:
            jobs = {job_id: client.jobs.get(job_id).wait(timeout=2 * PATIENCE_S) for job_id, _ in submitted}
            assert [job.status for job in jobs.values()] == ["succeeded"] * 200
            listed = [entry.id for entry in client.list_jobs(metadata={"run": "many"}, limit=100)]
            assert sorted(listed) == sorted(jobs), "what was refused was not taken"
            for job_id, colour in submitted:
                (output,) = jobs[job_id].outputs
                assert pixel_of(output.to_bytes()) == colour, "each has its own result"
    finally:
        is_over.set()
        killer.join()
    assert kills > 0


def submit_surely(client: Comfy, graph: dict[str, Any], metadata: dict[str, str]) -> Any:
    """Submit, again where the answer says so: the local DynamoDB is not made for twenty clients at once."""
    for _ in range(5):
        try:
            return client.submit(client.workflows.from_json(graph), metadata=metadata)
        except ComfyError as error:
            if error.code != "upstream_error":
                raise
            time.sleep(0.2)
    raise AssertionError("the API does not answer")


def small(number: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": number + 1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "small"}},
    }


def colour_of(number: int) -> str:
    return f"{number + 1:06x}"


def pixel_of(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        return "".join(f"{value:02x}" for value in image.convert("RGB").getpixel((0, 0)))  # type: ignore[union-attr]


@pytest.mark.usefixtures("environment")
def test_jobs_run_in_the_order_of_their_submission_and_none_twice() -> None:
    with Comfy() as client:
        jobs = [client.submit(client.workflows.from_json(small(1000 + number))) for number in range(15)]
        done = [job.wait(timeout=PATIENCE_S) for job in jobs]
    started = [get(f"/api/v2/jobs/{job.id}")["started_at"] for job in done]
    assert started == sorted(started)


@pytest.mark.usefixtures("environment")
def test_what_the_editor_saved_runs_and_its_pictures_can_be_opened_again(stack: DevStack) -> None:
    """Whoever converts it: the worker, and the API once it has been told which nodes there are."""
    for color in (255, 65280):
        saved = plain(color=color)
        job = requests.post(
            f"{stack.url}/generate", json={"workflow": saved}, headers=bearer(), timeout=PATIENCE_S
        ).json()
        url = f"{stack.url}{job['urls']['self']}"
        ask = functools.partial(requests.get, url, headers=bearer(), timeout=PATIENCE_S)
        assert wait_until(functools.partial(tells_of_an_end, ask))
        (output,) = ask().json()["outputs"]
        content = requests.get(output["url"], timeout=PATIENCE_S).content
        assert pixel_of(content) == f"{color:06x}"
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert json.loads(picture.text["workflow"]) == saved  # type: ignore[attr-defined]
        assert get(f"{job['urls']['self']}/workflow") == {"workflow": saved, "format": "save"}

        def convert(saved: dict[str, Any] = saved) -> requests.Response:
            url = f"{stack.url}/api/v2/workflows/convert"
            return requests.post(url, json={"workflow": saved}, headers=bearer(), timeout=PATIENCE_S)

        assert wait_until(lambda: convert().ok), convert().text
        assert convert().json()["workflow"]["1"]["inputs"]["color"] == color


def tells_of_an_end(ask: Callable[[], requests.Response]) -> bool:
    return bool(ask().json()["completed_at"])


def get(path: str) -> Any:
    return requests.get(os.environ["COMFY_BASE_URL"] + path, headers=bearer(), timeout=PATIENCE_S).json()


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['COMFY_API_KEY']}"}


@pytest.mark.usefixtures("environment")
def test_generate_waits_for_the_picture(stack: DevStack) -> None:
    answer = requests.post(
        f"{stack.url}/generate", json={"workflow": small(5), "wait_s": 20}, headers=bearer(), timeout=PATIENCE_S
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert requests.get(answer.json()["outputs"][0]["url"], timeout=PATIENCE_S).content.startswith(b"\x89PNG")


@pytest.mark.usefixtures("environment")
def test_a_webhook_is_called_signed_and_again_until_it_is_heard(stack: DevStack) -> None:
    calls: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(503 if len(calls) == 1 else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    key = bytes(range(32))
    with ThreadingHTTPServer((LOOPBACK, 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        body = {
            "workflow": small(6),
            "webhook_url": f"http://{LOOPBACK}:{server.server_port}/hook",
            "webhook_secret": "whsec_" + base64.b64encode(key).decode(),
        }
        job = requests.post(f"{stack.url}/api/v2/jobs", json=body, headers=bearer(), timeout=PATIENCE_S).json()
        until = time.monotonic() + PATIENCE_S
        while len(calls) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        server.shutdown()
    assert len(calls) == 2
    (first, _), (headers, content) = calls
    assert headers["webhook-id"] == first["webhook-id"], "the receiver can tell that it is the same"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + content
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    told = json.loads(content)
    assert (told["type"], told["data"]["id"]) == ("job.succeeded", job["id"])


@pytest.mark.usefixtures("environment")
def test_a_revoked_key_and_a_foreign_one_are_refused(stack: DevStack) -> None:
    made = stack.keys.create("other", owner="other")
    (first, *_) = requests.get(f"{stack.url}/api/v2/jobs", headers=bearer(), timeout=PATIENCE_S).json()["jobs"]
    other = {"Authorization": f"Bearer {made.text}"}
    assert requests.get(f"{stack.url}/api/v2/jobs", headers=other, timeout=PATIENCE_S).json() == {"jobs": []}
    assert requests.get(f"{stack.url}/api/v2/jobs/{first['id']}", headers=other, timeout=PATIENCE_S).status_code == 404
    assert requests.get(f"{stack.url}/api/v2/jobs", timeout=PATIENCE_S).status_code == 401
    answer = requests.get(f"{stack.url}/api/v2/jobs", headers={"Authorization": "Bearer wrong"}, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_a_body_over_the_limit_is_413(stack: DevStack) -> None:
    answer = requests.post(
        f"{stack.url}/api/v2/jobs",
        data=b" " * 7_000_000,
        headers={"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"},
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 413


def test_the_log_of_the_api_holds_no_key(stack: DevStack, tmp_path: Path) -> None:
    del tmp_path
    folder = stack.log_folder
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.log"))
    assert text
    assert stack.api_key not in text
