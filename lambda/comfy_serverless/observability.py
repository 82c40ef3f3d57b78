"""Reports to the operator: JSON log lines with the job's id on each, and CloudWatch metrics.

Events, requests and links are never logged: they hold other people's data, and links are keys.

Lambda drops application lines below its own level (ApplicationLogLevel), and takes a metric, which has no level, for
INFO. So that level never rises above INFO (a test holds it), and POWERTOOLS_LOG_LEVEL decides which lines are written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from aws_lambda_powertools import Logger

from comfy_serverless.errors import ComfyError, Kind
from comfy_serverless.redaction import redacted

#: Powertools' variable for it: each stack has its own, or the alarms of one would ring for the failures of another.
_NAMESPACE_VARIABLE, _NAMESPACE = "POWERTOOLS_METRICS_NAMESPACE", "ComfyServerless"
#: The unit of each metric that we write. Each is read by an alarm or the dashboard, for it costs money.
UNITS: Mapping[str, str] = {
    "ColdStart": "Count",
    "EngineStarts": "Count",
    "EngineRecycled": "Count",
    "EngineMemoryMb": "Megabytes",
    "EngineGpuMemoryMb": "Megabytes",
    "NodesNotLoaded": "Count",
    "Jobs": "Count",
    "Outputs": "Count",
    "OutputBytes": "Bytes",
    "ExecutionMs": "Milliseconds",
    "OverheadMs": "Milliseconds",
    "Failures": "Count",
    "WaitedSeconds": "Seconds",
    "WorkflowsBroken": "Count",
}
#: The dimension `service` of failures: whoever counts one, the same alarms cover it.
_WORKERS = "generate"
#: The most values of one metric in a line that CloudWatch takes.
MAX_VALUES = 100

_SERVICE = "comfy_serverless"


def _to_line(keys: dict[str, Any]) -> str:
    """A line of the log. Tracebacks end in the texts of libraries, which show addresses as they were given."""
    for name in _OF_FAILURES & keys.keys():
        keys[name] = _redacted(keys[name])
    return json.dumps(keys, default=str, separators=(",", ":"), ensure_ascii=False)


def _redacted(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    match value:
        case str():
            return redacted(value)
        case Mapping():
            return {key: _redacted(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_redacted(inner) for inner in value]
        case None | bool() | int() | float():
            return value
        case _:  # the exception itself
            return redacted(value)


#: What Powertools tells of an exception.
_OF_FAILURES = frozenset({"exception", "stack_trace"})
#: Its name is that of our package's standard logger: the lines of `comfy_serverless.connector` come out of the same
#: handler, with the same keys.
log = Logger(service=_SERVICE, json_serializer=_to_line)
_job: ContextVar[str | None] = ContextVar("job", default=None)
_invocation: str | None = None
_release = ""


class _Names(logging.Filter):
    """Adds the names of function and release to every line, and the job's id: of the block, or of the failure told."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line through."""
        if _invocation is not None:
            record.request_id = _invocation
        if _release:
            record.release_version = _release
        record.service = os.environ.get("POWERTOOLS_SERVICE_NAME", _SERVICE)
        failure = record.exc_info[1] if record.exc_info else None
        if (job_id := getattr(failure, "job_id", None) or _job.get()) is not None and not hasattr(record, "job_id"):
            record.job_id = job_id
        return True


log.registered_handler.addFilter(_Names())


if "AWS_LAMBDA_LOG_LEVEL" in os.environ:  # which Powertools would take instead
    logging.getLogger(_SERVICE).setLevel(os.environ.get("POWERTOOLS_LOG_LEVEL", "INFO").upper())


def begin_invocation(request_id: str) -> None:
    """Have every line name Lambda's invocation, of which a process has one at a time.

    Lambda's own report of an invocation that ran out of memory or time names nothing else.
    """
    global _invocation
    _invocation = request_id


def name_release(version: str) -> None:
    """Have every line, and every line of metrics, tell what this process's image was built from; "" for nothing."""
    global _release
    _release = version


@contextmanager
def about(job_id: str) -> Iterator[None]:
    """Have every line of this block name the job.

    Those of its threads do, too, if they have been given the context; and the line that reports a failure which leaves
    the block.
    """
    before = _job.set(job_id)
    try:
        yield
    except Exception as failure:
        failure.__dict__.setdefault("job_id", _job.get())
        raise
    finally:
        _job.reset(before)


def rename(job_id: str) -> None:
    """Name the job otherwise until the end of the block `about` it: its own request says how it is called."""
    _job.set(job_id)


def emit(figures: Mapping[str, Sequence[float]], *dimensions: Mapping[str, str]) -> None:
    """Write metrics to standard output, in CloudWatch's embedded format, as few lines as their values allow.

    Args:
        figures: the values of each metric; see `UNITS`.
        dimensions: the sets of dimensions that the metrics are counted under, each set apart. A name that is in two of
            them has the same value in both.
    """
    named = {name: value for one in dimensions for name, value in one.items()}
    # A property of the line, to be searched for: as a dimension it would make each metric anew for every release.
    told = {"release_version": _release} if _release else {}
    for first in range(0, max(map(len, figures.values()), default=0), MAX_VALUES):
        values = {name: list(some) for name, all_ in figures.items() if (some := all_[first : first + MAX_VALUES])}
        declared = {
            "Namespace": os.environ.get(_NAMESPACE_VARIABLE) or _NAMESPACE,
            "Dimensions": [list(one) for one in dimensions],
            "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
        }
        head = {"_aws": {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [declared]}}
        # One write for a line: other threads write, too.
        sys.stdout.write(json.dumps({**head, **told, **named, **values}) + "\n")
        sys.stdout.flush()


def emit_failure(code: str, kind: Kind) -> None:
    """Count a failure, by its code and by whom it concerns."""
    service = {"service": _WORKERS}
    emit({"Failures": [1.0]}, {**service, "code": code}, {**service, "kind": kind.value})


def count_refusal(error: ComfyError) -> None:
    """Count a refusal that is not its caller's doing."""
    if error.kind is not Kind.REQUEST:
        emit_failure(error.code, error.kind)


def emit_wait(seconds: float, *, is_batch: bool) -> None:
    """Report how long a job has waited for its first worker: one that a caller waits for, or one of a batch."""
    emit({"WaitedSeconds": [seconds]}, {"service": _SERVICE, "class": "batches" if is_batch else "callers"})


def emit_broken_workflows(count: int) -> None:
    """Report how many versions of named workflows that an alias leads to would fail on the live workers."""
    emit({"WorkflowsBroken": [float(count)]}, {"service": _SERVICE})


class Failures:
    """Failures of some among many: they are logged, the others have their turn, and the last one is raised at the end.

    with Failures() as failures:
        for job in jobs:
            with failures.logged("a job could not be looked after", job_id=job.id):
                look_after(job)
    """

    def __init__(self) -> None:
        self._last: Exception | None = None

    @contextmanager
    def logged(self, message: str, **keys: Any) -> Iterator[None]:  # noqa: ANN401  (as Powertools takes them)
        """Keep a failure in this block until the end."""
        try:
            yield
        except Exception as error:
            log.exception(message, **keys)
            self._last = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Raise the last failure, if there was one and nothing else is on its way."""
        if self._last is not None and kind is None:
            raise self._last
