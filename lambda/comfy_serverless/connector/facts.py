"""The vocabulary of following a prompt: the facts that can be seen and the steps that can be taken. No IO."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy_serverless.errors import ComfyError


class State(Enum):
    """The life of a prompt."""

    SUBMITTING = "submitting"
    QUEUED = "queued"
    EXECUTING = "executing"
    STOPPING = "stopping"
    ENDED = "ended"


class QueuePlace(Enum):
    """Where a prompt stands in ComfyUI's queue."""

    RUNNING = "running"
    PENDING = "pending"
    ABSENT = "absent"


# Facts: what was seen.


@dataclass(frozen=True, slots=True)
class Submitted:
    """`POST /prompt` answered 200.

    Attributes:
        node_errors: names the outputs that will not be made in spite of it.
        number: also in the history entry; tells it apart from that of an earlier prompt with the same id.
    """

    node_errors: Mapping[str, Any] = field(default_factory=dict)
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """`POST /prompt` answered 400."""

    error: ComfyError


@dataclass(frozen=True, slots=True)
class SubmitLost:
    """`POST /prompt` got no answer, for this reason: the prompt may have been queued, or may still be."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class EventSeen:
    """A websocket message about this prompt, and when it came, in seconds since the epoch."""

    kind: str
    data: Mapping[str, Any]
    at_s: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A binary websocket message about this prompt: a preview, or the result of SaveImageWebsocket."""

    node_id: str
    content_type: str
    content: bytes = field(repr=False)

    def is_result(self, frame_nodes: Collection[str]) -> bool:
        """Whether it is a result: it comes from a node known to send results, or is a PNG. Previews are JPEG.

        For a node made by expansion only the format decides: the submitted graph does not have its class.
        """
        return self.node_id in frame_nodes or self.content_type == "image/png"


@dataclass(frozen=True, slots=True)
class SocketLost:
    """The websocket is gone: everything sent from now on is lost."""


@dataclass(frozen=True, slots=True)
class EventMissed:
    """A websocket message could not be read; it may have been about this prompt."""


@dataclass(frozen=True, slots=True)
class HistorySays:
    """`GET /history/{id}`: the entry, or None for "unknown" and for "not ended"."""

    entry: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class QueueSays:
    """`GET /queue`, as far as this prompt is concerned. `ahead` is the prompt that runs now."""

    place: QueuePlace
    ahead: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSilent:
    """A question was not answered (refused, reset, timed out). `ours` says whether we watch the process."""

    ours: bool


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The engine's process has ended, and everything it had sent has been read."""

    exit_code: int | None
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessBusy:
    """The engine's process has used the processor: it is alive, even if silent."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A caller wants the prompt to end."""


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
    """Ask the history; observe HistorySays or EngineSilent."""


@dataclass(frozen=True, slots=True)
class AskQueue:
    """Ask the queue; observe QueueSays or EngineSilent."""


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Remove the prompt from the queue, and interrupt it. Needs no fact in return: it is repeated."""


@dataclass(frozen=True, slots=True)
class SubmitAgain:
    """The submit never arrived: send it once more, and observe the same facts as for the first."""


@dataclass(frozen=True, slots=True)
class NodeSpan:
    """When a node of the graph ran, in seconds since 1970. One that waited for others in between ran more than once."""

    node_id: str
    begun_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in whole milliseconds, and the memory.

    Attributes:
        node_ms: how long each node ran, by its id, as far as its events were heard; cached nodes are absent.
        loading_ms: the part of it of nodes that take a file of a model (`graph.nodes.loaders_in`).
        gpu_memory_peak_mb: the most that was in use on all GPUs at the looks at it; None where that is not known.
        node_spans: when each node ran, as far as that is known, in the order of the ends.
    """

    queued_ms: int
    executing_ms: int
    total_ms: int
    node_ms: Mapping[str, int] = field(default_factory=dict)
    loading_ms: int = 0
    gpu_memory_peak_mb: int | None = None
    node_spans: tuple[NodeSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a prompt ended.

    Attributes:
        error: why it failed; None for success.
        shown: the outputs, by node id. Failed prompts can have some too.
        display_nodes: for nodes made by expansion, the node of the submitted graph they are shown as.
        frames: images that came through the websocket as results, in order.
        cached_nodes: nodes that did not need to run.
        warnings: what was not made although the prompt was accepted.
        events_missed: whether part of the events, and so of the frames, may have been lost.
        engine_is_broken: whether the engine must be replaced before the next prompt.
        number: of the submit, which counts those of all clients; None if it is not known.
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
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The prompt has ended."""

    outcome: Outcome


Step = Wait | AskHistory | AskQueue | AskToStop | SubmitAgain | Finished
