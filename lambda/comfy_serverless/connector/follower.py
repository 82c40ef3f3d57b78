"""What has become of one prompt? A state machine without IO.

`PromptFollower` is fed facts (an event was seen, the socket was lost, the history says, the process exited) and the
time, and returns what to do next (wait, ask the history, ask it to stop, finished). It owns no socket and no clock,
so every race of the wire contract is a few lines of test.

    SUBMITTING ──accepted──► QUEUED ──execution_start──► EXECUTING ──► ENDED
        │                      │                            │
        └──────────────────────┴── deadline, cancel ──► STOPPING ──► ENDED

What is believed: events are the speed, the history is the truth. If every event of a prompt was heard, from
`execution_start` through `execution_success` to `executing {node: null}`, its history has nothing to add (unless
cached nodes may have something to show: see `silent_classes`). For any other
prompt that ends with `executing {node: null}` the history is asked, which is written by then. If events may have been
missed (a lost socket, a long silence), the queue is asked first and the history after it: a prompt moves from the
queue to the history in one step and never back, so absence from both, asked in this order, means that it is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from comfy_serverless.connector.facts import (
    AskHistory,
    AskQueue,
    AskToStop,
    CancelAsked,
    EngineSilent,
    EventMissed,
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
    SocketLost,
    State,
    Step,
    SubmitAgain,
    SubmitLost,
    Submitted,
    Wait,
)
from comfy_serverless.connector.history import HistoryEntry, read_entry
from comfy_serverless.connector.node_times import NodeTimes
from comfy_serverless.connector.outputs import identify_node
from comfy_serverless.connector.pace import Pace
from comfy_serverless.connector.refusals import describe_exit, execution_failure, node_error_lines
from comfy_serverless.connector.silence import stalled, where_it_stands
from comfy_serverless.connector.story import Story
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
)

#: Silence without processor time after which the queue is asked too: the prompt may have been removed, in seconds.
DOUBT_S = 5.0
#: Pause before a prompt is asked again to stop, because a request can be lost, in seconds.
STOP_AGAIN_S = 0.5
#: How long a prompt may take to stop before its engine counts as broken, in seconds. A long step cannot be
#: interrupted: a canceled job can wait for its end, a job past its deadline cannot.
CANCEL_GRACE_S, DEADLINE_GRACE_S = 30.0, 5.0
#: How long an engine that is not our child may be unreachable before the prompt counts as lost, in seconds.
UNREACHABLE_S = 30.0
#: A prompt that is this many times found neither in the queue nor in the history is gone.
_GONE_READS = 2


class PromptFollower:
    """Follows one submitted prompt to its one outcome.

    Args:
        prompt_id: the prompt.
        graph: as submitted.
        now: monotonic time, in seconds, as in every other method.
        deadline: when to ask it to stop; None for never.
        execution_s: how long it may execute; None for as long as the deadline allows.
        stall_s: how long the engine may show no sign of life.
        frame_nodes: ids of the nodes whose frames are results.
        is_elsewhere: whether the engine is not ours to restart.
        silent: returns the nodes that have nothing to show if they are cached: see `silent_classes`.
        given: the graph whose nodes errors name: without nodes of ours. As submitted by default.
    """

    def __init__(
        self,
        prompt_id: str,
        graph: Mapping[str, Any],
        *,
        now: float,
        deadline: float | None = None,
        execution_s: float | None = None,
        stall_s: float = 600.0,
        frame_nodes: Collection[str] = (),
        is_elsewhere: bool = False,
        silent: Callable[[], Collection[str]] = frozenset,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self.prompt_id = prompt_id
        self.state = State.SUBMITTING
        self._given = graph if given is None else given
        self._deadline = deadline
        self._execution_s = execution_s
        self._stall_s = stall_s
        self._frame_nodes = frozenset(frame_nodes)
        self._is_elsewhere = is_elsewhere
        self._started_at = now
        self._executing_since: float | None = None
        self._last_life = now
        self._first_silence: float | None = None
        self._outcome: Outcome | None = None
        self._story = Story(silent)
        self._node_times = NodeTimes(graph)
        self._clock_s = 0.0  # from the time of facts to that of events
        self._warnings: list[str] = []
        self._accepted = False
        self._submit_lost = False
        self._lost_because = ""
        self._number: float | None = None
        self._submits_left = 3
        self._ahead: str | None = None
        self._events_missed = False
        self._questions: list[Step] = []
        self._pace = Pace(now)
        self._gone_reads = 0
        self._queue_said_absent = False
        self._stop_error: ComfyError | None = None
        self._stop_at = 0.0
        self._stop_until = 0.0

    # Facts in.

    def observe(self, fact: Fact, now: float) -> None:
        """Take in one fact. After the end, facts change nothing."""
        if self._outcome is not None:
            return
        match fact:
            case EventSeen():
                self._see_event(fact, now)
            case FrameSeen():
                self._see_frame(fact, now)
            case Submitted() | Refused() | SubmitLost():
                self._see_submit(fact, now)
            case SocketLost() | EventMissed():
                self._distrust_events(now)
            case HistorySays():
                self._see_history(fact.entry, now)
            case QueueSays():
                self._see_queue(fact, now)
            case EngineSilent():
                self._see_silence(now, ours=fact.ours)
            case ProcessExited():
                self._see_exit(fact, now)
            case ProcessBusy():
                self._last_life = now
            case CancelAsked():
                self._stop(Canceled("the job was canceled on request"), now, grace_s=CANCEL_GRACE_S)

    def _see_submit(self, answer: Submitted | Refused | SubmitLost, now: float) -> None:
        match answer:
            case Submitted():
                self._alive(now)
                self._accepted = True
                self._warnings.extend(node_error_lines(answer.node_errors))
                self._number = answer.number
                self._advance(State.QUEUED)
            case Refused():
                self._finish(answer.error, now)
            case SubmitLost():
                self._submit_lost = True
                self._lost_because = answer.reason
                self._distrust_events(now)

    def _see_frame(self, frame: FrameSeen, now: float) -> None:
        self._alive(now)
        if frame.is_result(self._frame_nodes):
            self._story.frames.append(frame)

    def _see_event(self, event: EventSeen, now: float) -> None:
        self._alive(now)
        self._story.see(event.kind, event.data)
        self._node_times.see(event.kind, event.data, event.at_s)
        self._clock_s = event.at_s - now
        if event.kind == "execution_start":
            self._begin_executing(now)
        elif event.kind == "executing" and event.data.get("node", "") is None:
            self._see_last_word(now)

    def _begin_executing(self, now: float) -> None:
        self._advance(State.EXECUTING)
        if self._executing_since is None:
            self._executing_since = now
            if self._execution_s is not None:
                self._deadline = min(now + self._execution_s, self._deadline or math.inf)

    def _see_last_word(self, now: float) -> None:
        """Handle `executing {node: null}`: it ends every prompt, whose history is written by now."""
        is_undisturbed = self._accepted and not self._pace.is_polling and self._stop_error is None
        if is_undisturbed and self._story.is_whole:
            self._finish(None, now, executing_ms=self._story.executing_ms)
        else:
            self._questions = [AskHistory()]

    def _see_history(self, entry: Mapping[str, Any] | None, now: float) -> None:
        self._heard()
        read = None if entry is None else read_entry(entry)
        # An earlier prompt may have had the same id: its entry stands until ours is written.
        if read is not None and (read.number is None or self._number in (None, read.number)):
            self._judge(read, now)
            return
        if not self._queue_said_absent:
            return
        # Absent from the queue and then from the history.
        self._queue_said_absent = False
        self._gone_reads += 1
        if self._gone_reads >= _GONE_READS or self._stop_error is not None:
            self._see_gone(now)
        else:
            self._pace.ask_soon(now)

    def _see_queue(self, queue: QueueSays, now: float) -> None:
        self._heard()
        place = queue.place
        self._queue_said_absent = place is QueuePlace.ABSENT
        if place is QueuePlace.ABSENT:
            self._questions.insert(0, AskHistory())
            return
        self._gone_reads = 0
        self._submit_lost = False
        if place is QueuePlace.RUNNING:
            self._begin_executing(now)
        else:
            self._advance(State.QUEUED)
            if queue.ahead != self._ahead:
                # It waits behind other prompts, and they make progress.
                self._last_life = now
            self._ahead = queue.ahead

    def _see_gone(self, now: float) -> None:
        if self._stop_error is not None:
            self._finish(self._stop_error, now)
        elif self._submit_lost and self._submits_left > 0:
            self._submit_lost = False
            self._submits_left -= 1
            self._gone_reads = 0
            self._questions = [SubmitAgain()]
        elif self._submit_lost:
            why = f": {self._lost_because}" if self._lost_because else ""
            error = EngineUnavailable(f"ComfyUI answers, but accepts no workflow{why}")
            self._finish(error, now, engine_is_broken=True)
        elif self._story.succeeded and not self._events_missed:
            self._finish(None, now)
        elif self._executing_since is not None or self._story.succeeded:
            self._finish(EngineCrashed("ComfyUI has lost a prompt that it had begun: it was restarted"), now)
        else:
            self._finish(Canceled("the prompt was removed from ComfyUI's queue by another client"), now)

    def _see_silence(self, now: float, *, ours: bool) -> None:
        self._first_silence = self._first_silence if self._first_silence is not None else now
        # An unanswered question loses no event; a lost socket is a fact of its own.
        self._pace.poll(now)
        if not ours and now - self._first_silence >= UNREACHABLE_S:
            if self._accepted or self._executing_since is not None or not self._submit_lost:
                self._finish(EngineCrashed("ComfyUI can no longer be reached"), now)
            else:
                self._finish(EngineUnavailable(f"ComfyUI has not taken the workflow: {self._lost_because}"), now)

    def _see_exit(self, fact: ProcessExited, now: float) -> None:
        if self._story.succeeded and not self._events_missed:
            # It died after the last node: every output is known and on disk.
            self._finish(None, now, engine_is_broken=True)
            return
        error = self._stop_error or EngineCrashed(
            f"ComfyUI died in the middle of the job ({describe_exit(fact.exit_code)})",
            details={"exit_code": fact.exit_code, "log_tail": fact.log_tail},
        )
        self._finish(error, now, engine_is_broken=True)

    # Steps out.

    def next(self, now: float) -> Step:
        """What to do now."""
        if self._outcome is None:
            self._watch_clock(now)
        if self._outcome is not None:
            return Finished(self._outcome)
        if self._stop_error is not None and now >= self._stop_at:
            self._stop_at = now + STOP_AGAIN_S
            self._pace.ask_now(now)
            return AskToStop()
        if not self._questions and self._pace.is_due(now):
            # The queue before the history: see the module's docstring. The history alone is cheaper.
            certain = not self._pace.is_polling and self._stop_error is None and now - self._last_life < DOUBT_S
            self._questions = [AskHistory() if certain else AskQueue()]
            self._pace.asked(now, is_stopping=self._stop_error is not None)
        if self._questions:
            return self._questions.pop(0)
        return Wait(max(0.0, self._next_time() - now))

    def _watch_clock(self, now: float) -> None:
        if self._stop_error is not None:
            if now >= self._stop_until:
                # Neither the queue nor an interrupt could stop it: the next job needs a new process.
                self._finish(self._stop_error, now, engine_is_broken=True)
        elif self._deadline is not None and now >= self._deadline:
            where = where_it_stands(
                silent_s=now - self._last_life,
                is_executing=self._executing_since is not None,
                is_lost=self._submit_lost and not self._accepted,
                lost_because=self._lost_because,
                is_elsewhere=self._is_elsewhere,
            )
            self._stop(DeadlineExceeded(f"the job's deadline passed {where}"), now, grace_s=DEADLINE_GRACE_S)
        elif now - self._last_life >= self._stall_s:
            self._finish(stalled(self._stall_s, is_elsewhere=self._is_elsewhere), now, engine_is_broken=True)

    def _next_time(self) -> float:
        times = [self._pace.ask_at, self._last_life + self._stall_s]
        if self._stop_error is not None:
            times += [self._stop_at, self._stop_until]
        elif self._deadline is not None:
            times.append(self._deadline)
        return min(times)

    # The parts of a verdict.

    def _alive(self, now: float) -> None:
        self._heard()
        self._last_life = now
        self._gone_reads = 0
        self._submit_lost = False
        if self._stop_error is None:
            self._pace.heard(now)

    def _heard(self) -> None:
        self._first_silence = None

    def _distrust_events(self, now: float) -> None:
        """Poll from now on. Outputs shown before `execution_success` are complete, whatever is lost after it."""
        self._events_missed = self._events_missed or not self._story.succeeded
        self._pace.poll(now)

    def _advance(self, state: State) -> None:
        order = [State.SUBMITTING, State.QUEUED, State.EXECUTING, State.STOPPING, State.ENDED]
        if order.index(state) > order.index(self.state):
            self.state = state

    def _stop(self, error: ComfyError, now: float, *, grace_s: float) -> None:
        if self._stop_error is None:
            self._stop_error = error
            self._stop_at = now
            self._stop_until = now + grace_s
            if self._deadline is not None:  # holds for a cancel too: the caller may be cut off soon after it
                self._stop_until = min(self._stop_until, max(now, self._deadline) + DEADLINE_GRACE_S)
            self._advance(State.STOPPING)

    def _judge(self, entry: HistoryEntry, now: float) -> None:
        self._story.amend(entry)
        error: ComfyError | None = None
        if entry.last_word == "execution_error":
            error = self._failure(entry.last_data)
        elif entry.last_word == "execution_interrupted":
            error = self._stop_error or Canceled("the prompt was interrupted by another client")
        # EngineCrashed here means that the GPU's context is lost: the process lives, but can no longer compute.
        self._finish(error, now, engine_is_broken=isinstance(error, EngineCrashed), executing_ms=entry.executing_ms)

    def _failure(self, data: Mapping[str, Any]) -> ComfyError:
        node_id = str(data.get("node_id") or "?")
        node = identify_node(self._given, node_id, self._story.display_nodes.get(node_id))
        return execution_failure(data, node_id=node.node_id, class_type=node.class_type)

    def _finish(
        self,
        error: ComfyError | None,
        now: float,
        *,
        engine_is_broken: bool = False,
        executing_ms: int | None = None,
    ) -> None:
        self._advance(State.ENDED)
        total_ms = round((now - self._started_at) * 1000)
        if executing_ms is None:
            executing_ms = 0 if self._executing_since is None else round((now - self._executing_since) * 1000)
        if isinstance(error, EngineError) or not self._pace.is_polling:  # else it may have ended at any time
            self._node_times.end_all(now + self._clock_s)
        story = self._story
        blocked = [] if error is not None else story.blocked
        self._outcome = Outcome(
            error=error,
            shown=dict(story.shown),
            display_nodes=dict(story.display_nodes),
            frames=tuple(story.frames),
            cached_nodes=story.cached_nodes,
            warnings=(*self._warnings, *blocked),
            timings=self._node_times.timings(executing_ms=executing_ms, total_ms=total_ms),
            # A success known only from the history has missed events too: a socket can be open, but silent.
            events_missed=self._events_missed or not story.succeeded,
            engine_is_broken=engine_is_broken,
            number=self._number,
        )
