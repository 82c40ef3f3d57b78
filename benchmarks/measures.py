"""Measures that need separate processes: the start, memory, and imports."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from functools import partial

from comfy_serverless.connector.launch import choose_engine
from comfy_serverless.connector.ports import find_available_port
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.settings import Settings

ROUNDS = 3


def connector_lag_ms(settings: Settings) -> float:
    """How long after the engine's first answer the connector knows that it is ready: the best of three, in ms."""
    lags = []
    for _ in range(ROUNDS):
        port = find_available_port("127.0.0.1", settings.initial_port + 500)
        choice = choose_engine(replace(settings, initial_port=port))
        process = ComfyProcess(
            partial(choice.arguments, first_port=port),
            host="127.0.0.1",
            first_port=port,
            cwd=choice.cwd,
            environment=choice.environment,
            answers=lambda answered: _answers(answered),
        )
        first: list[float] = []
        watcher = threading.Thread(target=_watch, args=(port, first))
        watcher.start()
        process.start()
        process.wait_ready(120)
        ready = time.perf_counter()
        watcher.join()
        process.stop()
        lags.append((ready - first[0]) * 1000)
    return max(0.0, min(lags))


_FLOOR = """
    import sys
    import numpy
    from aiohttp import web
    app = web.Application()
    async def answer(request): return web.json_response({})
    app.router.add_get("/prompt", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


def engine_start_seconds() -> tuple[float, float]:
    """(an interpreter that loads aiohttp and numpy and answers, the embedded engine): the best of several, in turns."""
    commands = [sys.executable, "-c", textwrap.dedent(_FLOOR)], [sys.executable, "-m", "comfy_lite"]
    rounds = [(_seconds_to_answer(commands[0]), _seconds_to_answer(commands[1])) for _ in range(ROUNDS)]
    return min(floor for floor, _ in rounds), min(ours for _, ours in rounds)


def _seconds_to_answer(command: list[str]) -> float:
    port = find_available_port("127.0.0.1", 19900)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            first: list[float] = []
            _watch(port, first)
            return first[0] - started
        finally:
            process.kill()
            process.wait()


def _watch(port: int, first: list[float]) -> None:
    while not _answers(port):
        time.sleep(0.001)
    first.append(time.perf_counter())


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/prompt")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


_MEMORY = """
    import gc, json, sys, re
    from pathlib import Path
    from benchmarks.workflows import noise_files, noise_job
    from comfy_serverless import ComfyConnector

    def status(field):
        return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    def consume(output):
        # As a delivery does: in parts, never whole.
        with output.open() as stream:
            while stream.read(1 << 20):
                pass

    # Opened before the connector closes this process to everybody, itself among them unless it is root.
    peak = open("/proc/self/clear_refs", "w")
    connector = ComfyConnector()
    names = noise_files(connector.input_directory, count=8, pixels=2048)
    small = noise_files(connector.input_directory, count=1, pixels=64)
    consume(connector.run(noise_job(small)).outputs[0])
    gc.collect()
    idle = status("VmRSS")
    print(5, file=peak, flush=True)
    size = 0
    levels = []
    for round in range(int(sys.argv[1])):
        execution = connector.run(noise_job(names))
        for output in execution.outputs:
            consume(output)
            size += output.size_bytes
            output.path.unlink()
        del execution, output
        gc.collect()
        levels.append(status("VmRSS"))
    print(json.dumps({"peak": status("VmHWM") - idle, "growth": levels[-1] - levels[0], "size": size}))
    connector.kill_api()
"""


def memory_growth(*, jobs: int = 20) -> tuple[float, float]:
    """(peak above the idle process, growth from the first job to the last) in MB, at 100 MB of outputs a job."""
    answer = _python(_MEMORY, str(jobs))
    figures = json.loads(answer)
    assert figures["size"] > jobs * 90_000_000
    return figures["peak"], figures["growth"]


def import_seconds() -> tuple[float, float]:
    """(the libraries alone, the handler) in seconds of processor time, the best of several, taken in turns.

    Only the names that we use are imported from each library: the libraries load their other parts on demand.
    """
    libraries = "import boto3\nfrom aws_lambda_powertools import Logger, Metrics\nfrom pydantic import BaseModel"
    rounds = [(_seconds(libraries), _seconds("import comfy_serverless.handlers.generate")) for _ in range(7)]
    return min(bare for bare, _ in rounds), min(ours for _, ours in rounds)


def _seconds(statement: str) -> float:
    return float(_python(f"import time\nbegun = time.process_time()\n{statement}\nprint(time.process_time() - begun)"))


def _python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr)
    return answer.stdout.splitlines()[-1]
