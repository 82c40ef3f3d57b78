"""The deadline passes, or the caller cancels, at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from comfy_serverless.connector import follower
from comfy_serverless.errors import Canceled
from tests.contract import asking
from tests.contract.faults.rows import row
from tests.contract.faults.world import World, in_background, lite_only, long_run, new_id, picture, wait_until
from tests.patience import slack


@row(
    "the deadline (0.3 s) passes during the start",
    code="deadline_exceeded",
    so="the start goes on for the next job",
    within_s=1.5,
)
@lite_only
def test_the_deadline_passes_during_the_start(world: World) -> None:
    world.connect("--start-delay-ms", "1500", wait=False)
    error = world.fails(picture(), deadline_s=0.3)
    assert "still starting" in error.message
    assert world.connector.run(picture()).outputs, "the start goes on for the next one"
    assert world.connector.starts == 1


@row(
    "the same while another thread waits for the start",
    code="deadline_exceeded",
    so="the other job succeeds",
    within_s=1.5,
)
@lite_only
def test_the_deadline_passes_while_another_thread_waits_for_the_start(world: World) -> None:
    world.connect("--start-delay-ms", "1500", wait=False)
    patient = in_background(lambda: world.connector.run(picture()))
    time.sleep(0.2)
    world.fails(picture(), deadline_s=0.3)
    assert patient.result().outputs


@row(
    "the deadline (0.5 s) passes in the queue",
    code="deadline_exceeded",
    so="removed from the queue; the running job is left alone",
    within_s=4,
)
def test_the_deadline_passes_in_the_queue(fragile: World) -> None:
    prompt_id = new_id()
    running = in_background(lambda: fragile.connector.run(long_run(), prompt_id=prompt_id))
    fragile.wait_running(prompt_id)
    error = fragile.fails(picture(), deadline_s=0.5)
    assert "queue" in error.message
    assert not running.done(), "the running job is left alone"
    fragile.connector.cancel(prompt_id)
    assert isinstance(running.exception(), Canceled)
    assert fragile.connector.starts == 1


@row("the deadline (0.7 s) passes during the execution", code="deadline_exceeded", so="interrupted", within_s=4)
def test_the_deadline_passes_during_the_execution(fragile: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # How long it may take to obey is measured on the wall: a real engine that nobody lets run takes that much longer.
    monkeypatch.setattr(follower, "DEADLINE_GRACE_S", follower.DEADLINE_GRACE_S * slack())
    error = fragile.fails(long_run(), deadline_s=0.7)
    assert "executing" in error.message
    assert fragile.connector.starts == 1, "it was interrupted, not killed"


@row(
    "the deadline (0.5 s) passes in a node that hangs",
    code="deadline_exceeded",
    so="killed and replaced 5 s later",
    within_s=8,
)
@lite_only
def test_the_deadline_passes_in_a_node_that_cannot_be_interrupted(fragile: World) -> None:
    fragile.arm("hang", at="node")
    fragile.fails(picture(), deadline_s=0.5)
    assert fragile.connector.starts == 2


@row("the deadline (1 s) passes while our callback is behind", code="deadline_exceeded", so="interrupted", within_s=4)
@lite_only
def test_the_deadline_passes_under_a_slow_callback(fragile: World) -> None:
    fragile.fails(long_run(seconds=20), on_progress=lambda _: time.sleep(0.05), deadline_s=1)
    assert fragile.connector.starts == 1


def cancel_when(world: World, condition: Callable[[str], None], graph: dict[str, Any], **options: Any) -> None:
    """Cancel a run once a condition holds, and check the time from then on against the row."""
    prompt_id = new_id()
    running = in_background(lambda: world.connector.run(graph, prompt_id=prompt_id, **options))
    condition(prompt_id)
    started = world.clock()
    assert world.connector.cancel(prompt_id)
    error = running.exception()
    world.check(error, world.clock() - started)
    assert not world.connector.cancel(prompt_id), "nothing runs under that id any more"


@row("it is canceled during the start", code="canceled", so="at once; the start goes on", within_s=1)
@lite_only
def test_it_is_canceled_during_the_start(world: World) -> None:
    world.connect("--start-delay-ms", "2500", wait=False)
    prompt_id = new_id()
    running = in_background(lambda: world.connector.run(picture(), prompt_id=prompt_id))
    assert wait_until(lambda: prompt_id in world.connector._runs)
    time.sleep(0.2)
    started = world.clock()
    assert world.connector.cancel(prompt_id)
    world.check(running.exception(), world.clock() - started)
    world.connector.wait_ready()
    assert world.connector.get_history(prompt_id) == {}
    assert world.connector.starts == 1, "the start goes on for the next one"


@row("the same while another thread waits for the start", code="canceled", so="the other job succeeds", within_s=1)
@lite_only
def test_it_is_canceled_while_another_thread_waits_for_the_start(world: World) -> None:
    world.connect("--start-delay-ms", "1500", wait=False)
    patient = in_background(lambda: world.connector.run(picture()))
    time.sleep(0.2)
    prompt_id = new_id()
    running = in_background(lambda: world.connector.run(picture(), prompt_id=prompt_id))
    assert wait_until(lambda: prompt_id in world.connector._runs)
    started = world.clock()
    assert world.connector.cancel(prompt_id)
    world.check(running.exception(), world.clock() - started)
    assert patient.result().outputs


@row("it is canceled in the queue", code="canceled", so="the running job is left alone", within_s=3)
def test_it_is_canceled_in_the_queue(fragile: World) -> None:
    first = new_id()
    running = in_background(lambda: fragile.connector.run(long_run(), prompt_id=first))
    fragile.wait_running(first)

    def is_queued(prompt_id: str) -> None:
        assert wait_until(lambda: asking.is_queued(fragile.connector, prompt_id, "queue_pending"))

    cancel_when(fragile, is_queued, picture())
    assert not running.done(), "the running job is left alone"
    fragile.connector.cancel(first)
    assert isinstance(running.exception(), Canceled)


@row("it is canceled during the execution", code="canceled", so="interrupted, confirmed", within_s=3)
def test_it_is_canceled_during_the_execution(fragile: World) -> None:
    cancel_when(fragile, fragile.wait_running, long_run())
    assert fragile.connector.starts == 1


@row("it is canceled while another job waits behind it", code="canceled", so="the other job succeeds", within_s=3)
def test_it_is_canceled_while_another_waits(fragile: World) -> None:
    first, second = new_id(), new_id()
    running = in_background(lambda: fragile.connector.run(long_run(), prompt_id=first))
    fragile.wait_running(first)
    waiting = in_background(lambda: fragile.connector.run(picture(), prompt_id=second))
    assert wait_until(lambda: bool(asking.queue(fragile.connector)["queue_pending"]))
    started = fragile.clock()
    assert fragile.connector.cancel(first)
    fragile.check(running.exception(), fragile.clock() - started)
    assert waiting.result().outputs, "the other one runs"


@row("it is canceled twice", code="canceled", so="once", within_s=3)
def test_it_is_canceled_twice(fragile: World) -> None:
    def cancel_first(prompt_id: str) -> None:
        fragile.wait_running(prompt_id)
        fragile.connector.cancel(prompt_id)

    prompt_id = new_id()
    running = in_background(lambda: fragile.connector.run(long_run(), prompt_id=prompt_id))
    cancel_first(prompt_id)
    started = fragile.clock()
    fragile.connector.cancel(prompt_id)
    fragile.check(running.exception(), fragile.clock() - started)


@row("it is canceled just at the end", so="`canceled`, or succeeds with everything", within_s=3)
def test_it_is_canceled_just_at_the_end(fragile: World) -> None:
    """Either the cancel comes first, and nothing is made, or the end does, and everything is."""
    for pause_s in (0.0, 0.005, 0.01, 0.02, 0.05):
        prompt_id = new_id()
        running = in_background(partial(fragile.connector.run, picture(), prompt_id=prompt_id))
        time.sleep(pause_s)
        started = fragile.clock()
        fragile.connector.cancel(prompt_id)
        error = running.exception()
        fragile.check(None, fragile.clock() - started)
        assert isinstance(error, Canceled) or (error is None and len(running.result().outputs) == 1)


@row("it is canceled after the end", so="nothing: the success stands", within_s=5)
def test_it_is_canceled_after_the_end(fragile: World) -> None:
    prompt_id = new_id()
    execution = fragile.succeeds(picture(), prompt_id=prompt_id)
    assert not fragile.connector.cancel(prompt_id)
    assert execution.outputs[0].read()


@row("it is canceled, and then runs out of memory", code="canceled", so="not run once more", within_s=5)
@lite_only
def test_it_is_canceled_before_it_would_be_repeated(fragile: World) -> None:
    prompt_id = new_id()
    fragile.arm("out_of_memory", at="node", node="SaveImage")
    fragile.fails(picture(), prompt_id=prompt_id, on_progress=lambda _: fragile.connector.cancel(prompt_id))


@row("it is canceled while our callback is behind", code="canceled", so="interrupted", within_s=4)
@lite_only
def test_it_is_canceled_behind_a_backlog_of_events(fragile: World) -> None:
    def has_run_on(prompt_id: str) -> None:
        fragile.wait_running(prompt_id)
        time.sleep(1.5)

    cancel_when(fragile, has_run_on, long_run(seconds=20), on_progress=lambda _: time.sleep(0.05))


@row(
    "it is canceled in a node that hangs (grace 2 s, else 30 s)",
    code="canceled",
    so="killed and replaced after the grace",
    within_s=6,
)
@lite_only
def test_it_is_canceled_in_a_node_that_hangs(fragile: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.connector.follower.CANCEL_GRACE_S", 2.0)
    fragile.arm("hang", at="node")
    cancel_when(fragile, fragile.wait_running, picture())
    assert fragile.connector.starts == 2
