"""Makes one attempt at one prompt: carries facts to the follower and its steps to ComfyUI. Decides nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.events import EventStream, NoWebsocket
from comfy_serverless.connector.fact_queue import FactQueue
from comfy_serverless.connector.facts import (
    AskHistory,
    AskQueue,
    AskToStop,
    EngineSilent,
    EventSeen,
    Fact,
    Finished,
    FrameSeen,
    HistorySays,
    Outcome,
    ProcessBusy,
    ProcessExited,
    QueuePlace,
    QueueSays,
    Refused,
    State,
    SubmitAgain,
    SubmitLost,
    Submitted,
    Wait,
)
from comfy_serverless.connector.follower import PromptFollower
from comfy_serverless.connector.gpu_memory import PeakGauge
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.connector.refusals import refusal
from comfy_serverless.connector.unusable import is_final, submit_failure, why_not
from comfy_serverless.errors import EngineCrashed, EngineStalled, EngineUnavailable, InvalidWorkflow

logger = logging.getLogger(__name__)

#: Longest wait before the process is checked again, in seconds.
_LOOK_S = 0.2
#: A wait that takes this much longer than intended was a freeze, in seconds.
_FROZEN_S = 5.0
#: Share of one processor above which a silent engine counts as working. Answering our own questions takes less.
_BUSY_SHARE = 0.05
#: How often a silent engine's processor time is read, in seconds.
_BUSY_CHECK_S = 1.0
#: Longest time for reading the last frames of a dead engine or a stopped prompt, in seconds.
_LAST_FRAMES_S = 1.0

#: Raised by reading JSON that is not in ComfyUI's form: another server answers there.
_NOT_COMFYUI = (AttributeError, IndexError, KeyError, TypeError)

#: `A | B` would be made anew for each event.
_SEEN = (EventSeen, FrameSeen)

Watcher = Callable[[EventSeen | FrameSeen], None]


class PromptRunner:
    """Runs one prompt on one engine to its outcome, in the caller's thread.

    Args:
        facts: where other threads (events, cancel) put what they see.
        process: None for an engine that is not our child.
        watch: gets every event and frame, in order, before the follower does.
        submit_timeout_s: how long ComfyUI may take to check the workflow.
        gauge: looks at the GPUs while it runs; None where the engine uses none of this machine.
    """

    def __init__(
        self,
        *,
        client: ComfyClient,
        events: EventStream,
        process: ComfyProcess | None,
        follower: PromptFollower,
        facts: FactQueue,
        watch: Watcher,
        submit_timeout_s: float,
        gauge: PeakGauge | None = None,
    ) -> None:
        self._client = client
        self._events = events
        self._process = process
        #: The process of the engine that this attempt runs on.
        self.generation = process.starts if process else 0
        self._follower = follower
        self._facts = facts
        self._watch = watch
        self._submit_timeout_s = submit_timeout_s
        self._gauge = gauge
        self._busy_checked_at = time.monotonic()
        self._cpu_seconds = math.inf
        self._is_submit_lost = False

    def run(self, graph: Mapping[str, Any], *, extra_data: Mapping[str, Any] | None = None) -> Outcome:
        """Submit the graph and follow it to its end."""
        prompt_id = self._follower.prompt_id
        # Events can be faster than the answer to the submit: subscribe first.
        self._events.subscribe(prompt_id, self._facts.put)
        try:
            self._submit(graph, extra_data)
            while True:
                # Events can come faster than callbacks handle them: the clock must be checked all the same.
                self._take_facts_at_hand(for_s=_LOOK_S)
                self._look_at_process()
                if self._gauge is not None:
                    self._gauge.look()
                step = self._follower.next(time.monotonic())
                match step:
                    case Finished(outcome):
                        if self._may_run_on(outcome):
                            self._ask_to_stop(prompt_id)
                        return outcome
                    case Wait(seconds):
                        self._wait(seconds)
                    case SubmitAgain():
                        self._submit(graph, extra_data)
                    case AskHistory():
                        self._ask(lambda: self._history(prompt_id))
                    case AskQueue():
                        self._ask(lambda: place_in(self._client.queue(), prompt_id))
                    case AskToStop():
                        self._ask_to_stop(prompt_id)
        except BaseException:
            # A callback raised, or Ctrl-C was pressed: the result is no longer wanted.
            self._ask_to_stop(prompt_id)
            raise
        finally:
            self._events.unsubscribe(prompt_id)

    def _may_run_on(self, outcome: Outcome) -> bool:
        """Whether the engine may still run the prompt, now or later, for a result that is no longer wanted.

        Either the answer of its submit was lost, or it was given up on an engine that is not ours to replace.
        """
        return self._is_submit_lost or (
            self._process is None and isinstance(outcome.error, EngineStalled | EngineCrashed)
        )

    def _submit(self, graph: Mapping[str, Any], extra_data: Mapping[str, Any] | None) -> None:
        try:
            client_id = self._events.connect()
            answer = self._client.submit(
                graph,
                client_id=client_id,
                prompt_id=self._follower.prompt_id,
                extra_data=extra_data,
                timeout_s=self._submit_timeout_s,
            )
        except RequestFailed as failure:
            server = self._client.server
            failed = submit_failure(failure, server)
            if failed is not None:
                self._observe(Refused(failed))
            else:
                logger.info("submit got no answer: %s", failure)
                self._is_submit_lost = True
                self._observe(SubmitLost(why_not(failure, server)))
        except ValueError as error:
            # NaN or an infinity, which cannot be sent: sending it again would not help.
            self._observe(Refused(InvalidWorkflow(f"the workflow has a value that JSON cannot carry: {error}")))
        except NoWebsocket as error:
            logger.info("no websocket: %s", error)
            if error.status is not None and is_final(error.status):
                self._observe(Refused(EngineUnavailable(str(error))))
            else:
                self._observe(SubmitLost(str(error)))
        except OSError as error:
            logger.info("no websocket: %s", error)
            self._observe(SubmitLost(str(error)))
        else:
            refused = None if answer.accepted else refusal(answer.error, answer.node_errors)
            self._observe(Submitted(answer.node_errors, answer.number) if refused is None else Refused(refused))

    def _ask(self, question: Callable[[], Fact]) -> None:
        try:
            self._observe(question())
        except (RequestFailed, *_NOT_COMFYUI) as error:
            logger.debug("a question was not answered: %r", error)
            self._observe(EngineSilent(ours=self._process is not None))

    def _history(self, prompt_id: str) -> HistorySays:
        """Ask the history, and handle every fact that arrived before its answer."""
        entry = self._client.history(prompt_id)
        if entry is not None:
            # A prompt that is being stopped has no time left for a slow callback.
            is_stopping = self._follower.state is State.STOPPING
            self._take_facts_at_hand(for_s=_LAST_FRAMES_S if is_stopping else math.inf)
        return HistorySays(entry)

    def _ask_to_stop(self, prompt_id: str) -> None:
        try:
            if not self._client.cancel_job(prompt_id):
                self._client.delete_from_queue(prompt_id)
                self._client.interrupt(prompt_id)
        except RequestFailed as error:
            logger.info("ComfyUI could not be asked to stop: %s", error)
            self._observe(EngineSilent(ours=self._process is not None))

    def _wait(self, seconds: float) -> None:
        frozen_at = time.monotonic() + _LOOK_S + _FROZEN_S
        fact = self._facts.get(min(seconds, _LOOK_S))
        if fact is None:
            self._look_for_life()
        else:
            self._take(fact)
        if time.monotonic() > frozen_at:
            # The whole sandbox stood still, as between Lambda's invocations: the engine's silence means nothing.
            self._observe(ProcessBusy())

    def _take_facts_at_hand(self, *, for_s: float = math.inf) -> None:
        until = time.monotonic() + for_s
        while time.monotonic() < until and (fact := self._facts.get(0)) is not None:
            self._take(fact)

    def _take(self, fact: Fact) -> None:
        if isinstance(fact, _SEEN):
            self._watch(fact)
        self._observe(fact)

    def _observe(self, fact: Fact) -> None:
        self._follower.observe(fact, time.monotonic())

    def _look_for_life(self) -> None:
        now = time.monotonic()
        if self._process is None or now - self._busy_checked_at < _BUSY_CHECK_S:
            return
        # The first reading has nothing to be compared with. (Most prompts have ended before it.)
        cpu_seconds = self._process.cpu_seconds()
        if cpu_seconds - self._cpu_seconds > _BUSY_SHARE * (now - self._busy_checked_at):
            self._observe(ProcessBusy())
        elif self._events.heard_at > self._busy_checked_at:
            # It runs another caller's prompt, which may wait for the network: ours is still in the queue.
            self._observe(ProcessBusy())
        self._busy_checked_at, self._cpu_seconds = now, cpu_seconds

    def _look_at_process(self) -> None:
        process = self._process
        if process is None or (process.is_alive and process.starts == self.generation):
            return
        # Messages that it sent before it died may still be on their way.
        give_up_at = time.monotonic() + _LAST_FRAMES_S
        while self._events.connected and process.starts == self.generation and time.monotonic() < give_up_at:
            time.sleep(0.005)
        self._take_facts_at_hand()
        exit_code = process.exit_code
        if process.starts == self.generation:
            process.wait_output()
            self._observe(ProcessExited(exit_code, process.log_tail))
        else:
            # Another thread has replaced it already: exit code and log are now its successor's.
            self._observe(ProcessExited(None))


def place_in(queued: Mapping[str, Any], prompt_id: str) -> QueueSays:
    """What an answer of `GET /queue` says about a prompt."""
    running = [str(item[1]) for item in queued["queue_running"]]
    if prompt_id in running:
        return QueueSays(QueuePlace.RUNNING, ahead=prompt_id)
    if any(item[1] == prompt_id for item in queued["queue_pending"]):
        return QueueSays(QueuePlace.PENDING, ahead=next(iter(running), None))
    return QueueSays(QueuePlace.ABSENT)
