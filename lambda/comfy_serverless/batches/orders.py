"""Orders to `ingest`: what it must do with a batch. They are messages of its own queue, or the state machine's input.

{"batch": "id"}                                  advance it: find how far it is, and report what has ended
{"batch": "id", "start": 0}                      read the range of its manifest that begins there
{"batch": "id", "start": 0, "resume": true}      send again what was parked, from that line on
{"batch": "id", "starts": [0, …]}                of the state machine: read all these ranges
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order.

    Attributes:
        start: where a range or a line begins, in bytes; None for the batch as a whole.
        is_resume: whether parked jobs must be sent again.
    """

    batch_id: str
    start: int | None = None
    is_resume: bool = False

    def to_text(self) -> str:
        """The order as it is sent."""
        order: dict[str, Any] = {"batch": self.batch_id}
        if self.is_resume:
            order["resume"] = True
        if self.start is not None:
            order["start"] = self.start
        return json.dumps(order)

    @classmethod
    def parse(cls, body: object) -> Self | None:
        """Read an order; None if it is none. Further fields are ignored."""
        match body:
            case {"batch": str(batch_id), "resume": True, "start": int(start)}:
                return cls(batch_id=batch_id, start=start, is_resume=True)
            case {"batch": str(batch_id), "start": int(start)}:
                return cls(batch_id=batch_id, start=start)
            case {"batch": str(batch_id)}:
                return cls(batch_id=batch_id)
        return None


def machine_input(batch_id: str, starts: Sequence[int]) -> str:
    """The input of the state machine, which makes an order of each start."""
    return json.dumps({"batch": batch_id, "starts": list(starts)})
