"""Faults injected into the embedded engine: one right outcome each, and the next workflow runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless import ComfyConnector, Output, Settings
from comfy_serverless.errors import (
    Canceled,
    DeadlineExceeded,
    EngineCrashed,
    EngineStalled,
    EngineUnavailable,
    InvalidWorkflow,
    OutOfMemory,
)

pytestmark = pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="only the embedded engine fails on demand")

STALL_S = 3.0


@pytest.fixture
def connector(tmp_path: Any) -> Iterator[ComfyConnector]:
    command = f"{sys.executable} -m comfy_lite --base-directory {tmp_path} --enable-faults --step-ms 20"
    fragile = ComfyConnector(settings=Settings(api_command_line=command, initial_port=20188, stall_s=STALL_S))
    yield fragile
    fragile.kill_api()


def arm(connector: ComfyConnector, fault: str, **details: Any) -> None:
    requests.post(
        f"{connector.server_address}/lite/faults", json={"fault": fault, **details}, timeout=5
    ).raise_for_status()


def picture(batch: int = 1) -> dict[str, Any]:
    inputs = {"width": 8, "height": 8, "batch_size": batch, "color": uuid.uuid4().int % 0xFFFFFF}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "fault"}},
    }


@pytest.mark.parametrize("at", ["prompt", "start", "node"])
def test_a_crash_costs_one_restart_and_no_outcome(connector: ComfyConnector, at: str) -> None:
    arm(connector, "crash", at=at, exit_code=7)
    execution = connector.run(picture())
    assert (execution.attempts, len(execution.outputs)) == (2, 1)
    assert connector.starts == 2


def test_a_crash_between_the_last_node_and_the_history_loses_nothing(connector: ComfyConnector) -> None:
    arm(connector, "crash", at="end")
    assert connector.run(picture()).outputs
    assert connector.run(picture()).outputs


def test_a_second_crash_is_reported_with_exit_code_and_log(connector: ComfyConnector) -> None:
    crashing = picture()
    timers = [threading.Timer(0.3, _kill_when_running, [connector, start]) for start in (1, 2)]
    crashing |= {"3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}}
    for timer in timers:
        timer.start()
    with pytest.raises(EngineCrashed) as raised:
        connector.run(long_run())
    assert raised.value.details["exit_code"] == -signal.SIGKILL
    assert raised.value.retryable
    for timer in timers:
        timer.join()
    assert connector.run(picture()).outputs


def _kill_when_running(connector: ComfyConnector, start: int) -> None:
    """Kill the engine's n-th process in the middle of a prompt."""
    process = connector._engine.process
    assert process is not None
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.starts == start and process.pid and connector._engine.is_answering():
            try:
                running = connector._engine.client.queue()["queue_running"]
            except requests.RequestException:
                continue
            if running:
                os.kill(process.pid, signal.SIGKILL)
                return
        time.sleep(0.02)


def long_run(*, steps: int = 10_000) -> dict[str, Any]:
    model = ["10", 0]
    return {
        "10": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "11": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["10", 1]}},
        "12": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "13": {
            "class_type": "KSampler",
            "inputs": {
                "model": model,
                "positive": ["11", 0],
                "negative": ["11", 0],
                "latent_image": ["12", 0],
                "seed": uuid.uuid4().int % 2**32,
                "steps": steps,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "14": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 2]}},
        "15": {"class_type": "PreviewImage", "inputs": {"images": ["14", 0]}},
    }


def test_running_out_of_memory_is_tried_once_more(connector: ComfyConnector) -> None:
    arm(connector, "out_of_memory", at="node", node="SaveImage")
    assert connector.run(picture()).attempts == 2


def test_running_out_of_memory_twice_is_a_failure_and_the_engine_goes_on(connector: ComfyConnector) -> None:
    arm(connector, "out_of_memory", at="node", node="SaveImage", times=2)
    with pytest.raises(OutOfMemory) as raised:
        connector.run(picture())
    assert raised.value.details["node_id"] == "2"
    assert connector.run(picture()).attempts == 1
    assert connector.starts == 1


