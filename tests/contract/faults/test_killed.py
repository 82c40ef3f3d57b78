"""The engine dies: before, during and after a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from comfy_serverless import ComfyConnector
from comfy_serverless.errors import ComfyError
from tests.contract import asking
from tests.contract.faults.rows import row
from tests.contract.faults.world import (
    World,
    in_background,
    lite_only,
    long_run,
    new_id,
    picture,
    real_only,
    wait_until,
)

DEATHS = [
    pytest.param({"signal": signal.SIGKILL}, id="SIGKILL"),
    pytest.param({"exit_code": 137}, id="exit-137"),
    pytest.param({"signal": signal.SIGSEGV}, id="SIGSEGV"),
    pytest.param({"signal": signal.SIGABRT}, id="SIGABRT"),
]


@row(
    "it dies (SIGKILL, exit code 137, SIGSEGV, SIGABRT) before the prompt is accepted",
    so="succeeds: the process is replaced, the workflow run once more",
    within_s=10,
)
@lite_only
@pytest.mark.parametrize("death", DEATHS)
def test_it_dies_before_the_prompt_is_accepted(fragile: World, death: dict[str, Any]) -> None:
    fragile.arm("crash", at="prompt", **death)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs), fragile.connector.starts) == (2, 1, 2)


@row(
    "it dies in one of these ways in the middle of a node",
    so="succeeds: the process is replaced, the workflow run once more",
    within_s=10,
)
@lite_only
@pytest.mark.parametrize("death", DEATHS)
def test_it_dies_in_a_node(fragile: World, death: dict[str, Any]) -> None:
    fragile.arm("crash", at="node", node="SaveImage", **death)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs), fragile.connector.starts) == (2, 1, 2)


@row(
    "it dies in one of these ways after the last node, before the history is written",
    so="succeeds: the process is replaced, the workflow run once more",
    within_s=10,
)
@lite_only
@pytest.mark.parametrize("death", DEATHS)
def test_it_dies_after_the_last_node_and_before_the_history(fragile: World, death: dict[str, Any]) -> None:
    fragile.arm("crash", at="end", **death)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs), fragile.connector.starts) == (2, 1, 2)


@row(
    "it is killed from outside in the middle of a node",
    so="succeeds: the process is replaced, the workflow run once more",
    within_s=60,
)
def test_it_is_killed_in_a_node(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.succeeds(long_run(seconds=1), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    fragile.signal(signal.SIGKILL)
    execution = running.result()
    assert (execution.attempts, len(execution.outputs), fragile.connector.starts) == (2, 1, 2)


@row("it is killed while prompts wait in its queue", so="all succeed: one restart, each is run once more", within_s=60)
def test_it_is_killed_while_prompts_are_queued(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.connector.run(long_run(seconds=1), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    queued = in_background(lambda: fragile.succeeds(picture()))
    assert wait_until(lambda: bool(asking.queue(fragile.connector)["queue_pending"]))
    fragile.signal(signal.SIGKILL)
    assert [len(done.result().outputs) for done in (running, queued)] == [1, 1]
    assert fragile.connector.starts == 2, "the first to notice replaces it, the other leaves its successor alone"


@row("it dies under three jobs at once", so="all succeed after one restart", within_s=15)
@lite_only
def test_it_dies_under_several_threads(fragile: World) -> None:
    fragile.arm("crash", at="node", node="KSampler")
    with ThreadPoolExecutor(3) as threads:
        executions = list(threads.map(lambda _: fragile.succeeds(long_run(seconds=0.4)), range(3)))
    assert [len(execution.outputs) for execution in executions] == [1, 1, 1]
    assert fragile.connector.starts == 2


@row(
    "it is killed after the success, before the outputs are read",
    so="nothing is lost: they are read from disk",
    within_s=15,
)
def test_it_dies_before_its_outputs_are_read(fragile: World) -> None:
    execution = fragile.succeeds(picture())
    fragile.signal(signal.SIGKILL)
    fragile.process.wait_output()
    assert execution.outputs[0].read().startswith(b"\x89PNG")


@row(
    "an engine elsewhere (COMFYUI_URL) dies before its outputs are read",
    so="reading raises; a worker turns this into `delivery_failed`",
    within_s=10,
)
@lite_only
def test_it_dies_elsewhere_before_its_outputs_are_read(fragile: World) -> None:
    class Elsewhere(ComfyConnector):
        _instance = None

    elsewhere = Elsewhere(settings=fragile.settings(comfyui_url=fragile.connector.server_address))
    execution = elsewhere.run(picture())
    fragile.signal(signal.SIGKILL)
    fragile.process.wait_output()
    started = fragile.clock()
    try:
        with pytest.raises(ConnectionError, match="no ComfyUI answers"):
            execution.outputs[0].read()
    finally:
        elsewhere.kill_api()
    fragile.check(execution, fragile.clock() - started)


@row("it is killed in both attempts", code="engine_crashed", so="with exit code and log, retryable", within_s=120)
def test_it_is_killed_twice(fragile: World) -> None:
    prompt_id = new_id()

    def executes_in(start: int) -> bool:
        return fragile.process.starts == start and is_executing(fragile)

    def kill_each() -> None:
        for start in (1, 2):
            assert wait_until(partial(executes_in, start))
            fragile.signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_each)
    killer.start()
    error = fragile.fails(long_run(), prompt_id=prompt_id)
    killer.join()
    assert error.retryable
    assert error.details["exit_code"] == -signal.SIGKILL


def is_executing(world: World) -> bool:
    try:
        return bool(world.connector._engine.client.queue()["queue_running"])
    except Exception:
        return False


@row("it is killed and does not start again", code="engine_unavailable", so="with the outputs made before", within_s=10)
@lite_only
def test_it_is_killed_and_does_not_start_again(fragile: World) -> None:
    command = fragile.process._command

    def break_engine(_: object) -> None:
        fragile.process._command = lambda _port: [sys.executable, "-c", "raise SystemExit(3)"]
        fragile.signal(signal.SIGKILL)

    fragile.arm("hang", at="node", node="KSampler")
    error = fragile.fails(long_run() | {"2": picture()["2"], "1": picture()["1"]}, on_output=break_engine)
    assert [output.node_id for output in error.outputs] == ["2"], "what was made before is kept"
    fragile.process._command = command


@row(
    "TEST_PAYLOAD itself kills it, at each start", code="engine_crashed", so="the connector is not created", within_s=15
)
@lite_only
def test_it_dies_of_the_test_payload(world: World) -> None:
    engine = world.folder / "engine.py"
    engine.write_text(
        "import os\nfrom comfy_lite import faults\nfrom comfy_lite.__main__ import main\n"
        "faults.Faults.strike = lambda *_, **at: os._exit(5) if at.get('class_type') == 'SaveImage' else None\n"
        "os._exit(main())\n"
    )
    payload = world.folder / "test.json"
    payload.write_text(json.dumps(picture()))
    started = world.clock()
    with pytest.raises(ComfyError, match="exit code 5") as raised:
        world.connect(
            api_command_line=f"{sys.executable} {engine} --enable-faults --base-directory {world.folder}",
            test_payload=payload,
        )
    world.check(raised.value, world.clock() - started)


@row("our own process is killed by SIGKILL", so="the kernel ends the engine with it", within_s=5)
def test_our_own_process_is_killed(world: World) -> None:
    program = """
        import sys
        from tests.contract.faults.rows import Row
        from tests.contract.faults.world import World, long_run
        from pathlib import Path
        made = World(Path(sys.argv[1]), Row("", None, "", 60), print)
        made.connect()
        print("ready", flush=True)
        made.connector.run(long_run())
    """
    ours = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(world.folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == b"ready\n"
    assert world.processes()
    started = world.clock()
    ours.kill()
    ours.communicate()
    assert wait_until(lambda: not world.processes())
    world.check(None, world.clock() - started)


@row(
    "a node ends the process each time (real ComfyUI: exit, SIGSEGV)",
    code="engine_crashed",
    so="with the exit code",
    within_s=120,
)
@real_only
@pytest.mark.parametrize("kind", ["Exit", "SegV"])
def test_a_node_ends_the_process_every_time(fragile: World, kind: str) -> None:
    graph = picture()
    graph["1"] = {"class_type": "ContractRaise", "inputs": {"kind": kind, "message": ""}}
    assert fragile.fails(graph).details["exit_code"] == {"Exit": 7, "SegV": -11}[kind]
