"""What must be nowhere in a template: nulls, which CloudFormation refuses, and what is paid for and read by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where there is a null: `/Resources/X/Properties/Y/0`."""
    match value:
        case None:
            yield path
        case dict():
            for name, entry in value.items():
                yield from nulls(entry, f"{path}/{name}")
        case list():
            for index, entry in enumerate(value):
                yield from nulls(entry, f"{path}/{index}")


#: Settings of AWS's services that make figures, traces or copies, each paid for, and what they are while off.
PAID_EXTRAS: Final[dict[str, tuple[Any, ...]]] = {
    "DetailedMetricsEnabled": (False, "false"),  # of routes of an HTTP API
    "MetricsEnabled": (False, "false"),  # of methods of a REST API
    "DataTraceEnabled": (False, "false"),
    "TracingEnabled": (False, "false"),
    "TracingConfig": ({"Mode": "PassThrough"},),
    "TracingConfiguration": ({"Enabled": False},),
    "MetricsConfig": (),  # of event source mappings
    "MetricsConfigurations": (),  # requests of a bucket
    "AnalyticsConfigurations": (),
    "InventoryConfigurations": (),
    "IntelligentTieringConfigurations": (),
    "ContributorInsightsSpecification": ({"Enabled": False},),
    "KinesisStreamSpecification": (),
    "StreamSpecification": (),
    "DataCaptureConfig": (),  # of an endpoint
    "EnableEnhancedMetrics": (False,),
    "ProvisionedConcurrencyConfig": (),
}


def paid_extras(value: Any, path: str = "") -> Iterator[str]:
    """Where something of that is switched on."""
    match value:
        case dict():
            for name, entry in value.items():
                if name in PAID_EXTRAS and entry not in PAID_EXTRAS[name]:
                    yield f"{path}/{name}"
                yield from paid_extras(entry, f"{path}/{name}")
        case list():
            for index, entry in enumerate(value):
                yield from paid_extras(entry, f"{path}/{index}")
