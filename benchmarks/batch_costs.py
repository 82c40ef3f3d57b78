"""The costs of a batch's calls on AWS: counted as they are made, priced as AWS charges them.

Prices are those of us-east-1, in dollars, as of November 2026; other regions charge some percent more. Look yours up
before you believe a figure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.model import OperationModel

#: Dollars for one unit or one request.
WRITE_UNIT, READ_UNIT = 0.625e-6, 0.125e-6
QUEUE_REQUEST = 0.40e-6
S3_PUT, S3_GET = 5.0e-6, 0.40e-6
LAMBDA_GB_S = 0.0000166667
#: The ingest function's memory, in GB: one processor.
INGEST_GB = 1769 / 1024
#: Attributes that put an item into an index of the jobs table: each such index is written as well.
INDEX_ATTRIBUTES = ("owner", "open_owner", "lease")
_WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})


@dataclass(slots=True)
class Counted:
    """Counts calls by service and operation, and the table's units."""

    calls: Counter[str] = field(default_factory=Counter)
    write_units: int = 0
    read_units: float = 0.0

    def see(self, service: str, operation: str, request: Mapping[str, Any]) -> None:
        """Count one call."""
        self.calls[f"{service}:{operation}"] += 1
        if service != "dynamodb":
            return
        if operation in _WRITES:
            self.write_units += write_units(request)
        elif operation == "TransactWriteItems":
            self.write_units += sum(2 * write_units(next(iter(one.values()))) for one in request["TransactItems"])
        elif operation == "BatchWriteItem":
            puts = [one for table in request["RequestItems"].values() for one in table]
            self.write_units += sum(write_units(next(iter(one.values()))) for one in puts)
        else:
            self.read_units += 1


def write_units(request: Mapping[str, Any]) -> int:
    """One unit per started kilobyte of the item, in the table and in each of its indexes."""
    item = request.get("Item")
    if item is None:  # an update: our items are smaller than a kilobyte, and it may change every index
        return 1 + len(INDEX_ATTRIBUTES)
    kilobytes = math.ceil(len(str(item)) / 1024)
    return kilobytes * (1 + sum(name in item for name in INDEX_ATTRIBUTES))


def counted_calls() -> Counted:
    """Count the calls of all clients that this process makes from now on."""
    counted = Counted()

    def see(params: Mapping[str, Any], model: OperationModel, **_: object) -> None:
        counted.see(model.service_model.service_name, model.name, params)

    boto3.setup_default_session()
    assert boto3.DEFAULT_SESSION is not None
    boto3.DEFAULT_SESSION.events.register("provide-client-params", see)
    return counted


def dollars_by_kind(counted: Counted, *, processor_s: float) -> dict[str, float]:
    """The dollars, by what they are paid for."""
    calls = counted.calls
    queue = sum(count for name, count in calls.items() if name.startswith("sqs:"))
    puts = sum(calls[f"s3:{name}"] for name in ("PutObject", "CopyObject"))
    gets = sum(calls[f"s3:{name}"] for name in ("GetObject", "HeadObject"))
    return {
        f"table, {counted.write_units:,} writes": counted.write_units * WRITE_UNIT,
        f"table, {counted.read_units:,.0f} reads": counted.read_units * READ_UNIT,
        f"queue, {queue:,} requests": queue * QUEUE_REQUEST,
        f"S3, {puts + gets:,} requests": puts * S3_PUT + gets * S3_GET,
        "function, processor time": processor_s * INGEST_GB * LAMBDA_GB_S,
    }
