"""Moto with what it computes again and again done once. It answers as it does without.

A batch of a thousand jobs asks moto some five thousand things. As it comes, most of the time goes into a few:

- to look through a queue, each message makes a calendar date of now and of 1970, to subtract them;
- to write an item, each attribute is asked for all ten types of DynamoDB, by up to twelve names each;
- to update an item, the expression is parsed twice;
- for each request it looks through a service's class for methods, and as a server through the folder of its services.

Requests of items, queries and transactions: quick_dynamodb.py; the trees of updates: quick_updates.py.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import botocore.utils
from botocore import useragent
from botocore.useragent import UserAgentString
from moto import backends
from moto.core import responses
from moto.core.base_backend import BaseBackend
from moto.core.serialize import BaseJSONSerializer
from moto.core.utils import method_names_from_class
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]  # moto has mypy ignore this file
from moto.s3 import urls as s3_urls
from moto.s3.models import S3Backend
from moto.sqs import models as sqs
from moto.sqs.models import SQSBackend

from local.aws import quick_dynamodb, quick_updates

_EXPRESSIONS: Final = 1024


@contextmanager
def quick_moto() -> Iterator[None]:
    """Moto is quick, and its queues' messages never expire, from `with` to the end of the block."""
    with ExitStack() as patches:
        for owner, name, replacement in (
            # To see whether a message has expired it counts the whole queue, for each message.
            (SQSBackend, "is_message_valid_based_on_retention_period", lambda *_arguments: True),
            (sqs, "unix_time_millis", _unix_time_millis),
            (BaseJSONSerializer, "_serialize_type_structure", _serialize_structure),
            (UpdateExpressionParser, "make", staticmethod(_parse_update)),
            (DynamoType, "cast_value", property(_cast_value)),
            (DynamoType, "__deepcopy__", _copy_value),
            (backends, "list_of_moto_modules", _services),
            (responses, "method_names_from_class", _method_names),
            (S3Backend, "_url_module", s3_urls),
            (BaseBackend, "urls", property(_urls)),
            (botocore.utils, "_parse_timestamp_with_tzinfo", _parse_timestamp),
            (useragent, "sanitize_user_agent_string_component", _sanitize),
            (UserAgentString, "to_string", _user_agent),
            *quick_dynamodb.REPLACEMENTS,
            *quick_updates.REPLACEMENTS,
        ):
            patches.enter_context(patch.object(owner, name, replacement, create=name == "__deepcopy__"))
        yield


def _unix_time_millis() -> float:
    return time.time() * 1000.0


_serialize_any_structure: Final[Callable[..., None]] = BaseJSONSerializer._serialize_type_structure


def _serialize_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:  # noqa: ANN401
    """Write an attribute's value of DynamoDB, which moto keeps as it is sent; anything else as moto does."""
    if key and shape.name == "AttributeValue" and isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if (kind in {"S", "N"} and isinstance(content, str)) or (kind == "BOOL" and isinstance(content, bool)):
            serialized[serializer.get_serialized_name(shape, key)] = {kind: content}
            return
    _serialize_any_structure(serializer, serialized, value, shape, key)


_make_update: Final[Callable[[str], Any]] = UpdateExpressionParser.make


@functools.lru_cache(maxsize=_EXPRESSIONS)
def _parse_update(expression: str) -> Any:  # noqa: ANN401
    """The tree of an expression. Whoever changes it (the validator) copies it first."""
    return _make_update(expression)


#: Types whose values are what they are.
_PLAIN: Final = frozenset({"S", "BOOL"})
_UNCHANGEABLE: Final = frozenset({"S", "N", "BOOL", "NULL"})
_cast_any_value: Final[Callable[[DynamoType], Any]] = vars(DynamoType)["cast_value"].fget
_copy_any_value: Final[Callable[[DynamoType, dict[int, Any]], DynamoType]] = DynamoType.__deepcopy__


def _cast_value(value: DynamoType) -> Any:  # noqa: ANN401
    return value.value if value.type in _PLAIN else _cast_any_value(value)


def _copy_value(value: DynamoType, memo: dict[int, Any]) -> DynamoType:
    """A copy; itself where nobody changes it: moto replaces texts and numbers, and changes lists, maps and sets."""
    return value if value.type in _UNCHANGEABLE else _copy_any_value(value, memo)


_list_services: Final = backends.list_of_moto_modules


@functools.cache
def _services() -> tuple[str, ...]:
    return tuple(_list_services())


_method_names: Final = functools.cache(method_names_from_class)

_sanitize: Final = functools.lru_cache(maxsize=_EXPRESSIONS)(useragent.sanitize_user_agent_string_component)

#: Each request says what its client is, which stays the same.
_user_agent: Final = functools.lru_cache(maxsize=_EXPRESSIONS)(UserAgentString.to_string)

_parse_timestamp: Final = functools.lru_cache(maxsize=_EXPRESSIONS)(
    vars(botocore.utils)["_parse_timestamp_with_tzinfo"]
)

_find_urls: Final[Callable[[BaseBackend], dict[str, Any]]] = vars(BaseBackend)["urls"].fget
_urls_by_kind: Final[dict[type, dict[str, Any]]] = {}


def _urls(backend: BaseBackend) -> dict[str, Any]:
    """The addresses of a service: each of its backends has the same, and S3 reads its module again for each request."""
    kind = type(backend)
    if kind not in _urls_by_kind:
        _urls_by_kind[kind] = _find_urls(backend)
    return _urls_by_kind[kind]
