"""What a request to the local AWS needs to be allowed: the actions, the ARNs, the keys of items. No IO.

A request that is not understood raises, and enforcement.py denies it: let through, it would hide what the real AWS
requires.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from local.aws.permissions import LEADING_KEYS, Access

#: Actions that go by another name than the operation.
_SQS_ACTIONS: Final = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
_TRANSACTION_ACTIONS: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
    "Get": "GetItem",
}
#: Of the table as a whole: no keys of items.
_TABLE_OPERATIONS: Final = frozenset({"Scan", "DescribeTable", "UpdateTable", "DeleteTable", "CreateTable"})
#: IAM has no resources for them.
_METRICS_OPERATIONS: Final = frozenset({"GetMetricStatistics", "GetMetricData", "ListMetrics", "PutMetricData"})
_CBOR_PATH = re.compile(r"/service/GraniteServiceVersion20100801/operation/(\w+)")
_EQUALITY = re.compile(r"(#?[\w.-]+)\s*=\s*(:\w+)")


class NotClassified(ValueError):
    """A request of which it is not known what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        service: which is asked, by the name in the signature: "s3", "monitoring".
        path: decoded; the query is beside it.
        headers: by their names in lower case.
        body: empty where `needs_body` says that it is not needed.
    """

    service: str
    method: str = "POST"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def operation(self) -> str:
        """Of protocols that name it: "PutItem"."""
        if found := _CBOR_PATH.fullmatch(self.path):
            return found[1]
        return self.headers.get("x-amz-target", "").rpartition(".")[2]

    def document(self) -> dict[str, Any]:
        """The body, of protocols that send JSON."""
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise NotClassified(f"{self.service}:{self.operation} has a body that is no JSON") from error
        if not isinstance(document, dict):
            raise NotClassified(f"{self.service}:{self.operation} has a body that is no JSON object")
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Knows what requests need.

    Attributes:
        hash_keys: the first attribute of the keys, by table and by index: `{"jobs": "pk", "jobs/index/mine": "owner"}`.
    """

    region: str
    account: str
    hash_keys: Mapping[str, str]

    def of(self, request: Request) -> list[Access]:
        """All of what a request needs.

        Raises:
            NotClassified: it is not known.
        """
        known: dict[str, Callable[[Request], list[Access]]] = {
            "dynamodb": self._dynamodb,
            "sqs": self._sqs,
            "ssm": self._ssm,
            "states": _states,
            "monitoring": _metrics,
        }
        if request.service not in known:
            raise NotClassified(f"the service {request.service!r} is not known")
        try:
            return known[request.service](request)
        except (KeyError, TypeError, AttributeError) as error:
            raise NotClassified(f"{request.service}:{request.operation} lacks what names its resource") from error

    def _arn(self, service: str, name: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{name}"

    def _sqs(self, request: Request) -> list[Access]:
        document = request.document()
        name = document["QueueUrl"].rpartition("/")[2] if "QueueUrl" in document else document["QueueName"]
        action = _SQS_ACTIONS.get(request.operation, request.operation)
        return [Access(action=f"sqs:{action}", resource=self._arn("sqs", name))]

    def _ssm(self, request: Request) -> list[Access]:
        document = request.document()
        names = document["Names"] if "Names" in document else [document["Name"]]
        resources = [self._arn("ssm", f"parameter/{name.removeprefix('/')}") for name in names]
        return [Access(action=f"ssm:{request.operation}", resource=resource) for resource in resources]

    def _dynamodb(self, request: Request) -> list[Access]:
        operation, document = request.operation, request.document()
        if operation in {"GetItem", "PutItem", "UpdateItem", "DeleteItem"}:
            return [self._item_access(operation, document)]
        if operation == "Query":
            return [self._query_access(document)]
        if operation in {"TransactWriteItems", "TransactGetItems"}:
            entries = [entry for part in document["TransactItems"] for entry in part.items()]
            return [self._item_access(_TRANSACTION_ACTIONS[kind], entry) for kind, entry in entries]
        if operation in {"BatchWriteItem", "BatchGetItem"}:
            return [self._batch_access(operation, *entry) for entry in document["RequestItems"].items()]
        if operation in _TABLE_OPERATIONS:
            index = f"/index/{document['IndexName']}" if "IndexName" in document else ""
            return [self._table_access(operation, f"{document['TableName']}{index}", ())]
        raise NotClassified(f"dynamodb:{operation} is not known")

    def _table_access(self, operation: str, table: str, keys: Iterable[str]) -> Access:
        leading = tuple(dict.fromkeys(keys))
        return Access(
            action=f"dynamodb:{operation}",
            resource=self._arn("dynamodb", f"table/{table}"),
            context={LEADING_KEYS: leading} if leading else {},
        )

    def _item_access(self, operation: str, entry: Mapping[str, Any]) -> Access:
        table = entry["TableName"]
        return self._table_access(operation, table, [self._leading_key(table, entry)])

    def _batch_access(self, operation: str, table: str, entries: Any) -> Access:  # noqa: ANN401
        if operation == "BatchGetItem":
            keys = [self._leading_key(table, {"Key": key}) for key in entries["Keys"]]
        else:
            keys = [self._leading_key(table, write) for entry in entries for write in entry.values()]
        return self._table_access(operation, table, keys)

    def _leading_key(self, table: str, entry: Mapping[str, Any]) -> str:
        attributes = entry["Item"] if "Item" in entry else entry["Key"]
        return _text(attributes[self.hash_keys[table]])

    def _query_access(self, document: Mapping[str, Any]) -> Access:
        index = f"/index/{document['IndexName']}" if "IndexName" in document else ""
        table = f"{document['TableName']}{index}"
        names, values = document.get("ExpressionAttributeNames", {}), document["ExpressionAttributeValues"]
        equalities = _EQUALITY.findall(document["KeyConditionExpression"])
        keys = [_text(values[value]) for name, value in equalities if names.get(name, name) == self.hash_keys[table]]
        if not keys:
            raise NotClassified(f"dynamodb:Query names no {self.hash_keys[table]}")
        return self._table_access("Query", table, keys)


def _text(value: Mapping[str, str]) -> str:
    """An attribute of a key, which has one type and one value."""
    (text,) = value.values()
    return text


def _states(request: Request) -> list[Access]:
    document = request.document()
    resource = document["stateMachineArn"] if request.operation == "StartExecution" else document["executionArn"]
    return [Access(action=f"states:{request.operation}", resource=resource)]


def _metrics(request: Request) -> list[Access]:
    if request.operation not in _METRICS_OPERATIONS:
        raise NotClassified(f"cloudwatch:{request.operation} is not known")
    return [Access(action=f"cloudwatch:{request.operation}", resource="*")]
