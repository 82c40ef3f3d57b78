"""What a worker tells of a job in its trace: see `comfy_serverless.tracing`. Nothing here decides anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from comfy_serverless import tracing
from comfy_serverless.errors import ComfyError

if TYPE_CHECKING:
    from comfy_serverless.connector.facts import Timings
    from comfy_serverless.jobs.sources import RequestSource
    from comfy_serverless.table.job_state import JobState
    from comfy_serverless.worker.outcomes import Outcome

#: Spans of nodes for one job: of more, those that ran longest.
MOST_NODES = 200


def run(source: RequestSource, do: Callable[[], Outcome]) -> Outcome:
    """Run a job as a child of the span that its source names."""
    kind = tracing.Kind.CONSUMER
    with tracing.span("run job", kind=kind, parent=source.trace, job_id=source.default_id) as span:
        outcome = do()
        job = outcome.job
        span.set(job_id=job.id, status=job.status.value, outputs=job.outputs_made, engine=job.engine)
        if job.error is not None:
            span.fail(job.error.code)
        return outcome


def add_wait(state: JobState) -> None:
    """The time that a job has waited in its queue, until now."""
    if tracing.is_on():
        since = state.waits_since or datetime.fromisoformat(state.created_at).timestamp()
        tracing.add("wait in queue", since, time.time(), parent=state.place_in_trace, job_id=state.id, runs=state.runs)


def add_turn(waited_ms: int) -> None:
    """The time that a job has waited for those before it, until now."""
    now = time.time()
    tracing.add("wait for ComfyUI", now - waited_ms / 1000, now)


@contextmanager
def execution(graph: Mapping[str, Any]) -> Iterator[Callable[[Timings], None]]:
    """The span of an execution, with those of its nodes: of a failed one, too.

    Yields what takes the times of one that has succeeded.
    """
    with tracing.span("execute") as span:

        def tell(timings: Timings | None) -> None:
            if timings is None or not tracing.is_on():
                return
            ran = sorted(timings.node_spans, key=lambda one: one.ended_s - one.begun_s, reverse=True)[:MOST_NODES]
            for one in sorted(ran, key=lambda one: one.begun_s):
                class_type = class_of(graph, one.node_id)
                tracing.add(class_type or "node", one.begun_s, one.ended_s, node_id=one.node_id, class_type=class_type)
            span.set(queued_ms=timings.queued_ms, nodes=len(timings.node_spans))

        try:
            yield tell
        except ComfyError as error:
            tell(error.timings)
            raise


def class_of(graph: Mapping[str, Any], node_id: str) -> str | None:
    """The class of a node, as the workflow names it."""
    node = graph.get(node_id)
    class_type = node.get("class_type") if isinstance(node, Mapping) else None
    return class_type if isinstance(class_type, str) else None
