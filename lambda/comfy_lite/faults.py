"""Failures on demand: tests can put a client through everything that may happen to it. Needs ``--enable-faults``.

``POST /lite/faults {"fault": "crash", "at": "node", "node": "KSampler", "exit_code": 9}`` arms a fault at a point in a
prompt's life, for the next `times` (default 1) prompts that pass it. ``DELETE /lite/faults`` disarms all faults.

    fault            what happens                                       points
    crash            the process exits with `exit_code` (default 1),    now prompt start node end
                     or is ended by `signal`
    hang             the thread stops for good: at `now` and `prompt`   now prompt start node end
                     the server stops answering, elsewhere the prompt
                     stands still
    drop_sockets     every websocket is cut without a handshake, and    now prompt start node end
                     again every `every_s`, if that is given
    mute             the server stops sending websocket messages        now prompt start node end
    late_messages    every websocket message comes `seconds` later      now prompt start node end
    double_messages  every websocket message comes twice                now prompt start node end
    late_answer      a prompt runs `seconds` before it is answered      prompt
    slow_answers     every HTTP answer takes `seconds` longer           now prompt start node end
    node_error       the node raises                                    node
    out_of_memory    the node fails as a full GPU does                  node
    cuda_error       the node loses the GPU: it and every node after    node
                     it fail, until the process is replaced
    disk_full        the node finds no space left on the device         node
    end_worker       HTTP still answers, but no prompt runs again       start node end

    now: at once · prompt: before a prompt is accepted · start: when it starts · node: when `node` starts (an id or a
    class; any node by default) · end: after the last node, before the history has the prompt
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

if TYPE_CHECKING:
    from comfy_lite.sockets import SocketHub

logger = logging.getLogger("comfy_lite")

#: Lets the request that arms a fault be answered before the fault strikes.
_NOW_DELAY_S = 0.05


class OutOfMemory(Exception):
    """Stands for torch.OutOfMemoryError, which this engine cannot have but clients must handle."""


class FaultPoint(StrEnum):
    """Where in a prompt's life a fault can strike."""

    NOW = "now"
    PROMPT = "prompt"
    START = "start"
    NODE = "node"
    END = "end"


@dataclass(slots=True)
class Fault:
    """An armed fault. `times` counts down; `node` is a node id or a class."""

    name: str
    at: FaultPoint
    node: str | None = None
    times: int = 1
    exit_code: int = 1
    signal: int | None = None
    seconds: float = 1.0
    every_s: float | None = None

    def __post_init__(self) -> None:
        self.at = FaultPoint(self.at)
        if self.name not in _POINTS:
            raise ValueError(f"unknown fault {self.name!r}: one of {', '.join(_POINTS)}")
        if self.at not in _POINTS[self.name]:
            raise ValueError(f"{self.name} cannot strike at {self.at.value!r}")


_ANYWHERE = frozenset(FaultPoint)
_NODE = frozenset({FaultPoint.NODE})
_POINTS: Mapping[str, frozenset[FaultPoint]] = {
    "crash": _ANYWHERE,
    "hang": _ANYWHERE,
    "drop_sockets": _ANYWHERE,
    "mute": _ANYWHERE,
    "late_messages": _ANYWHERE,
    "double_messages": _ANYWHERE,
    "late_answer": frozenset({FaultPoint.PROMPT}),
    "slow_answers": _ANYWHERE,
    "node_error": _NODE,
    "out_of_memory": _NODE,
    "cuda_error": _NODE,
    "disk_full": _NODE,
    "end_worker": frozenset({FaultPoint.START, FaultPoint.NODE, FaultPoint.END}),
}


