"""How fast an engine answers, and how soon after that the connector knows."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.connector.ports import find_available_port

ROUNDS = 3
lite_only = pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="measures the embedded engine")


def first_answer(port: int, give_up_at: float) -> float:
    """The time at which the engine on a port answers its first request."""
    while time.monotonic() < give_up_at:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/prompt")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.001)
        else:
            return time.monotonic()
        finally:
            connection.close()
    raise TimeoutError(port)


@lite_only
def test_the_connector_is_ready_when_the_engine_has_barely_answered(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    lags_ms, starts_ms = [], []
    for _ in range(ROUNDS):
        command = f"{sys.executable} -m comfy_lite --base-directory {tmp_path}"
        port = find_available_port("127.0.0.1", 19800)
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(first_answer, port, started + 20)
            connector = ComfyConnector(settings=Settings(api_command_line=command, initial_port=port))
            ready = time.monotonic()
            connector.kill_api()
            lags_ms.append((ready - answered.result()) * 1000)
        starts_ms.append((ready - started) * 1000)
    record_property("start_ms", min(starts_ms))
    record_property("lag_ms", min(lags_ms))
    print(f"ready after {min(starts_ms):.0f} ms, {min(lags_ms):.1f} ms after the engine's first answer")
    assert min(lags_ms) < 0.25 * min(starts_ms)


@lite_only
def test_the_engine_starts_in_little_more_than_its_libraries_take(tmp_path: Path) -> None:
    """The floor: an interpreter that loads aiohttp and numpy and answers one request."""
    floor = textwrap.dedent("""
        import sys
        import numpy
        from aiohttp import web
        app = web.Application()
        async def answer(request): return web.json_response({})
        app.router.add_get("/prompt", answer)
        web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
    """)
    commands = {
        "floor": [sys.executable, "-c", floor],
        "comfy_lite": [sys.executable, "-m", "comfy_lite", "--base-directory", str(tmp_path)],
    }
    best = {name: min(seconds_to_answer(command) for _ in range(ROUNDS)) for name, command in commands.items()}
    print(f"spawn to first answer: {best['comfy_lite'] * 1000:.0f} ms; floor {best['floor'] * 1000:.0f} ms")
    assert best["comfy_lite"] < 2 * best["floor"]


def seconds_to_answer(command: list[str]) -> float:
    port = find_available_port("127.0.0.1", 19900)
    started = time.monotonic()
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return first_answer(port, started + 20) - started
    finally:
        process.kill()
        process.wait()
