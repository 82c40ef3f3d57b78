"""The places in our buckets that are the API's: no other request may name them, to read or to write. No IO.

The API knows whose a file is. Whoever drops an object, sends a message or invokes a worker has a role of the operator's
account, and no owner: for all of them these places are closed, whatever their role would let the worker do.

    assets bucket     all of it: uploads, requests, copies of manifests, the list of nodes
    output bucket     owners/, below OUTPUT_PREFIX and, from a time before that was set, at the top
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.file_inputs import as_address, is_address, scheme_of
from comfy_serverless.jobs.keys import folder_prefix, keys_of

if TYPE_CHECKING:
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings

_OWNERS = "owners"
#: What stands in every address in S3, however it is written: most texts of a workflow need no closer look.
_S3 = re.compile("s3:", re.IGNORECASE)
#: The types of values that hold no others: most of a workflow, and quicker to tell than by `isinstance`.
_PLAIN = frozenset({str, int, float, bool, type(None)})


def owner_prefix(owner: str, settings: Settings) -> str:
    """The prefix of an owner's results."""
    return f"{folder_prefix(settings.output_prefix)}{owner_place(owner)}"


def owner_place(owner: str) -> str:
    """The end of that prefix, which is the same whatever OUTPUT_PREFIX is."""
    return f"{_OWNERS}/{owner}"


def everything_in(value: object) -> Iterator[object]:
    """A value and all that is in it."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        if type(item) in _PLAIN:
            continue
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)


def addresses_in(document: object, buckets: Collection[str | None]) -> Iterator[tuple[str, str, str]]:
    """The addresses in a document that are in one of the buckets, as they are meant, each with its bucket and key."""
    for value in everything_in(document):
        if type(value) is not str or _S3.search(value) is None:
            continue
        if scheme_of(address := as_address(value)) == "s3" and is_address(address):
            bucket, _, key = address[len("s3://") :].partition("/")
            if bucket in buckets:
                yield address, bucket, key


def is_devious(key: str) -> bool:
    """Whether some client on the way could take a key for another one; none of ours is like that."""
    return any(part in {"", ".", ".."} for part in key.split("/"))


@dataclass(frozen=True, slots=True)
class Reserved:
    """Those places of a deployment."""

    settings: Settings
    assets_bucket: str | None
    output_bucket: str | None
    folders: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The places, by the settings."""
        folders = (f"{folder_prefix(settings.output_prefix)}{_OWNERS}/", f"{_OWNERS}/")
        return cls(settings, settings.assets_bucket, settings.output_bucket, folders)

    def check(self, request: JobRequest, *, job_id: str) -> None:
        """Raise InvalidRequest if a request that does not come from the API names such a place."""
        named = request.output.bucket or self.output_bucket
        # The second is where the outcome goes if the named bucket refuses it.
        for bucket, output in ((named, request.output), (self.output_bucket, None)):
            key = keys_of(job_id, output, self.settings).result_key
            if bucket is not None and self._has(bucket, key):
                raise InvalidRequest(
                    f"results cannot go to s3://{bucket}/{key}: that place is the API's. Choose another "
                    "`output.prefix`, or another job_id."
                )
        urls = [model.url for model in request.models]
        self.check_addresses((request.workflow, request.values, request.inputs, urls))

    def check_addresses(self, document: object) -> None:
        """Raise InvalidRequest if a document, or a workflow, has an address in such a place."""
        for address, bucket, key in addresses_in(document, (self.assets_bucket, self.output_bucket)):
            if is_devious(key) or self._has(bucket, key):
                raise InvalidRequest(
                    f"{address[:200]} cannot be used here: files of the API are for the API's requests. Copy it to a "
                    "bucket or folder of your own."
                )

    def _has(self, bucket: str, key: str) -> bool:
        return bucket == self.assets_bucket or (bucket == self.output_bucket and key.startswith(self.folders))
