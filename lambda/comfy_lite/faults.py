"""Failures on demand, so that everything that can happen to a client can be tested. Off without ``--enable-faults``.

``POST /lite/faults {"fault": "crash", "at": "node", "node": "KSampler", "exit_code": 9}`` arms a fault at a point of a
prompt's life, for the next `times` (default 1) prompts that pass it. ``DELETE /lite/faults`` disarms all.

    fault            what happens                                       points
    crash            the process exits with `exit_code` (default 1)     now prompt start node end
    hang             the thread stops for good: at `now` and `prompt`   now prompt start node end
                     the server answers nothing any more, elsewhere
                     the prompt never gets on
    drop_sockets     every websocket is cut without a handshake         now prompt start node end
    mute             no websocket message is sent any more              now prompt start node end
    out_of_memory    the node fails as a full GPU does                  node
    end_worker       HTTP answers on, but nothing runs ever again       start node end
    slow_answers     every HTTP answer takes `seconds` longer           now prompt start node end

    now: at once · prompt: before a prompt is accepted · start: when it starts · node: when `node` starts (an id or a
    class; any without it) · end: after the last node, before the history has it
"""

from __future__ import annotations

import asyncio
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

#: Lets the answer to the request that asked for a fault leave before the fault strikes.
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
    seconds: float = 1.0

    def __post_init__(self) -> None:
        self.at = FaultPoint(self.at)
        if self.name not in _POINTS:
            raise ValueError(f"unknown fault {self.name!r}: one of {', '.join(_POINTS)}")
        if self.at not in _POINTS[self.name]:
            raise ValueError(f"{self.name} cannot strike at {self.at.value!r}")


_ANYWHERE = frozenset(FaultPoint)
_POINTS: Mapping[str, frozenset[FaultPoint]] = {
    "crash": _ANYWHERE,
    "hang": _ANYWHERE,
    "drop_sockets": _ANYWHERE,
    "mute": _ANYWHERE,
    "out_of_memory": frozenset({FaultPoint.NODE}),
    "end_worker": frozenset({FaultPoint.START, FaultPoint.NODE, FaultPoint.END}),
    "slow_answers": _ANYWHERE,
}


class Faults:
    """The armed faults. Does nothing until something is armed; `strike` may be called from any thread."""

    def __init__(self, hub: SocketHub) -> None:
        self.answer_delay_s = 0.0
        self._hub = hub
        self._armed: list[Fault] = []
        self._actions: Mapping[str, Callable[[Fault], None]] = {
            "crash": lambda fault: os._exit(fault.exit_code),
            "hang": _hang,
            "drop_sockets": lambda _: self._hub.drop_all(),
            "mute": self._mute,
            "out_of_memory": _run_out_of_memory,
            "end_worker": _end_worker,
            "slow_answers": self._slow_down,
        }

    def arm(self, fault: Fault) -> None:
        """Arm a fault, or have it strike at once when it is for `now`."""
        if fault.at is FaultPoint.NOW:
            asyncio.get_running_loop().call_later(_NOW_DELAY_S, self._actions[fault.name], fault)
        else:
            self._armed.append(fault)

    def disarm(self) -> None:
        """Forget every armed fault and its lasting effects."""
        self._armed.clear()
        self.answer_delay_s = 0.0
        self._hub.muted = False

    def strike(self, point: FaultPoint, *, node_id: str | None = None, class_type: str | None = None) -> None:
        """Let the faults armed for this point happen."""
        for fault in list(self._armed):
            if fault.at is not point or (fault.node is not None and fault.node not in (node_id, class_type)):
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._armed.remove(fault)
            logger.warning("fault: %s at %s", fault.name, point.value)
            self._actions[fault.name](fault)

    def _mute(self, _: Fault) -> None:
        self._hub.muted = True

    def _slow_down(self, fault: Fault) -> None:
        self.answer_delay_s = fault.seconds


def _hang(_: Fault) -> None:
    threading.Event().wait()


def _run_out_of_memory(_: Fault) -> NoReturn:
    raise OutOfMemory("Allocation on device 0 would exceed allowed memory. (out of memory)")


def _end_worker(_: Fault) -> NoReturn:
    raise SystemExit(3)


def add_fault_routes(app: web.Application, faults: Faults) -> None:
    """Offer `/lite/faults`, and delay answers when asked to."""

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
