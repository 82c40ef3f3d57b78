"""The vocabulary of following a prompt: the facts that can be seen of it, and the steps that can be taken. No IO."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy_serverless.errors import ComfyError


class QueuePlace(Enum):
    """Where a prompt stands in ComfyUI's queue."""

    RUNNING = "running"
    PENDING = "pending"
    ABSENT = "absent"


# Facts: what has been seen.


@dataclass(frozen=True, slots=True)
class Submitted:
    """`POST /prompt` answered 200.

    Attributes:
        node_errors: names outputs that will not be made all the same.
        number: stands in the history entry too; tells it from an earlier prompt's with the same id.
    """

    node_errors: Mapping[str, Any] = field(default_factory=dict)
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """`POST /prompt` answered 400."""

    error: ComfyError


@dataclass(frozen=True, slots=True)
class SubmitLost:
    """`POST /prompt` got no answer: it may have been queued, or may still be."""


@dataclass(frozen=True, slots=True)
class EventSeen:
    """A websocket message about this prompt."""

    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A binary websocket message about this prompt: a preview, or the result of SaveImageWebsocket."""

    node_id: str
    content_type: str
    content: bytes = field(repr=False)

    def is_result(self, frame_nodes: Collection[str]) -> bool:
        """Whether it is a result: of a node known to send them, or a PNG. Previews are JPEG.

        Only its format tells of a node that an expansion has made: the submitted graph does not have its class.
        """
        return self.node_id in frame_nodes or self.content_type == "image/png"


@dataclass(frozen=True, slots=True)
class SocketLost:
    """The websocket is gone, and with it everything sent from now on."""


@dataclass(frozen=True, slots=True)
class EventMissed:
    """A websocket message could not be read; it may have been about this prompt."""


@dataclass(frozen=True, slots=True)
class HistorySays:
    """`GET /history/{id}`: the entry, or None for "unknown" and for "not ended"."""

    entry: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class QueueSays:
    """`GET /queue`, looked through for this prompt. `ahead` is the prompt that runs now."""

    place: QueuePlace
    ahead: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSilent:
    """A question was not answered (refused, reset, timed out). `ours` tells whether we watch its process."""

    ours: bool


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The engine's process has ended, and everything it had sent has been read."""

    exit_code: int | None
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessBusy:
    """The engine's process has used the processor: it is alive, however silent."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants the prompt to end."""


Fact = (
    Submitted
    | Refused
    | SubmitLost
    | EventSeen
    | FrameSeen
    | SocketLost
    | EventMissed
    | HistorySays
    | QueueSays
    | EngineSilent
    | ProcessExited
    | ProcessBusy
    | CancelAsked
)


# Steps: what to do next.


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the next fact, at most this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskHistory:
    """Answer with HistorySays or EngineSilent."""


@dataclass(frozen=True, slots=True)
class AskQueue:
    """Answer with QueueSays or EngineSilent."""


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Remove the prompt from the queue, and interrupt it. Needs no answer: it is asked again."""


@dataclass(frozen=True, slots=True)
class SubmitAgain:
    """The submit never arrived: send it once more, and answer as to the first."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in whole milliseconds."""

    queued_ms: int
    executing_ms: int
    total_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a prompt ended.

    Attributes:
        error: why it failed; None for success.
        shown: what each node showed, by node id: the outputs. Also of failed prompts.
        display_nodes: for nodes made by expansion, the node of the submitted graph they are shown as.
        frames: images that came through the websocket as results, in order.
        cached_nodes: nodes that did not have to run.
        warnings: what was not made although the prompt was accepted.
        events_missed: whether part of the events, and so of the frames, may have been lost.
        engine_is_broken: whether the engine must be replaced before it can run anything else.
    """

    error: ComfyError | None
    shown: Mapping[str, Mapping[str, Any]]
    display_nodes: Mapping[str, str]
    frames: tuple[FrameSeen, ...]
    cached_nodes: tuple[str, ...]
    warnings: tuple[str, ...]
    timings: Timings
    events_missed: bool
    engine_is_broken: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """It is over."""

    outcome: Outcome


Step = Wait | AskHistory | AskQueue | AskToStop | SubmitAgain | Finished
