"""The engine lives, but does nothing."""

from __future__ import annotations

import signal
import time

import pytest

from comfy_serverless.errors import EngineStalled
from tests.contract.faults.rows import row
from tests.contract.faults.world import World, in_background, lite_only, long_run, new_id, picture, real_only
from tests.patience import wait_until


@row(
    "the whole process group is stopped (SIGSTOP) in a node",
    code="engine_stalled",
    so="killed and replaced",
    within_s=15,
)
def test_the_whole_engine_stands_still(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.fails(long_run(), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    fragile.signal(signal.SIGSTOP)
    assert isinstance(running.result(), EngineStalled)
    assert fragile.connector.starts == 2, "it is replaced at once"


@row("it is stopped for 1 s, and goes on", so="succeeds, in the one attempt", within_s=10)
def test_the_whole_engine_stands_still_for_a_while(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.succeeds(long_run(seconds=1), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    fragile.signal(signal.SIGSTOP)
    time.sleep(1)
    fragile.signal(signal.SIGCONT)
    execution = running.result()
    assert (execution.attempts, len(execution.outputs), fragile.connector.starts) == (1, 1, 1)


@row(
    "it is stopped before a job with a deadline of 1 s", code="deadline_exceeded", so="killed and replaced", within_s=12
)
def test_the_whole_engine_stands_still_before_the_submit(fragile: World) -> None:
    fragile.connector.run(picture())
    fragile.signal(signal.SIGSTOP)
    fragile.fails(picture(), deadline_s=1)
    assert fragile.connector.starts == 2


@row("a node never returns, and computes nothing", code="engine_stalled", so="killed and replaced", within_s=6)
@lite_only
def test_a_node_never_returns(fragile: World) -> None:
    fragile.arm("hang", at="node")
    fragile.fails(picture())
    assert fragile.connector.starts == 2


@row("the same on a real ComfyUI", code="engine_stalled", so="killed and replaced", within_s=15)
@real_only
def test_a_node_sleeps_for_ever(fragile: World) -> None:
    graph = long_run()
    graph["13"]["inputs"]["mode"] = "silent"
    fragile.fails(graph)
    assert fragile.connector.starts == 2


@row(
    "the thread that executes prompts dies, HTTP still answers",
    code="engine_stalled",
    so="killed and replaced",
    within_s=6,
)
@lite_only
@pytest.mark.parametrize("at", ["start", "node", "end"])
def test_the_worker_thread_dies(fragile: World, at: str) -> None:
    fragile.arm("end_worker", at=at)
    fragile.fails(picture())
    assert fragile.connector.starts == 2


@row(
    "the same on a real ComfyUI (a node raises SystemExit)",
    code="engine_stalled",
    so="killed and replaced",
    within_s=15,
)
@real_only
def test_the_worker_thread_dies_of_a_node(fragile: World) -> None:
    graph = long_run()
    graph["13"] = {"class_type": "ContractRaise", "inputs": {"kind": "SystemExit", "message": ""}}
    fragile.fails(graph)
    assert fragile.connector.starts == 2


@row("the websocket stays open and falls silent", so="succeeds: the history is asked", within_s=5)
@lite_only
@pytest.mark.parametrize("at", ["start", "node", "end"])
def test_the_socket_is_open_and_silent(fragile: World, at: str) -> None:
    fragile.arm("mute", at=at)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row(
    "the server accepts the submit and never answers (deadline 1 s)",
    code="deadline_exceeded",
    so="killed and replaced",
    within_s=12,
)
@lite_only
def test_the_server_never_answers_the_submit(fragile: World) -> None:
    fragile.arm("hang", at="prompt")
    fragile.fails(picture(), deadline_s=1)
    assert fragile.connector.starts == 2


@row(
    "the server stops answering (deadline 1 s)",
    code="deadline_exceeded",
    so="killed and replaced",
    within_s=12,
)
@lite_only
def test_the_server_answers_nothing(fragile: World) -> None:
    fragile.connector.run(picture())
    fragile.arm("hang")
    assert wait_until(fragile.is_silent)
    fragile.fails(picture(), deadline_s=1)
    assert fragile.connector.starts == 2


@row("every answer takes 0.3 s longer", so="succeeds", within_s=6)
@lite_only
def test_every_answer_is_slow(fragile: World) -> None:
    fragile.arm("slow_answers", seconds=0.3)
    assert wait_until(lambda: fragile.is_silent(for_s=0.25))
    assert len(fragile.succeeds(picture()).outputs) == 1
