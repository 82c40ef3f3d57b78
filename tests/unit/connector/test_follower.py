"""The state machine that follows a prompt: every race of the wire contract, without sockets and without waiting."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from comfy_serverless.connector.follower import (
    CANCEL_GRACE_S,
    DEADLINE_GRACE_S,
    DOUBT_S,
    UNREACHABLE_S,
    PromptFollower,
)
from comfy_serverless.connector.pace import QUIET_S
from comfy_serverless.errors import InvalidWorkflow

PROMPT = "11111111-1111-4111-8111-111111111111"
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
SHOWN = {"images": [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}]}


def event(kind: str, **data: Any) -> EventSeen:
    return EventSeen(kind, {"prompt_id": PROMPT, **data})


START = event("execution_start", timestamp=1000)
EXECUTED = event("executed", node="2", display_node="2", output=SHOWN)
SUCCESS = event("execution_success", timestamp=1500)
LAST_WORD = event("executing", node=None)


def history(*messages: tuple[str, dict[str, Any]], completed: bool = True, outputs: Any = None) -> HistorySays:
    return HistorySays(
        {
            "prompt": [],
            "outputs": {"2": SHOWN} if outputs is None else outputs,
            "status": {
                "status_str": "success" if completed else "error",
                "completed": completed,
                "messages": [["execution_start", {"timestamp": 1000}], *([kind, data] for kind, data in messages)],
            },
            "meta": {},
        }
    )


DONE = history(("execution_success", {"timestamp": 1500}))
FAILED = history(
    (
        "execution_error",
        {
            "node_id": "2",
            "node_type": "SaveImage",
            "exception_type": "ValueError",
            "exception_message": "boom\n",
            "traceback": ["line 1\n"],
        },
    ),
    completed=False,
    outputs={},
)
INTERRUPTED = history(("execution_interrupted", {"node_id": "1"}), completed=False, outputs={})


class World:
    """A follower and a clock."""

    def __init__(self, **arguments: Any) -> None:
        self.now = 100.0
        self.follower = PromptFollower(PROMPT, GRAPH, now=self.now, **arguments)

    def see(self, *facts: Fact) -> World:
        for fact in facts:
            self.follower.observe(fact, self.now)
        return self

    def step(self) -> Step:
        return self.follower.next(self.now)

    def wait(self, seconds: float) -> World:
        self.now += seconds
        return self

    @property
    def outcome(self) -> Outcome:
        step = self.step()
        assert isinstance(step, Finished), step
        return step.outcome


def submitted(**arguments: Any) -> World:
    return World(**arguments).see(Submitted())


def test_a_run_whose_whole_story_was_heard_ends_without_a_question() -> None:
    world = submitted().see(START, EXECUTED, SUCCESS)
    assert isinstance(world.step(), Wait), "the next prompt has not begun, and more may be told"
    outcome = world.see(LAST_WORD).outcome
    assert outcome.error is None
    assert outcome.shown == {"2": SHOWN}
    assert outcome.timings.executing_ms == 500


def test_cached_nodes_that_were_looked_at_again_have_told_everything() -> None:
    cached = event("execution_cached", nodes=["2"], timestamp=1100)
    assert submitted().see(START, cached, EXECUTED, SUCCESS, LAST_WORD).outcome.cached_nodes == ("2",)


def test_cached_nodes_that_have_nothing_to_show_need_no_question() -> None:
    cached = event("execution_cached", nodes=["1"], timestamp=1100)
    world = submitted(silent=lambda: {"1"}).see(START, cached, EXECUTED, SUCCESS, LAST_WORD)
    assert world.outcome.cached_nodes == ("1",)


def test_one_cached_node_that_may_have_something_to_show_is_asked_about() -> None:
    cached = event("execution_cached", nodes=["1", "7"], timestamp=1100)
    world = submitted(silent=lambda: {"1"}).see(START, cached, EXECUTED, SUCCESS, LAST_WORD)
    assert world.step() == AskHistory()


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ([Submitted(), START, EXECUTED, SUCCESS, EventMissed(), LAST_WORD], "a message could not be read"),
        ([Submitted(), START, SocketLost(), EXECUTED, SUCCESS, LAST_WORD], "the socket was away"),
        ([Submitted(), START, EXECUTED, SUCCESS, SocketLost(), LAST_WORD], "the socket was away"),
        ([Submitted(), EXECUTED, SUCCESS, LAST_WORD], "the beginning was not heard"),
        ([Submitted(), START, EXECUTED, LAST_WORD], "no success was heard"),
        ([Submitted(), START, EXECUTED, event("execution_error"), SUCCESS, LAST_WORD], "something went wrong"),
        ([Submitted(), START, EXECUTED, event("execution_interrupted"), SUCCESS, LAST_WORD], "it was interrupted"),
        (
            [Submitted(), START, event("execution_cached", nodes=["1"]), EXECUTED, SUCCESS, LAST_WORD],
            "a cached node was passed over, and may have shown something once",
        ),
        ([START, EXECUTED, SUCCESS, LAST_WORD], "the submit has not been answered, and may name outputs it drops"),
        ([SubmitLost(), START, EXECUTED, SUCCESS, LAST_WORD], "the submit was not answered"),
        ([Submitted(), CancelAsked(), START, EXECUTED, SUCCESS, LAST_WORD], "it is being stopped"),
    ],
)
def test_a_story_with_a_gap_or_a_blemish_is_compared_with_the_history(facts: list[Fact], why: str) -> None:
    world = World().see(*facts)
    step = world.step()
    while isinstance(step, Wait | AskToStop | AskQueue):
        if isinstance(step, Wait):
            world.wait(step.seconds)
        elif isinstance(step, AskQueue):
            world.see(QueueSays(QueuePlace.ABSENT))
        step = world.step()
    assert isinstance(step, AskHistory), why
    also = {"images": [{"filename": "only_the_history_knows.png", "subfolder": "", "type": "output"}]}
    outcome = world.see(history(("execution_success", {"timestamp": 1500}), outputs={"1": also, "2": SHOWN})).outcome
    assert outcome.error is None
    assert outcome.shown == {"1": also, "2": SHOWN}


def test_an_empty_history_after_the_last_word_is_asked_again() -> None:
    world = submitted().see(EXECUTED, SUCCESS, LAST_WORD)
    assert isinstance(world.step(), AskHistory)
    world.see(HistorySays(None))
    assert isinstance(world.step(), Wait)
    assert isinstance(world.wait(QUIET_S).step(), AskHistory)
    assert world.see(DONE).outcome.error is None


def test_a_refusal_is_the_end() -> None:
    outcome = World().see(Refused(InvalidWorkflow("no"))).outcome
    assert isinstance(outcome.error, InvalidWorkflow)


def test_outputs_that_comfyui_dropped_are_warned_of() -> None:
    node_errors = {
        "9": {"class_type": "SaveImage", "errors": [{"message": "Required input is missing", "details": "images"}]}
    }
    world = World().see(Submitted(node_errors), START, EXECUTED, LAST_WORD)
    world.step()
    assert world.see(DONE).outcome.warnings == ("Node 9 (SaveImage): Required input is missing: images",)


def test_a_node_that_raised_is_named() -> None:
    world = submitted().see(START, event("execution_error", node_id="2"), LAST_WORD)
    world.step()
    error = world.see(FAILED).outcome.error
    assert error is not None
    assert error.code == "node_execution_error"
    assert error.message == "Node 2 (SaveImage) raised ValueError: boom"
    assert error.details["traceback"] == "line 1\n"


def test_the_status_string_is_not_believed_when_the_messages_say_otherwise() -> None:
    error_data = {"node_id": "1", "node_type": "EmptyImage", "exception_type": "X", "exception_message": "cycle"}
    lying = history(("execution_error", error_data), completed=True)
    outcome = submitted().see(START, LAST_WORD, lying).outcome
    assert outcome.error is not None
    assert outcome.error.code == "node_execution_error"
    assert outcome.shown == {"2": SHOWN}, "what was made before the failure is kept"


def test_a_blocked_node_is_a_warning_because_the_run_goes_on() -> None:
    blocked = event("execution_error", node_id="2", exception_type="ExecutionBlocked", exception_message="no face")
    outcome = submitted().see(START, blocked, SUCCESS, LAST_WORD, DONE).outcome
    assert outcome.error is None
    assert outcome.warnings == ("Node 2: no face",)


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried…", "Allocation on device"])
def test_running_out_of_memory_is_told_from_other_failures(message: str) -> None:
    data = {"node_id": "1", "node_type": "K", "exception_type": "torch.OutOfMemoryError", "exception_message": message}
    outcome = submitted().see(START, history(("execution_error", data), completed=False)).outcome
    assert outcome.error is not None
    assert outcome.error.code == "out_of_memory"


def test_a_lost_socket_is_made_good_by_asking() -> None:
    world = submitted().see(START, SocketLost()).wait(0.1)
    assert isinstance(world.step(), AskQueue)
    world.see(QueueSays(QueuePlace.RUNNING))
    assert isinstance(world.step(), Wait)
    world.wait(0.1)
    assert isinstance(world.step(), AskQueue)
    world.see(QueueSays(QueuePlace.ABSENT))
    assert isinstance(world.step(), AskHistory)
    outcome = world.see(DONE).outcome
    assert outcome.error is None
    assert outcome.events_missed


def test_a_success_that_only_the_history_tells_of_has_missed_events() -> None:
    outcome = submitted().see(START, EXECUTED, DONE).outcome
    assert outcome.error is None
    assert outcome.events_missed, "the socket is open, and silent"


def test_a_socket_lost_after_success_has_lost_nothing() -> None:
    outcome = submitted().see(START, EXECUTED, SUCCESS, SocketLost(), DONE).outcome
    assert not outcome.events_missed


def test_a_silent_socket_is_not_trusted_for_longer_than_a_moment() -> None:
    world = submitted()
    assert isinstance(world.step(), Wait)
    assert isinstance(world.wait(QUIET_S).step(), AskHistory)


def test_a_prompt_that_others_removed_from_the_queue_is_canceled_not_waited_for() -> None:
    world = submitted().wait(DOUBT_S)
    seen: list[Step] = []
    for _ in range(40):
        step = world.step()
        seen.append(step)
        if isinstance(step, Finished):
            break
        if isinstance(step, AskQueue):
            world.see(QueueSays(QueuePlace.ABSENT))
        elif isinstance(step, AskHistory):
            world.see(HistorySays(None))
        else:
            world.wait(0.5)
    outcome = world.outcome
    assert outcome.error is not None
    assert outcome.error.code == "canceled"
    assert sum(isinstance(step, AskQueue) for step in seen) == 2, "one look is not enough to give a prompt up"


def test_a_prompt_that_ends_between_two_questions_is_never_taken_for_gone() -> None:
    world = submitted().see(START, SocketLost()).wait(0.1)
    assert isinstance(world.step(), AskQueue)
    world.see(QueueSays(QueuePlace.ABSENT))
    assert isinstance(world.step(), AskHistory), "the history is asked after the queue"
    assert world.see(DONE).outcome.error is None


def test_a_lost_submit_that_never_arrived_is_sent_again() -> None:
    world = World().see(SubmitLost())
    for _ in range(2):
        world.wait(0.1)
        assert isinstance(world.step(), AskQueue)
        world.see(QueueSays(QueuePlace.ABSENT))
        assert isinstance(world.step(), AskHistory)
        world.see(HistorySays(None))
    assert isinstance(world.step(), SubmitAgain)
    assert world.see(Submitted(), START, LAST_WORD, DONE).outcome.error is None


def test_a_lost_submit_that_arrived_is_not_sent_again() -> None:
    world = World().see(SubmitLost()).wait(0.1)
    assert isinstance(world.step(), AskQueue)
    world.see(QueueSays(QueuePlace.PENDING))
    assert world.follower.state is State.QUEUED
    assert world.see(START, LAST_WORD, DONE).outcome.error is None


def test_an_engine_that_accepts_no_workflow_is_told_with_the_reason() -> None:
    world = World().see(SubmitLost("the websocket does not open: refused"))
    for _ in range(4):
        for _ in range(2):
            world.wait(0.1).see(QueueSays(QueuePlace.ABSENT), HistorySays(None))
        world.see(SubmitLost("the websocket does not open: refused"))
    error = world.outcome.error
    assert error is not None
    assert error.message == "ComfyUI answers, but accepts no workflow: the websocket does not open: refused"


def test_an_engine_elsewhere_that_never_took_the_workflow_has_not_crashed() -> None:
    world = World(is_elsewhere=True).see(SubmitLost("503 busy"), EngineSilent(ours=False)).wait(UNREACHABLE_S)
    error = world.see(EngineSilent(ours=False)).outcome.error
    assert error is not None
    assert (error.code, error.message) == ("engine_unavailable", "ComfyUI has not taken the workflow: 503 busy")


@pytest.mark.parametrize(
    ("facts", "is_elsewhere", "words"),
    [
        ([Submitted()], True, "in the queue, in which nothing has moved for 30 s. If no long .* COMFYUI_URL"),
        ([Submitted(), START], True, "executing, and ComfyUI has said nothing for 30 s. If no long .* COMFYUI_URL"),
        ([Submitted()], False, "in the queue$"),
        ([Submitted(), START], False, "executing$"),
        ([SubmitLost("503 busy")], True, "before ComfyUI had taken it: 503 busy$"),
    ],
)
def test_a_deadline_tells_of_an_engine_elsewhere_in_which_nothing_moves(
    facts: list[Fact], is_elsewhere: bool, words: str
) -> None:
    world = World(deadline=130.0, is_elsewhere=is_elsewhere).see(*facts).wait(30.0)
    world.step()
    error = world.wait(DEADLINE_GRACE_S).outcome.error
    assert error is not None
    assert re.search(words, error.message), error.message


def test_to_learn_what_it_waits_behind_hides_no_engine_in_which_nothing_moves() -> None:
    world = World(deadline=114.0, is_elsewhere=True).see(Submitted()).wait(DOUBT_S)
    world.see(QueueSays(QueuePlace.PENDING, ahead="other")).wait(9.0).step()
    error = world.wait(DEADLINE_GRACE_S).outcome.error
    assert error is not None
    assert "in which nothing has moved for 9 s" in error.message


def test_a_stalled_engine_elsewhere_is_for_others_to_restart() -> None:
    error = World(stall_s=60, is_elsewhere=True).see(Submitted()).wait(60).outcome.error
    assert error is not None
    assert error.code == "engine_stalled"
    assert "not ours to restart" in error.message


def test_a_crash_after_the_last_node_still_delivers_the_outputs() -> None:
    outcome = submitted().see(START, EXECUTED, SUCCESS, SocketLost(), ProcessExited(-9)).outcome
    assert outcome.error is None
    assert outcome.shown == {"2": SHOWN}
    assert outcome.engine_is_broken


def test_a_crash_in_the_middle_keeps_what_was_made() -> None:
    outcome = submitted().see(START, EXECUTED, SocketLost(), ProcessExited(-9, "last words")).outcome
    assert outcome.error is not None
    assert outcome.error.code == "engine_crashed"
    assert outcome.error.details == {"exit_code": -9, "log_tail": "last words"}
    assert "out of memory" in outcome.error.message
    assert outcome.shown == {"2": SHOWN}


def test_an_engine_that_forgot_a_begun_prompt_was_restarted() -> None:
    world = submitted().see(START, SocketLost())
    for _ in range(2):
        world.wait(1.0)
        world.step()
        world.see(QueueSays(QueuePlace.ABSENT))
        world.step()
        world.see(HistorySays(None))
    assert world.outcome.error is not None
    assert world.outcome.error.code == "engine_crashed"


def test_an_engine_of_others_that_cannot_be_reached_is_given_up_after_a_while() -> None:
    world = submitted().see(EngineSilent(ours=False)).wait(UNREACHABLE_S - 1).see(EngineSilent(ours=False))
    assert not isinstance(world.step(), Finished)
    world.wait(1).see(EngineSilent(ours=False))
    assert world.outcome.error is not None
    assert world.outcome.error.code == "engine_crashed"


def test_an_unanswered_question_has_missed_no_event() -> None:
    world = submitted().see(START, EngineSilent(ours=True), EXECUTED, SUCCESS, LAST_WORD, DONE)
    assert not world.outcome.events_missed


def test_who_cancels_shortly_before_the_deadline_waits_no_longer_than_it_allows() -> None:
    world = submitted(deadline=10.0 + 100.0).see(START).wait(9).see(CancelAsked())
    world.wait(1 + DEADLINE_GRACE_S - 0.01)
    assert not isinstance(world.step(), Finished)
    outcome = world.wait(0.02).outcome
    assert outcome.error is not None
    assert outcome.error.code == "canceled"
    assert outcome.engine_is_broken


def test_nothing_moving_for_long_is_a_stall() -> None:
    world = submitted(stall_s=60).see(START).wait(59)
    assert not isinstance(world.step(), Finished)
    outcome = world.wait(1).outcome
    assert outcome.error is not None
    assert outcome.error.code == "engine_stalled"
    assert outcome.engine_is_broken


@pytest.mark.parametrize(
    "sign_of_life", [ProcessBusy(), event("progress", value=1, max=9), QueueSays(QueuePlace.PENDING, ahead="another")]
)
def test_a_sign_of_life_is_no_stall(sign_of_life: Fact) -> None:
    world = submitted(stall_s=60).see(START).wait(59).see(sign_of_life).wait(59)
    assert not isinstance(world.step(), Finished)


def test_a_running_prompt_without_sign_of_life_stalls_although_the_queue_answers() -> None:
    world = submitted(stall_s=60).see(START)
    for _ in range(59):
        world.wait(1).see(QueueSays(QueuePlace.RUNNING))
    assert world.wait(1).outcome.error is not None


def test_waiting_behind_a_prompt_that_never_gets_on_is_a_stall_too() -> None:
    world = submitted(stall_s=60)
    for _ in range(61):
        world.wait(1).see(QueueSays(QueuePlace.PENDING, ahead="one that nobody follows"))
    assert world.outcome.error is not None
    assert world.outcome.error.code == "engine_stalled"


def test_the_entry_of_an_earlier_prompt_with_the_same_id_is_not_taken_for_ours() -> None:
    earlier, ours = history(("execution_success", {"timestamp": 1})), history(("execution_success", {"timestamp": 1}))
    assert earlier.entry is not None
    assert ours.entry is not None
    world = World().see(Submitted(number=8))
    world.see(HistorySays({**earlier.entry, "prompt": [7, PROMPT]}))
    assert not isinstance(world.step(), Finished)
    assert world.see(HistorySays({**ours.entry, "prompt": [8, PROMPT]})).outcome.error is None


def test_an_engine_that_takes_no_workflow_is_given_up() -> None:
    world = World()
    for _ in range(200):
        step = world.step()
        if isinstance(step, Finished):
            break
        if isinstance(step, SubmitAgain):
            world.see(SubmitLost())
        elif isinstance(step, AskQueue):
            world.see(QueueSays(QueuePlace.ABSENT))
        elif isinstance(step, AskHistory):
            world.see(HistorySays(None))
        else:
            world.wait(0.1).see(SubmitLost())
    assert world.outcome.error is not None
    assert world.outcome.error.code == "engine_unavailable"


def is_to_stop(world: World) -> bool:
    """Whether it is among the next steps that the prompt is asked to stop."""
    return any(isinstance(world.step(), AskToStop) for _ in range(4))


def test_a_prompt_that_waits_behind_others_has_its_time_from_when_it_executes() -> None:
    world = submitted(deadline=10_000.0, execution_s=10.0)
    assert not is_to_stop(world.wait(9))
    assert not is_to_stop(world.see(START).wait(9.5))
    assert is_to_stop(world.wait(1))


def test_a_deadline_that_is_nearer_than_the_time_to_execute_counts() -> None:
    assert is_to_stop(submitted(deadline=105.0, execution_s=100.0).see(START).wait(6))


def test_the_deadline_interrupts_and_reports() -> None:
    world = submitted(deadline=110.0).see(START).wait(10)
    assert isinstance(world.step(), AskToStop)
    outcome = world.see(LAST_WORD, INTERRUPTED).outcome
    assert outcome.error is not None
    assert outcome.error.code == "deadline_exceeded"
    assert not outcome.engine_is_broken


def test_a_run_that_succeeds_while_it_is_being_stopped_has_succeeded() -> None:
    world = submitted(deadline=110.0).see(START).wait(10)
    assert isinstance(world.step(), AskToStop)
    assert world.see(EXECUTED, SUCCESS, LAST_WORD, DONE).outcome.error is None


def test_what_cannot_be_interrupted_costs_the_engine_once_the_grace_is_over() -> None:
    world = submitted(deadline=110.0).see(START).wait(10)
    assert isinstance(world.step(), AskToStop)
    outcome = world.wait(DEADLINE_GRACE_S).outcome
    assert outcome.error is not None
    assert outcome.error.code == "deadline_exceeded"
    assert outcome.engine_is_broken


def test_a_request_to_stop_is_repeated_because_it_can_be_lost() -> None:
    world = submitted().see(START, CancelAsked())
    assert isinstance(world.step(), AskToStop)
    assert isinstance(world.wait(0.5).step(), AskToStop)
    assert isinstance(world.wait(CANCEL_GRACE_S).step(), Finished)


def test_events_do_not_put_off_the_question_whether_it_has_stopped() -> None:
    world = submitted().see(START, CancelAsked())
    assert isinstance(world.step(), AskToStop)
    world.wait(0.1).see(event("progress", node="1", value=1, max=9))
    assert isinstance(world.step(), AskQueue)


def test_canceling_a_waiting_prompt_ends_when_it_is_found_nowhere() -> None:
    world = submitted().see(CancelAsked())
    assert isinstance(world.step(), AskToStop)
    assert isinstance(world.step(), AskQueue)
    world.see(QueueSays(QueuePlace.ABSENT))
    assert isinstance(world.step(), AskHistory)
    outcome = world.see(HistorySays(None)).outcome
    assert outcome.error is not None
    assert outcome.error.code == "canceled"


def test_a_second_cancel_changes_nothing() -> None:
    world = submitted().see(START, CancelAsked(), CancelAsked(), LAST_WORD, INTERRUPTED)
    assert world.outcome.error is not None
    assert world.see(CancelAsked()).outcome.error is not None


def test_an_interrupt_by_somebody_else_is_reported_as_such() -> None:
    outcome = submitted().see(START, LAST_WORD, INTERRUPTED).outcome
    assert outcome.error is not None
    assert outcome.error.code == "canceled"
    assert "another client" in outcome.error.message


def test_frames_are_results_only_where_the_graph_says_so() -> None:
    preview = FrameSeen("1", "image/jpeg", b"preview")
    frame = FrameSeen("5", "image/png", b"frame")
    outcome = submitted(frame_nodes={"5"}).see(START, preview, frame, LAST_WORD, DONE).outcome
    assert outcome.frames == (frame,)


# Whatever comes, in whatever order, however often, or not at all.

TRUTHS: dict[str, HistorySays] = {"succeeded": DONE, "failed": FAILED, "interrupted": INTERRUPTED}
NOISE: list[Fact] = [
    Submitted(),
    SubmitLost(),
    START,
    EXECUTED,
    SUCCESS,
    LAST_WORD,
    SocketLost(),
    EventMissed(),
    EngineSilent(ours=True),
    ProcessBusy(),
    CancelAsked(),
    FrameSeen("1", "image/jpeg", b""),
    event("execution_cached", nodes=["1"]),
    event("progress", value=1, max=2, node="1"),
    event("execution_error", node_id="2", exception_type="ValueError"),
    event("an_event_of_tomorrow"),
]


@settings(max_examples=400, deadline=None)
@given(
    noise=st.lists(st.tuples(st.sampled_from(NOISE), st.floats(0, 3)), max_size=40),
    truth=st.sampled_from(sorted(TRUTHS)),
    ends_after=st.integers(0, 60),
    with_deadline=st.booleans(),
)
def test_any_order_loss_and_repetition_of_facts_gives_exactly_the_outcome_the_history_holds(
    noise: list[tuple[Fact, float]], truth: str, ends_after: int, with_deadline: bool
) -> None:
    """ComfyUI answers truthfully: RUNNING until `ends_after` questions were asked, then the history has the entry.

    It never says in an event what the history denies.
    """
    if truth != "succeeded":
        noise = [(fact, pause) for fact, pause in noise if fact is not SUCCESS]
    world = World(deadline=100.0 + 3600 if with_deadline else None, stall_s=10_000)
    pending = list(noise)
    asked = 0
    for _ in range(2_000):
        step = world.step()
        if isinstance(step, Finished):
            break
        match step:
            case AskQueue():
                asked += 1
                world.see(QueueSays(QueuePlace.ABSENT if asked > ends_after else QueuePlace.RUNNING))
            case AskHistory():
                asked += 1
                world.see(TRUTHS[truth] if asked > ends_after else HistorySays(None))
            case SubmitAgain():
                raise AssertionError("a prompt that exists was sent twice")
            case Wait(seconds):
                assert seconds >= 0
                if pending:
                    fact, pause = pending.pop(0)
                    world.wait(min(pause, max(seconds, 0.001))).see(fact)
                else:
                    world.wait(max(seconds, 0.001))
    outcome = world.outcome
    canceled = any(isinstance(fact, CancelAsked) for fact, _ in noise)
    code = outcome.error.code if outcome.error else None
    expected = {"succeeded": None, "failed": "node_execution_error", "interrupted": "canceled"}[truth]
    assert code == expected or (canceled and code == "canceled")
    for late in (ProcessExited(1), DONE, FAILED, SocketLost()):
        world.see(late)
    assert world.outcome is outcome, "an outcome never changes"


@settings(max_examples=300, deadline=None)
@given(facts=st.lists(st.sampled_from([*NOISE, HistorySays(None), *(QueueSays(place) for place in QueuePlace)])))
def test_a_dead_engine_always_ends_the_run(facts: list[Fact]) -> None:
    world = World().see(*facts).see(ProcessExited(-11))
    outcome = world.outcome
    everything_known = SUCCESS in facts and outcome.error is None
    assert outcome.error is not None or everything_known


@settings(max_examples=200, deadline=None)
@given(facts=st.lists(st.tuples(st.sampled_from(NOISE), st.floats(0, 2))), deadline=st.floats(0.1, 30))
@example(facts=[(fact, 0.0) for fact in (Submitted(), START, SUCCESS, LAST_WORD)], deadline=1.0)
def test_a_deadline_is_kept_whatever_happens(facts: list[tuple[Fact, float]], deadline: float) -> None:
    """The engine answers no question at all."""
    world = World(deadline=100.0 + deadline)
    pending = list(facts)
    for _ in range(5_000):
        step = world.step()
        if isinstance(step, Finished):
            break
        if isinstance(step, Wait):
            fact, pause = pending.pop(0) if pending else (None, 1.0)
            world.wait(min(max(step.seconds, 0.001), max(pause, 0.001)))
            if fact is not None:
                world.see(fact)
        else:
            world.see(EngineSilent(ours=True))
    assert world.outcome.error is not None or SUCCESS in [fact for fact, _ in facts], "events may tell of its success"
    assert world.now - 100.0 <= deadline + DEADLINE_GRACE_S + CANCEL_GRACE_S + 3