@pytest.mark.parametrize("at", ["prompt", "start", "node", "end"])
def test_a_socket_that_drops_loses_nothing(connector: ComfyConnector, at: str) -> None:
    arm(connector, "drop_sockets", at=at)
    execution = connector.run(picture())
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


def test_a_socket_that_falls_silent_loses_nothing(connector: ComfyConnector) -> None:
    arm(connector, "mute", at="start")
    assert len(connector.run(picture()).outputs) == 1


def test_frames_lost_with_the_socket_are_made_again(connector: ComfyConnector) -> None:
    graph = picture(batch=3)
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    arm(connector, "drop_sockets", at="node", node="SaveImageWebsocket")
    execution = connector.run(graph)
    assert (execution.attempts, len(execution.outputs)) == (2, 3)


@pytest.mark.parametrize("fault", ["hang", "end_worker"])
def test_a_prompt_that_never_gets_on_ends_as_stalled_and_the_engine_is_replaced(
    connector: ComfyConnector, fault: str
) -> None:
    arm(connector, fault, at="node")
    started = time.monotonic()
    with pytest.raises(EngineStalled):
        connector.run(picture())
    assert time.monotonic() - started < STALL_S + 5
    assert connector.run(picture()).outputs
    assert connector.starts == 2


def test_a_server_that_accepts_and_never_answers_does_not_outlast_the_deadline(connector: ComfyConnector) -> None:
    connector.run(picture())
    process = connector._engine.process
    assert process is not None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises((DeadlineExceeded, EngineStalled)):
        connector.run(picture(), deadline_s=2)
    assert connector.run(picture()).outputs
    assert connector.starts == 2


def test_slow_answers_are_waited_for(connector: ComfyConnector) -> None:
    arm(connector, "slow_answers", seconds=0.3)
    time.sleep(0.1)
    assert connector.run(picture()).outputs


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Any) -> None:
    command = f"{sys.executable} -m comfy_lite --base-directory {tmp_path} --start-delay-ms 20000"
    settings = Settings(api_command_line=command, initial_port=20288, max_start_attempts=2, start_attempts_sleep_s=0.25)
    with pytest.raises(EngineUnavailable, match=r"0\.5 s"):
        ComfyConnector(settings=settings)
    assert ComfyConnector._instance is None


def test_a_deadline_that_passes_during_the_start_is_said_to_have_done_so(tmp_path: Any) -> None:
    command = f"{sys.executable} -m comfy_lite --base-directory {tmp_path} --start-delay-ms 3000"
    connector = ComfyConnector(settings=Settings(api_command_line=command, initial_port=20388), wait=False)
    try:
        with pytest.raises(DeadlineExceeded, match="still starting"):
            connector.run(picture(), deadline_s=0.3)
        assert connector.run(picture()).outputs, "the start goes on for the next one"
        assert connector.starts == 1
    finally:
        connector.kill_api()


def test_a_crash_under_several_threads_costs_one_restart_and_no_outcome(connector: ComfyConnector) -> None:
    arm(connector, "crash", at="node", node="KSampler")
    with ThreadPoolExecutor(3) as threads:
        executions = list(threads.map(lambda _: connector.run(long_run(steps=20)), range(3)))
    assert [len(execution.outputs) for execution in executions] == [1, 1, 1]
    assert connector.starts == 2, "the first to notice replaces it, the others leave its successor alone"


def test_a_self_test_that_crashes_the_engine_ends(tmp_path: Path) -> None:
    engine = tmp_path / "engine.py"
    engine.write_text(
        "import os\nfrom comfy_lite import faults\nfrom comfy_lite.__main__ import main\n"
        "faults.Faults.strike = lambda *_, **at: os._exit(5) if at.get('class_type') == 'SaveImage' else None\n"
        "os._exit(main())\n"
    )
    (tmp_path / "test.json").write_text(json.dumps(picture()))
    settings = Settings(
        api_command_line=f"{sys.executable} {engine} --enable-faults --base-directory {tmp_path}",
        initial_port=20488,
        test_payload=tmp_path / "test.json",
    )
    with pytest.raises(EngineCrashed, match="exit code 5"):
        ComfyConnector(settings=settings)


