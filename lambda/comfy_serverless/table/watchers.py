"""Which places of an owner's watchers are taken: so that one owner does not take those of all.

    pk rate#watch#{owner}   sk {place}   until: when it is free whatever happens, watcher: whose it is

A watcher keeps its place until it leaves, or until its stream must have ended: a process that is lost keeps none.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from typing import Final

from comfy_serverless.aws.dynamodb import Table, Update, now_s

#: How long the item of a place is kept after its watcher, in seconds.
_KEPT_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Place:
    """A place that a watcher has."""

    owner: str
    number: int
    watcher: str


@dataclass(frozen=True, slots=True)
class WatcherPlaces:
    """The places in one table.

    Attributes:
        each: how many an owner has.
    """

    table: Table
    each: int

    def take(self, owner: str, *, for_s: float) -> Place | None:
        """Take a place for so many seconds at most; None if all are taken. One write, and one for each taken place."""
        now, watcher = now_s(), uuid.uuid4().hex
        until = now + max(1, round(for_s))
        first = secrets.randbelow(self.each)  # so that few look at the same places in the same order
        for step in range(self.each):
            number = (first + step) % self.each
            change = Update(
                pk=_pk(owner),
                sk=str(number),
                assign={"until": until, "watcher": watcher, "expires": until + _KEPT_S},
                condition="attribute_not_exists(pk) OR #until <= :now",
                values={"now": now},
            )
            if self.table.try_update(change):
                return Place(owner, number, watcher)
        return None

    def leave(self, place: Place) -> None:
        """Give a place back; nothing happens if it is another watcher's by now. One write."""
        self.table.try_update(
            Update(
                pk=_pk(place.owner),
                sk=str(place.number),
                assign={"until": 0},
                condition="#watcher = :watcher",
                values={"watcher": place.watcher},
            )
        )


def _pk(owner: str) -> str:
    return f"rate#watch#{owner}"
