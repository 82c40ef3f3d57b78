"""Pages of lists: `limit` and `cursor` of a request, `next_cursor` of an answer.

A cursor says where the page before has ended, and is made up as easily as any other text: what is not one of ours is
refused, and what looks like ours shows its caller nothing that another page would not.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any

from aws_lambda_powertools.event_handler.openapi.params import Query

from comfy_serverless.errors import InvalidCursor

#: The parameter of every list.
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
#: Where a page of an index of the table ends: a moment, and the id of what was made then.
CREATED_ID = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z#[A-Za-z0-9_-]{1,64}"
_CREATED_ID = re.compile(CREATED_ID)
_MAX_CURSOR_CHARACTERS = 300


def page_of(name: str, entries: Sequence[object], next_cursor: str | None) -> dict[str, Any]:
    """A page as it is sent: its entries by this name, and `next_cursor` unless it is the last."""
    return {name: entries, **({"next_cursor": next_cursor} if next_cursor else {})}


def write_cursor(text: str) -> str:
    """Where a page has ended, as an opaque text for an address."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_text(cursor: str) -> str:
    """What `write_cursor` made a cursor of; "" if it is none."""
    padded = cursor[:_MAX_CURSOR_CHARACTERS] + "=" * (-len(cursor) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def read_cursor(cursor: str | None) -> str | None:
    """Where the page before has ended in an index of the table. Raises InvalidCursor."""
    if cursor is None:
        return None
    if not _CREATED_ID.fullmatch(text := cursor_text(cursor)):
        raise bad_cursor()
    return text


def checked_cursor(cursor: str | None, form: re.Pattern[str]) -> str | None:
    """A cursor that is no opaque text, but has this form: a number, or a name. Raises InvalidCursor."""
    if cursor is not None and not form.fullmatch(cursor):
        raise bad_cursor()
    return cursor


def bad_cursor(field: str = "next_cursor") -> InvalidCursor:
    """The refusal of a cursor. `field`: where the answer before has it."""
    return InvalidCursor(f"the cursor is not one of ours; send the `{field}` of the page before, unchanged.")