def queue_is_empty(connector: ComfyConnector) -> bool:
    return connector._engine.client.queue_remaining() == 0


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_callback_that_raises_leaves_nothing_running(connector: ComfyConnector) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("the caller's own mistake")

    with pytest.raises(RuntimeError, match="own mistake"):
        connector.run(long_run(), on_progress=fail)
    assert wait_until(lambda: queue_is_empty(connector))
    assert connector.run(picture()).outputs


def test_a_slow_callback_does_not_put_off_the_deadline(connector: ComfyConnector) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        connector.run(long_run(steps=1000), on_progress=lambda _: time.sleep(0.05), deadline_s=1.0)
    assert time.monotonic() - started < 4
    assert connector.starts == 1, "it was interrupted, not killed"


def test_a_cancel_in_vain_is_not_forgotten_when_the_run_would_be_repeated(connector: ComfyConnector) -> None:
    prompt_id = str(uuid.uuid4())
    arm(connector, "out_of_memory", at="node", node="SaveImage")
    with pytest.raises(Canceled):
        connector.run(picture(), prompt_id=prompt_id, on_progress=lambda _: connector.cancel(prompt_id))


def test_frames_lost_twice_are_named(connector: ComfyConnector) -> None:
    graph = picture(batch=3)
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    arm(connector, "drop_sockets", at="node", node="SaveImageWebsocket", times=2)
    assert any("websocket was lost" in warning for warning in connector.run(graph).warnings)


def test_what_was_made_before_a_crash_is_kept_when_the_engine_does_not_start_again(connector: ComfyConnector) -> None:
    process = connector._engine.process
    assert process is not None

    def break_engine(_: object) -> None:
        process._command = lambda _port: [sys.executable, "-c", "raise SystemExit(3)"]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)

    graph = long_run() | {"2": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}}
    graph["2"]["inputs"]["color"] = 1
    graph["3"] = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "kept"}}
    arm(connector, "hang", at="node", node="KSampler")
    with pytest.raises((EngineUnavailable, EngineStalled)) as raised:
        connector.run(graph, on_output=break_engine)
    assert [output.node_id for output in raised.value.outputs] == ["3"]


def test_cached_outputs_of_an_engine_elsewhere_are_told_too(connector: ComfyConnector) -> None:
    graph = picture()
    connector.run(graph)

    class Elsewhere(ComfyConnector):
        _instance = None

    elsewhere = Elsewhere(settings=Settings(comfyui_url=connector.server_address))
    told: list[Output] = []
    try:
        outputs = elsewhere.run(graph, on_output=told.append).outputs
    finally:
        elsewhere.kill_api()
    assert told == list(outputs)
    assert ComfyConnector() is connector


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[ComfyConnector]:
    command = f"{sys.executable} -m comfy_lite --base-directory {tmp_path} --start-delay-ms 2000"
    slow = ComfyConnector(settings=Settings(api_command_line=command, initial_port=20588), wait=False)
    yield slow
    slow.kill_api()


def test_a_deadline_holds_while_another_thread_waits_for_the_start(starting: ComfyConnector) -> None:
    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(starting.run, picture())
        time.sleep(0.2)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="still starting"):
            starting.run(picture(), deadline_s=0.3)
        assert time.monotonic() - started < 1
        assert patient.result().outputs


def test_a_job_canceled_during_the_start_is_never_submitted(starting: ComfyConnector) -> None:
    prompt_id = str(uuid.uuid4())
    with ThreadPoolExecutor(1) as threads:
        canceled = threads.submit(starting.run, picture(), prompt_id=prompt_id)
        assert wait_until(lambda: starting.cancel(prompt_id))
        with pytest.raises(Canceled, match="before it was submitted"):
            canceled.result()
    assert starting.get_history(prompt_id) == {}


def test_closing_while_another_thread_waits_for_the_start_is_said_to_be_that(starting: ComfyConnector) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(starting.run, picture())
        time.sleep(0.3)
        starting.kill_api()
        with pytest.raises(EngineUnavailable, match="kill_api"):
            waiting.result()


def test_a_workflow_that_json_cannot_carry_is_refused_at_once(connector: ComfyConnector) -> None:
    graph = picture()
    graph["1"]["inputs"]["color"] = float("nan")
    with pytest.raises(InvalidWorkflow, match="JSON"):
        connector.run(graph)
