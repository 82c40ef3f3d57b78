"""The websocket fails, or messages come late, twice, or too early."""

from __future__ import annotations

import threading
import time

import pytest
import requests
import websocket

from comfy_serverless import ComfyConnector, Output, Settings
from comfy_serverless.connector.recovery import FRAMES_ARE_MISSING
from tests.contract.faults.rows import row
from tests.contract.faults.world import World, in_background, lite_only, long_run, new_id, picture
from tests.patience import PATIENCE_S

FRAMES = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}


@row(
    "the websocket drops at the submit, at the start, in a node, just at the end",
    so="succeeds, in the one attempt: the history is asked",
    within_s=5,
)
@lite_only
@pytest.mark.parametrize("at", ["prompt", "start", "node", "end"])
def test_the_socket_drops(fragile: World, at: str) -> None:
    fragile.arm("drop_sockets", at=at)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("it drops before the submit", so="succeeds", within_s=5)
@lite_only
def test_the_socket_drops_before_the_submit(fragile: World) -> None:
    fragile.connector.run(picture())
    fragile.arm("drop_sockets")
    time.sleep(0.2)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("the execution finishes while it is away", so="succeeds", within_s=6)
@lite_only
def test_the_execution_finishes_while_the_socket_is_away(fragile: World) -> None:
    graph = long_run(seconds=0.5)
    fragile.arm("drop_sockets", at="node", node="KSampler")
    execution = fragile.succeeds(graph)
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("it drops every 0.2 s", so="succeeds, in the one attempt", within_s=10)
@lite_only
def test_the_socket_drops_again_and_again(world: World) -> None:
    # Without events only processor time shows that the engine lives, and this one hardly uses any.
    world.connect(stall_s=20)
    world.arm("drop_sockets", every_s=0.2)
    execution = world.succeeds(long_run(seconds=1.5))
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("our own end closes in the middle", so="succeeds", within_s=10)
def test_our_own_end_of_the_socket_closes(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.succeeds(long_run(seconds=1), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    fragile.connector._engine.events.drop()
    execution = running.result()
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("it drops while pictures come through it (SaveImageWebsocket)", so="succeeds: run once more", within_s=6)
@lite_only
def test_the_socket_drops_under_frames(fragile: World) -> None:
    fragile.arm("drop_sockets", at="node", node="SaveImageWebsocket")
    execution = fragile.succeeds(picture(batch=3) | {"2": FRAMES})
    assert (execution.attempts, len(execution.outputs)) == (2, 3)


@row("the same, in both attempts", so="succeeds, with a warning that some may be missing", within_s=6)
@lite_only
def test_the_socket_drops_under_frames_twice(fragile: World) -> None:
    fragile.arm("drop_sockets", at="node", node="SaveImageWebsocket", times=2)
    assert FRAMES_ARE_MISSING in fragile.succeeds(picture(batch=3) | {"2": FRAMES}).warnings


@row("every message is 0.5 s late", so="succeeds", within_s=6)
@lite_only
def test_messages_are_late(fragile: World) -> None:
    fragile.arm("late_messages", at="prompt", seconds=0.5)
    execution = fragile.succeeds(picture(batch=3) | {"3": FRAMES})
    assert (execution.attempts, len(execution.outputs)) == (1, 6)


@row("every message is 2.5 s late", so="succeeds: the history knows first", within_s=6)
@lite_only
def test_messages_are_later_than_our_patience(fragile: World) -> None:
    fragile.arm("late_messages", at="prompt", seconds=2.5)
    execution = fragile.succeeds(picture(batch=3))
    assert (execution.attempts, len(execution.outputs)) == (1, 3)


@row("every message comes twice", so="succeeds, each output is reported once", within_s=5)
@lite_only
def test_messages_come_twice(fragile: World) -> None:
    reported: list[Output] = []
    fragile.arm("double_messages", at="prompt")
    execution = fragile.succeeds(picture(batch=3), on_output=reported.append)
    assert (execution.attempts, len(execution.outputs), len(reported)) == (1, 3, 3)


@row("the run is over before `POST /prompt` has answered", so="succeeds", within_s=5)
@lite_only
def test_the_run_is_over_before_the_submit_is_answered(fragile: World) -> None:
    fragile.arm("late_answer", at="prompt", seconds=1)
    execution = fragile.succeeds(picture())
    assert (execution.attempts, len(execution.outputs)) == (1, 1)


@row("our own callback is slow", so="succeeds; other clients of the engine hear theirs at once", within_s=20)
def test_our_callback_is_slow(fragile: World) -> None:
    """Our handling of events delays no other client, which receives its own, and ours, at once."""
    address = (fragile.connector.server_address or "").replace("http", "ws", 1)
    other = websocket.create_connection(f"{address}/ws?clientId=other", timeout=PATIENCE_S, suppress_origin=True)
    running = in_background(lambda: fragile.succeeds(long_run(seconds=0.5), on_progress=lambda _: time.sleep(0.03)))
    body = {"prompt": picture(), "client_id": "other"}
    requests.post(f"{fragile.connector.server_address}/prompt", json=body, timeout=PATIENCE_S).raise_for_status()
    started = fragile.clock()
    try:
        while "execution_success" not in str(other.recv()):
            pass
    finally:
        other.close()
    assert fragile.clock() - started < 3
    assert len(running.result().outputs) == 1


@row("our own callback raises", so="it is passed on; the prompt is interrupted", within_s=5)
@lite_only
def test_our_callback_raises(fragile: World) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("the caller's own mistake")

    started = fragile.clock()
    with pytest.raises(RuntimeError, match="own mistake"):
        fragile.connector.run(long_run(), on_progress=fail)
    fragile.check(None, fragile.clock() - started)


@row("everything is cached, and no message comes", so="succeeds, the outputs are reported", within_s=5)
@lite_only
def test_cached_outputs_are_told_of_an_engine_that_shows_nothing(fragile: World) -> None:
    graph = picture()
    fragile.connector.run(graph)
    reported = threading.Event()
    fragile.arm("mute", at="start")
    execution = fragile.succeeds(graph, on_output=lambda _: reported.set())
    assert reported.is_set()
    assert execution.outputs[0].cached


@row("everything is cached, on an engine elsewhere (COMFYUI_URL)", so="succeeds, the outputs are reported", within_s=5)
@lite_only
def test_cached_outputs_of_an_engine_elsewhere_are_told_too(fragile: World) -> None:
    graph = picture()
    fragile.connector.run(graph)

    class Elsewhere(ComfyConnector):
        _instance = None

    elsewhere = Elsewhere(settings=Settings(comfyui_url=fragile.connector.server_address))
    reported: list[Output] = []
    started = fragile.clock()
    try:
        execution = elsewhere.run(graph, on_output=reported.append)
    finally:
        elsewhere.kill_api()
    fragile.check(execution, fragile.clock() - started)
    assert reported == list(execution.outputs)
    assert ComfyConnector() is fragile.connector
