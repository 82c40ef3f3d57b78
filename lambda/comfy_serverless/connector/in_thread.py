"""Lets an event loop wait for something that blocks, in a thread of its own, which keeps no program from ending."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

#: How long a canceled task waits for the thread to end, in seconds. It ends by itself later.
CONFIRMED_S = 5.0

Result = TypeVar("Result")
Value = TypeVar("Value")


class InThread:
    """One call in one thread: `async with InThread() as thread: await thread.result_of(…)`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Any] = self._loop.create_future()
        # Somebody who has left asks for no result; asyncio would complain that nobody did.
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._failure: BaseException | None = None
        self._cancel: Callable[[], object] | None = None

    async def __aenter__(self) -> InThread:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise what a callback has raised, rather than what came of it."""
        if self._failure is not None and not isinstance(error, asyncio.CancelledError):
            raise self._failure

    def called_in_loop(self, callback: Callable[[Value], None] | None) -> Callable[[Value], None] | None:
        """The callback for the thread: it has the loop call the given one. If that raises, the call is canceled."""
        if callback is None:
            return None
        given = callback

        def call(value: Value) -> None:
            if self._failure is not None:
                return
            try:
                given(value)
            except BaseException as error:  # noqa: BLE001  (`__aexit__` raises it)
                self._failure = error
                if self._cancel is not None:
                    self._cancel()

        return lambda value: self._in_loop(call, value)

    async def result_of(self, call: Callable[[], Result], *, cancel: Callable[[], object]) -> Result:
        """The result of a call, or its exception. `cancel` ends it early; it may be called at any time."""
        self._cancel = cancel
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, call), name="comfy-arun", daemon=True).start()
        try:
            result: Result = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            cancel()
            await asyncio.wait([self._ended], timeout=CONFIRMED_S)
            raise
        return result

    def _run(self, call: Callable[[], object]) -> None:
        try:
            settle = functools.partial(self._ended.set_result, call())
        except BaseException as error:  # noqa: BLE001  (the loop raises it)
            settle = functools.partial(self._ended.set_exception, error)
        self._in_loop(self._settle, settle)

    def _settle(self, settle: Callable[[], None]) -> None:
        if not self._ended.done():
            settle()

    def _in_loop(self, function: Callable[[Any], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, value)