class Faults:
    """Holds the armed faults and makes them happen. `strike` may be called from any thread."""

    def __init__(self, hub: SocketHub) -> None:
        self.answer_delay_s = 0.0
        self._hub = hub
        self._armed: list[Fault] = []
        self._gpu_is_lost = False
        self._late_answer_s = 0.0
        self._dropping: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._actions: Mapping[str, Callable[[Fault], None]] = {
            "crash": _crash,
            "hang": _hang,
            "drop_sockets": self._drop,
            "mute": self._mute,
            "late_messages": self._delay_messages,
            "double_messages": self._double_messages,
            "late_answer": self._answer_late,
            "slow_answers": self._slow_down,
            "node_error": _fail,
            "out_of_memory": _run_out_of_memory,
            "cuda_error": self._lose_gpu,
            "disk_full": _fill_disk,
            "end_worker": _end_worker,
        }

    def arm(self, fault: Fault) -> None:
        """Arm a fault; one at `now` strikes at once."""
        if fault.at is FaultPoint.NOW:
            self._loop.call_later(_NOW_DELAY_S, self._actions[fault.name], fault)
        else:
            self._armed.append(fault)

    def disarm(self) -> None:
        """Forget every armed fault and undo its lasting effects. A lost GPU stays lost."""
        self._armed.clear()
        self.answer_delay_s = 0.0
        self._hub.muted = False
        self._hub.delay_s = 0.0
        self._hub.copies = 1
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None

    def strike(self, point: FaultPoint, *, node_id: str | None = None, class_type: str | None = None) -> None:
        """Make the faults armed for this point happen."""
        if point is FaultPoint.NODE and self._gpu_is_lost:
            _fail_on_gpu()
        for fault in list(self._armed):
            if fault.at is not point or (fault.node is not None and fault.node not in (node_id, class_type)):
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._armed.remove(fault)
            logger.warning("fault: %s at %s", fault.name, point.value)
            self._actions[fault.name](fault)

    def take_late_answer_s(self) -> float:
        """How many seconds to delay the answer to the prompt just accepted."""
        seconds, self._late_answer_s = self._late_answer_s, 0.0
        return seconds

    def _drop(self, fault: Fault) -> None:
        self._hub.drop_all()
        if fault.every_s is not None:
            self._loop.call_soon_threadsafe(self._drop_again, fault.every_s)

    def _drop_again(self, pause_s: float) -> None:
        self._hub.drop_all()
        self._dropping = self._loop.call_later(pause_s, self._drop_again, pause_s)

    def _mute(self, _: Fault) -> None:
        self._hub.muted = True

    def _delay_messages(self, fault: Fault) -> None:
        self._hub.delay_s = fault.seconds

    def _double_messages(self, _: Fault) -> None:
        self._hub.copies = 2

    def _answer_late(self, fault: Fault) -> None:
        self._late_answer_s = fault.seconds

    def _slow_down(self, fault: Fault) -> None:
        self.answer_delay_s = fault.seconds

    def _lose_gpu(self, _: Fault) -> NoReturn:
        self._gpu_is_lost = True
        _fail_on_gpu()


def _crash(fault: Fault) -> None:
    if fault.signal is None:
        os._exit(fault.exit_code)
    # Signals with a Python handler wait for the main thread; the others end the process whichever thread gets them.
    os.kill(os.getpid(), fault.signal)
    threading.Event().wait()


def _hang(_: Fault) -> None:
    threading.Event().wait()


def _run_out_of_memory(_: Fault) -> NoReturn:
    raise OutOfMemory("Allocation on device 0 would exceed allowed memory. (out of memory)")


def _fail(_: Fault) -> NoReturn:
    raise ValueError("this node was asked to fail")


def _fail_on_gpu() -> NoReturn:
    # Torch's words, in the first and in every later call.
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _fill_disk(_: Fault) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _end_worker(_: Fault) -> NoReturn:
    raise SystemExit(3)


def add_fault_routes(app: web.Application, faults: Faults) -> None:
    """Add the routes of `/lite/faults`."""

    async def arm(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        try:
            fault = Fault(name=body.pop("fault", ""), at=body.pop("at", FaultPoint.NOW), **body)
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error), "faults": sorted(_POINTS)}, status=400)
        faults.arm(fault)
        return web.json_response({"armed": fault.name, "at": fault.at.value})

    async def disarm(_: web.Request) -> web.Response:
        faults.disarm()
        return web.Response(status=200)

    app.router.add_post("/lite/faults", arm)
    app.router.add_delete("/lite/faults", disarm)
