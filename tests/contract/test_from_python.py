"""What a Python program has beside `run`: awaiting it, its pictures, its files, one engine for its processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.progress import Progress
from comfy_serverless.errors import Canceled, InvalidWorkflow
from comfy_serverless.settings import Settings
from tests.contract.asking import queue
from tests.contract.engines import free_port
from tests.contract.faults.world import long_run, picture
from tests.patience import PATIENCE_S, wait_until

REAL = bool(os.environ.get("COMFYUI_DIR"))


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    folder = tmp_path_factory.mktemp("engine")
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL:
        settings = replace(settings, comfyui_args="--cpu")
    else:
        command = f"{sys.executable} -m comfy_lite --base-directory {folder} --step-ms 20"
        settings = replace(settings, api_command_line=command)
    warm = ComfyConnector(settings=settings)
    yield warm
    warm.kill_api()


def is_idle(connector: ComfyConnector) -> bool:
    return not any(queue(connector).values())


# await connector.arun(…)


def test_the_loop_goes_on_while_a_workflow_runs(connector: ComfyConnector) -> None:
    async def program() -> tuple[int, list[Progress], int]:
        seen: list[Progress] = []
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        executions = await asyncio.gather(*(connector.arun(picture(), on_progress=seen.append) for _ in range(3)))
        ticking.cancel()
        return ticks, seen, sum(len(execution.outputs) for execution in executions)

    ticks, seen, outputs = asyncio.run(program())
    assert outputs == 3
    assert ticks > 3
    assert seen[-1].value == 1.0


def test_callbacks_are_called_in_the_thread_of_the_loop_and_before_the_result(connector: ComfyConnector) -> None:
    import threading

    async def program() -> set[int]:
        threads: set[int] = set()
        names: list[str] = []

        def take(output: Any) -> None:
            threads.add(threading.get_ident())
            names.append(output.name)

        execution = await connector.arun(picture(), on_output=take)
        assert names == [output.name for output in execution.outputs]
        return threads

    assert asyncio.run(program()) == {threading.get_ident()}


def test_a_failure_is_raised_where_it_is_awaited(connector: ComfyConnector) -> None:
    with pytest.raises(InvalidWorkflow, match="NoSuchNode"):
        asyncio.run(connector.arun({"1": {"class_type": "NoSuchNode", "inputs": {}}}))


def test_a_timeout_cancels_the_run(connector: ComfyConnector) -> None:
    async def program() -> None:
        async with asyncio.timeout(0.5):
            await connector.arun(long_run())

    with pytest.raises(TimeoutError):
        asyncio.run(program())
    assert wait_until(lambda: is_idle(connector))
    assert connector._runs == {}


def test_a_task_that_is_canceled_ends_when_comfyui_has_confirmed(connector: ComfyConnector) -> None:
    async def program() -> bool:
        begun = asyncio.Event()
        task = asyncio.create_task(connector.arun(long_run(), on_progress=lambda _: begun.set()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return is_idle(connector)

    assert asyncio.run(program())


def test_a_task_that_is_canceled_before_it_is_submitted_runs_nothing(connector: ComfyConnector) -> None:
    async def program() -> None:
        task = asyncio.create_task(connector.arun(long_run()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    assert wait_until(lambda: is_idle(connector))


def test_cancel_from_elsewhere_is_heard(connector: ComfyConnector) -> None:
    prompt_id = "22222222-2222-4222-8222-222222222222"

    def cancel(_: Progress) -> None:
        connector.cancel(prompt_id)

    async def program() -> None:
        await connector.arun(long_run(), prompt_id=prompt_id, on_progress=cancel)

    with pytest.raises(Canceled):
        asyncio.run(program())


def test_a_callback_that_raises_ends_the_run_with_its_own_exception(connector: ComfyConnector) -> None:
    def refuse(_: Progress) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        asyncio.run(connector.arun(long_run(), on_progress=refuse))
    assert wait_until(lambda: is_idle(connector))


EXIT = """
    import asyncio, json, sys
    from comfy_serverless import ComfyConnector
    async def program():
        task = asyncio.create_task(ComfyConnector(wait=False).arun(json.load(sys.stdin)))
        await asyncio.sleep(0.1)
        {end}
    asyncio.run(program())
    print("ended", flush=True)
"""


@pytest.mark.parametrize("end", ["return", "raise SystemExit(0)"])
def test_nothing_hangs_at_the_exit_of_a_program(end: str) -> None:
    environment = {**os.environ, "PYTHONPATH": "lambda", "INITIAL_PORT": str(free_port())}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EXIT).format(end=end)],
        input=json.dumps(long_run(seconds=1000)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "never retrieved" not in ended.stderr


# What an execution is.


def test_images_are_pictures(connector: ComfyConnector) -> None:
    execution = connector.run(picture(batch=2, size=8))
    assert [image.size for image in execution.images] == [(8, 8), (8, 8)]
    assert all(isinstance(image, Image.Image) for image in execution.images)


def test_saving_overwrites_nothing(connector: ComfyConnector, tmp_path: Path) -> None:
    execution = connector.run(picture(batch=2))
    names = [output.name for output in execution.outputs]
    (tmp_path / "new" / names[0]).parent.mkdir()
    (tmp_path / "new" / names[0]).write_text("mine")
    first = execution.save(tmp_path / "new")
    second = execution.save(str(tmp_path / "new"))
    saved = [path.name for path in (*first, *second)]
    assert len({names[0], *saved}) == 5
    assert all(re.fullmatch(r"fault_[0-9]{5}_\.png", name) for name in saved), "the next numbers of the counter"
    assert (tmp_path / "new" / names[0]).read_text() == "mine"
    assert [path.read_bytes() for path in first] == [output.read() for output in execution.outputs]


def test_a_notebook_shows_pictures_and_a_prompt_short_words(connector: ComfyConnector) -> None:
    execution = connector.run(picture(batch=2))
    assert len(repr(execution)) < 200
    assert repr(execution.outputs[0]).startswith(f"<Output {execution.outputs[0].name} (image/png) of node 2 ")
    shown = execution._repr_html_()
    assert shown.count("data:image/png;base64,") == 2
    png = execution.outputs[0]._repr_png_()
    assert png is not None
    assert Image.open(io.BytesIO(png)).format == "PNG"


# Several processes of one program.

WORKER = """
    import json, multiprocessing, os, sys
    from comfy_serverless import ComfyConnector

    def work(graph):
        connector = ComfyConnector()
        return os.getpid(), connector.starts, len(connector.run(graph).outputs)

    if __name__ == "__main__":
        connector = ComfyConnector()
        os.environ["COMFYUI_URL"] = connector.server_address
        graphs = json.load(sys.stdin)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            done = pool.map(work, graphs, chunksize=1)
        print(json.dumps([done, len(connector.run(graphs[0]).outputs)]))
        connector.kill_api()
"""


def test_processes_that_a_program_starts_share_its_engine(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(WORKER))
    path = str(Path("lambda").absolute())
    environment = {**os.environ, "PYTHONPATH": path, "INITIAL_PORT": str(free_port()), "COMFYUI_ARGS": "--cpu"}
    ended = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps([picture() for _ in range(4)]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    done, own = json.loads(ended.stdout.splitlines()[-1])
    assert [(starts, outputs) for _, starts, outputs in done] == [(0, 1)] * 4
    assert own == 1
