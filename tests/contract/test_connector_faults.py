"""Faults injected into the embedded engine: one right outcome each, and the next workflow runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.errors import DeadlineExceeded, EngineCrashed, EngineStalled, EngineUnavailable, OutOfMemory

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


def long_run() -> dict[str, Any]:
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
                "steps": 10_000,
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
