"""An engine on this machine and one elsewhere, with proxies in the environment; and what an engine elsewhere takes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.errors import MissingAsset
from comfy_serverless.settings import Settings
from tests.contract.engines import EngineProcess, free_port
from tests.patience import PATIENCE_S
from tests.small_proxy import WAYS, SmallProxy

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "far"}},
}
#: What the environment of a company's network looks like.
COMPANY = {"NO_PROXY": "169.254.169.254,.internal"}

HANDLER = """
import json, sys
from comfy_serverless.handlers import generate, wiring_worker
class Context:
    aws_request_id = "r"
    def get_remaining_time_in_millis(self): return 100_000
try:
    print(json.dumps(generate.handler({"workflow": json.load(sys.stdin), "reply": "inline"}, Context())))
finally:
    wiring_worker.connector().kill_api()
"""


class Elsewhere(ComfyConnector):
    """Beside the one of this process."""

    _instance = None


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., ComfyConnector]]:
    """`elsewhere(comfyui_url=…)`: a connector, closed afterwards."""

    def connect(**settings: Any) -> ComfyConnector:
        return Elsewhere(settings=Settings(**settings))

    yield connect
    if Elsewhere._instance is not None:
        Elsewhere._instance.kill_api()


def behind(proxy: SmallProxy) -> dict[str, str]:
    """The environment of a program whose every way leads through a proxy."""
    named = {name: value for name, value in os.environ.items() if not name.startswith("COMFYUI_")}
    return {
        **named,
        **dict.fromkeys(WAYS, proxy.url),
        **COMPANY,
        "PYTHONPATH": "lambda",
        "INITIAL_PORT": str(free_port()),
    }


def test_the_command_line_reaches_its_own_engine_without_a_proxy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "comfy_serverless.cli", "run", "workflows/thumbnail.json"]
    command += ["--input", "LoadImage.image=events/photo.jpg", "--out", str(tmp_path)]
    with SmallProxy() as proxy:
        ended = subprocess.run(
            command, env=behind(proxy), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir())
    assert proxy.asked == []


def test_the_handler_reaches_its_own_engine_without_a_proxy() -> None:
    with SmallProxy() as proxy:
        ended = subprocess.run(
            [sys.executable, "-c", HANDLER],
            env=behind(proxy),
            input=json.dumps(GRAPH),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    (job,) = (line for line in map(json.loads, ended.stdout.splitlines()) if "outputs" in line and "id" in line)
    assert job["status"] == "succeeded", ended.stdout + ended.stderr
    assert proxy.asked == []


def test_an_engine_on_loopback_is_run_on_without_a_proxy(
    engine: EngineProcess, elsewhere: Callable[..., ComfyConnector], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy() as proxy:
        for name in WAYS:
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", COMPANY["NO_PROXY"])
        assert elsewhere(comfyui_url=engine.url).run(GRAPH).outputs
    assert proxy.asked == []


def test_an_engine_elsewhere_is_run_on_through_the_proxy(
    engine: EngineProcess, elsewhere: Callable[..., ComfyConnector], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallProxy(engine.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        connector = elsewhere(comfyui_url="http://comfyui.example:8188")
        connector.upload_file(io.BytesIO(b"text"), "a.txt")
        outputs = connector.run(GRAPH).outputs
        assert [output.read()[:4] for output in outputs] == [b"\x89PNG"]
    asked = [request.partition("?")[0] for request in proxy.asked]
    at = "http://comfyui.example:8188"
    assert {f"POST {at}/upload/image", f"POST {at}/prompt", f"GET {at}/view", "CONNECT comfyui.example:8188"} <= {
        *asked
    }


def test_an_input_above_the_engine_s_limit_is_the_request_s_fault(
    start_engine: Callable[..., EngineProcess], elsewhere: Callable[..., ComfyConnector]
) -> None:
    engine = start_engine("--max-upload-size", "1")
    connector = elsewhere(comfyui_url=engine.url)
    with pytest.raises(MissingAsset, match=r"clip\.mp4 has 2,000,000 bytes.*at most 1,048,576.*--max-upload-size"):
        connector.upload_file(io.BytesIO(bytes(2_000_000)), "clip.mp4")
    connector._engine.uploads._limit = (connector.starts, None)  # an engine that does not say it
    with pytest.raises(MissingAsset, match="413"):
        connector.upload_file(io.BytesIO(bytes(2_000_000)), "clip.mp4")
    assert connector.upload_file(io.BytesIO(bytes(1_000_000)), "small.mp4") == "small.mp4"
