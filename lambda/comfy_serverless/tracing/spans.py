"""Spans, on or off. Only `sdk` knows OpenTelemetry, and is imported when a collector is named.

The switch is one for the process (`begin`), as logging's is; a span belongs to the block that it is of, and to the
threads that were given its context (`contextvars`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from comfy_serverless.tracing.context import Trace

if TYPE_CHECKING:
    from comfy_serverless.tracing.sdk import Sdk

logger = logging.getLogger(__name__)

#: What a span may say of something. Longer texts are cut.
Fact = str | int | float | bool
#: After spans could not be sent in time, nobody waits for them for so long.
_PATIENT_AGAIN_S = 60.0

_sdk: Sdk | None = None
#: The caller's place in a trace that we take no part in.
_passed: ContextVar[Trace | None] = ContextVar("passed", default=None)
_flushing = threading.Lock()
_flusher: threading.Thread | None = None
_patient_from = 0.0


class Kind(StrEnum):
    """How a span stands to those of other processes."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span(Protocol):
    """A span that goes on."""

    def set(self, **facts: Fact | None) -> None:
        """Tell more of it; what is None is not told. `a_b` is the attribute `comfy.a_b`."""

    def fail(self, code: str) -> None:
        """Say that it has failed, and how: by a code, because messages may hold what callers wrote."""


class _Nothing:
    """The span where there are none."""

    __slots__ = ()

    def set(self, **facts: Fact | None) -> None:
        """Nothing is told."""

    def fail(self, code: str) -> None:
        """Nothing is told."""


class _Off:
    """The block of a span where there are none: it only hands on the place in the caller's trace."""

    __slots__ = ("_parent", "_token")

    def __init__(self, parent: Trace | None) -> None:
        self._parent = parent
        self._token: Token[Trace | None] | None = None

    def __enter__(self) -> Span:
        if self._parent is not None:
            self._token = _passed.set(self._parent)
        return _NOTHING

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._token is not None:
            _passed.reset(self._token)


_NOTHING = _Nothing()
_STILL = _Off(None)


def begin(endpoint: str | None, *, service: str, facts: Mapping[str, str] | None = None) -> None:
    """Send spans to a collector from now on; nothing happens without one, or if it has begun already.

    A process that lacks OpenTelemetry's packages says so, and works without.

    Args:
        endpoint: where OTLP is taken over HTTP (`http://127.0.0.1:4318`); `/v1/traces` is added.
        service: the name of this process's part.
        facts: of the process, such as its release.
    """
    global _sdk
    if endpoint is None or _sdk is not None:
        return
    try:
        from comfy_serverless.tracing.sdk import Sdk
    except ImportError as error:
        logger.warning(
            "there are no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, and %s is not installed "
            "(pip install '.[tracing]')",
            error.name,
        )
        return
    _sdk = Sdk.of(endpoint, service=service, facts=facts or {})


def end() -> None:
    """Send no more spans, without waiting for those that are left."""
    global _sdk, _patient_from
    sdk, _sdk, _patient_from = _sdk, None, 0.0
    if sdk is not None:
        sdk.end()


def is_on() -> bool:
    """Whether spans are made: what they would tell need not be gathered otherwise."""
    return _sdk is not None


def span(
    name: str,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: Trace | None = None,
    links: Sequence[Trace | None] = (),
    is_root: bool = False,
    **facts: Fact | None,
) -> AbstractContextManager[Span]:
    """A span for a block. It is a child of `parent`, or else of the block's own span; a failure in it is told by code.

    Args:
        links: other spans that it comes from.
        is_root: whether it begins a trace of its own if it has no parent.
        facts: see `Span.set`.
    """
    if _sdk is None:
        return _STILL if parent is None else _Off(parent)
    return _sdk.span(name, kind=kind.value, parent=parent, links=links, is_root=is_root, facts=facts)


def add(name: str, begun_s: float, ended_s: float, *, parent: Trace | None = None, **facts: Fact | None) -> None:
    """A span of what is over, by its times in seconds since 1970."""
    if _sdk is not None:
        _sdk.add(name, begun_s, max(begun_s, ended_s), parent=parent, facts=facts)


def current() -> Trace | None:
    """The place of this block, for the message or the request that leads to the next one; None if it is in no trace."""
    return _passed.get() if _sdk is None else _sdk.current()


def flush(within_s: float) -> None:
    """Have the spans that have ended sent now, and wait for that, at most so long: Lambda freezes us afterwards.

    Where a collector does not answer in time, nobody waits for it in the next minute.
    """
    global _flusher, _patient_from
    sdk = _sdk
    if sdk is None:
        return
    with _flushing:
        if _flusher is None or not _flusher.is_alive():
            _flusher = threading.Thread(target=sdk.flush, name="traces", daemon=True)
            _flusher.start()
        flusher = _flusher
        if time.monotonic() < _patient_from:
            return
    flusher.join(max(0.0, within_s))
    if flusher.is_alive():
        _patient_from = time.monotonic() + _PATIENT_AGAIN_S
        logger.warning("spans were not sent within %g s: the collector does not answer; jobs do not wait", within_s)
