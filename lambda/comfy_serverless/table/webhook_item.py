"""The item of a job's webhook. No IO.

It is not in the job's item: whoever may change that one gets it back whole, and custom nodes run with a role that may.
Only the roles of the API, which writes it, and of `webhooks`, which reads it, reach this key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from comfy_serverless.aws.dynamodb import Item
from comfy_serverless.table.columns import read_columns, write_columns

#: The sort key of a webhook.
WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where the end of a job must be reported.

    Attributes:
        url: the receiver's address, which may hold a secret too.
        secret: what calls are signed with; "" if they are not.
    """

    url: str
    secret: str = field(default="", repr=False)

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    @classmethod
    def of_older_release(cls, column: Mapping[str, str] | None) -> Self | None:
        """The one that an older release wrote into the job's item; None if there is none in it."""
        return cls(url=column["url"], secret=column.get("secret", "")) if column else None

    def to_item(self, job_id: str, *, expires: int | None) -> Item:
        """The item as it is written: it ends with its job."""
        return {"pk": webhook_pk(job_id), "sk": WEBHOOK, **write_columns(self), "expires": expires}


def webhook_pk(job_id: str) -> str:
    """The partition key of a job's webhook."""
    return f"webhook#{job_id}"
