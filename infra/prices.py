"""What a second of a worker costs, where we know it: a job's `cost_usd` is estimated with it (docs/usage.md).

Prices of us-east-1 on demand, as far as we know them (November 2026); AWS's price pages decide.
"""

from __future__ import annotations

from infra.settings import GpuSettings

#: Of SageMaker's instances, and of EC2's, in dollars for an hour.
_HOURLY_USD = {
    "ml.g6.xlarge": 1.127,
    "ml.g6.2xlarge": 1.222,
    "ml.g5.xlarge": 1.408,
    "g6.2xlarge": 0.978,
    "g6.4xlarge": 1.323,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
}
#: What Lambda takes on top of EC2's price.
_MANAGED = 1.15
#: Of functions on processors, by memory and by request.
_USD_PER_GB_SECOND, _USD_PER_REQUEST = 0.0000166667, 0.0000002


def of_instances(settings: GpuSettings, types: tuple[str, ...]) -> dict[str, str]:
    """The worker's variables for the price of the first of these types, on which one job executes at a time."""
    first = types[0]
    hourly = _HOURLY_USD.get(first)
    if hourly is not None and not first.startswith("ml."):
        hourly *= _MANAGED
    return _variables(settings, None if hourly is None else hourly / 3600)


def of_memory(settings: GpuSettings, memory_mb: int) -> dict[str, str]:
    """The worker's variables for the price of a function on processors."""
    return _variables(settings, memory_mb / 1024 * _USD_PER_GB_SECOND, _USD_PER_REQUEST)


def _variables(settings: GpuSettings, usd_per_second: float | None, usd_per_request: float = 0.0) -> dict[str, str]:
    """What has been chosen goes first; what is not known is not set."""
    chosen = settings.usd_per_second if settings.usd_per_second is not None else usd_per_second
    known = {"USD_PER_SECOND": chosen, "USD_PER_REQUEST": usd_per_request or None}
    given = {word.partition("=")[0] for word in settings.more_settings.split()}
    return {name: f"{price:.10f}" for name, price in known.items() if price is not None and name not in given}
