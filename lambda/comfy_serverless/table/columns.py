"""From a dataclass to an item of the table and back: a field is a column.

An item may have been written by an older release, or by a newer one: what is missing has its field's default, and what
is unknown is ignored, and stays, since items are changed attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from comfy_serverless.aws.dynamodb import Item

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SAME: Mapping[str, str] = {}


def read_columns(cls: type[DataclassInstance], item: Item, *, stored: Mapping[str, str] = _SAME) -> dict[str, Any]:
    """What an item has of the fields of a class.

    Args:
        stored: what attributes are called whose names are not those of their fields.
    """
    names = ((column.name, stored.get(column.name, column.name)) for column in fields(cls))
    return {name: item[attribute] for name, attribute in names if attribute in item}


def write_columns(
    value: DataclassInstance, *, of: type[DataclassInstance] | None = None, stored: Mapping[str, str] = _SAME
) -> Item:
    """The fields that are not at their default, as attributes.

    Args:
        of: the class whose fields are the columns, where the value is of a subclass.
    """
    found = ((column, getattr(value, column.name)) for column in fields(of or value))
    return {stored.get(column.name, column.name): one for column, one in found if one != column.default}
