"""Money: what a job costs, estimated from the operator's prices. No IO.

Sums are whole nano-dollars (a thousand millionth of a US dollar), so that adding a million of them loses nothing;
people and the API read dollars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from comfy_serverless.settings import Settings

_NANO = 1_000_000_000
#: The most that a budget may be, in dollars: a sum of such is still exact as JSON's number.
MOST_USD = 1_000_000.0


def nanousd(usd: float) -> int:
    """Dollars as whole nano-dollars."""
    return round(Decimal(repr(usd)) * _NANO)


def usd(amount_nanousd: int) -> float:
    """Nano-dollars as dollars."""
    return float(Decimal(amount_nanousd) / _NANO)


@dataclass(frozen=True, slots=True)
class Prices:
    """What the operator says that jobs cost; a price that is None is not known.

    Attributes:
        per_second: dollars for a second that a worker works on a job.
        per_request: dollars for each job, however long it takes.
    """

    per_second: float | None = None
    per_request: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        per_second, by_memory, memory_mb = (
            settings.usd_per_second,
            settings.usd_per_gb_second,
            settings.worker_memory_mb,
        )
        if per_second is None and by_memory is not None and memory_mb is not None:
            per_second = by_memory * memory_mb / 1024
        return cls(per_second, settings.usd_per_request)

    def cost_nanousd(self, seconds: float) -> int | None:
        """What a job costs that a worker had for so long; None if no price is known."""
        if self.per_second is None and self.per_request is None:
            return None
        return nanousd((self.per_second or 0.0) * max(0.0, seconds) + (self.per_request or 0.0))

    def to_json(self) -> dict[str, Any]:
        """As the API tells them."""
        return {"usd_per_second": self.per_second, "usd_per_request": self.per_request}


def checked_budget(amount_usd: float) -> int:
    """A budget as nano-dollars. Raises ValueError for one that is not above 0, or beyond MOST_USD."""
    if not (math.isfinite(amount_usd) and 0 < amount_usd <= MOST_USD):
        raise ValueError(f"must be a number of US dollars above 0, and at most {MOST_USD:,.0f}")
    return max(1, nanousd(amount_usd))
