"""Named workflows, read: heads and rows of versions in the table, documents in S3. It writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.s3 import DocumentTooLarge, S3Address, Trouble, read_document, read_problem, trouble_of
from comfy_serverless.errors import AssetUnavailable, InvalidWorkflow, NotFound
from comfy_serverless.observability import log
from comfy_serverless.workflows.items import Head, VersionRow, after_rows, key_of, partition_of, row_sk
from comfy_serverless.workflows.reference import check_name
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: The highest number of a version.
MOST_NUMBER: Final = 999_999
#: Items of one query of a list.
_PAGE: Final = 300


class WorkflowReader:
    """The named workflows of one table, to be read. Thread-safe.

    Owners are those of API keys; "" is the operator. Every method but `look` is about one owner, and sees no other.
    """

    def __init__(self, table: Table, s3: S3Client, bucket: str) -> None:
        self._table = table
        self._s3 = s3
        self._bucket = bucket

    def head(self, owner: str, name: str) -> Head | None:
        """The head of a name, also of a retired one. One read."""
        item = self._table.get(partition_of(owner), check_name(name))
        return None if item is None else Head.from_item(item)

    def heads(self, owner: str, *, after: str = "") -> Iterator[Head]:
        """All heads of an owner, also of retired names, in alphabetical order. Read page by page, as far as one looks.

        Args:
            after: only names behind this one.
        """
        # Many versions of one name are passed over, not read.
        behind = after_rows(after) if after else after_rows("")
        while True:
            values = {"pk": partition_of(owner), "behind": behind}
            page = self._table.query("#pk = :pk AND #sk > :behind", values, limit=_PAGE)
            yield from (Head.from_item(item) for item in page.items if "#" not in item["sk"])
            if page.last_key is None:
                return
            behind = after_rows(page.last_key["sk"].partition("#")[0])

    def versions(self, owner: str, name: str, *, before: int = MOST_NUMBER + 1) -> Iterator[VersionRow]:
        """The versions of a name without their documents, the newest first. Read page by page, as far as one looks.

        Args:
            before: only versions of a lower number.
        """
        check_name(name)
        while True:
            values = {"pk": partition_of(owner), "first": row_sk(name, 0), "last": row_sk(name, before - 1)}
            condition = "#pk = :pk AND #sk BETWEEN :first AND :last"
            page = self._table.query(condition, values, newest_first=True, limit=_PAGE)
            yield from map(VersionRow.from_item, page.items)
            if page.last_key is None:
                return
            before = int(page.last_key["sk"].partition("#")[2])

    def look(self, keys: Sequence[tuple[str, str, int | None]]) -> dict[tuple[str, str, int | None], Head | VersionRow]:
        """Heads, and rows of versions, that are there: by owner, name, and number of the version. One read."""
        wanted = {
            (partition_of(owner), name if number is None else row_sk(name, number)): (owner, name, number)
            for owner, name, number in keys
        }
        return {
            wanted[item["pk"], item["sk"]]: VersionRow.from_item(item) if "#" in item["sk"] else Head.from_item(item)
            for item in self._table.get_all(list(wanted))
        }

    def document(self, owner: str | Head, name: str, number: int) -> Version:
        """A version with all that it has. Raises NotFound, or as `read`.

        Args:
            owner: or the head, if it is at hand: of versions that an alias leads to nothing more is read in the table.
        """
        if isinstance(owner, Head):
            if (sha256 := owner.documents.get(number)) is not None:
                return self.read(owner.owner, name, number, sha256)
            owner = owner.owner
        return self.read(owner, name, number, self.hashes(owner, check_name(name), [number])[number])

    def read(self, owner: str, name: str, number: int, sha256: str) -> Version:
        """The document of a version.

        Raises:
            InvalidWorkflow: it is not there, or is not what was pushed. Its address is in the log: a caller may be
                somebody whom its owner lets run it.
            AssetUnavailable: S3 does not answer.
        """
        address = S3Address(self._bucket, key_of(owner, name, number, sha256))
        source = f"version {number} of the workflow {name!r}"
        try:
            content = read_document(self._s3, address).content
        except (ClientError, BotoCoreError, DocumentTooLarge) as error:
            problem = None if isinstance(error, DocumentTooLarge) else read_problem(error, address)
            reason = problem.reason if problem is not None else "is too large"
            if problem is not None and problem.is_transient:
                log.warning("a named workflow is not read", document=str(address), reason=reason)
                raise AssetUnavailable(f"{source} cannot be read now: S3 does not answer. Try again.") from error
            told = reason if problem is None else _TOLD.get(trouble_of(error), "cannot be read")
            raise _damaged(source, address, reason, told=told) from error
        # A row's hash is whole; that in a head may be the beginning.
        if not hashlib.sha256(content).hexdigest().startswith(sha256):
            other = "is not what was pushed: its SHA-256 is another"
            raise _damaged(source, address, other, told=other)
        return Version.parse(content, source=source)

    def hashes(self, owner: str, name: str, numbers: list[int]) -> dict[int, str]:
        """The hashes of the documents of versions. Raises NotFound if one is not there."""
        found = self.look([(owner, name, number) for number in numbers])
        rows = [row for row in found.values() if isinstance(row, VersionRow)]
        hashes = {row.number: row.sha256 for row in rows}
        if missing := [number for number in numbers if number not in hashes]:
            raise NotFound(f"the workflow {name!r} has no version {missing[0]}.")
        return hashes


#: What a caller is told of a document that is not read: nothing of buckets, keys and roles, which the log has.
_TOLD: Final[Mapping[Trouble, str]] = {
    Trouble.MISSING: "does not exist",
    Trouble.DENIED: "may not be read here (the operator's log says why)",
    Trouble.ARCHIVED: "is archived",
}


def _damaged(source: str, address: S3Address, reason: str, *, told: str) -> InvalidWorkflow:
    log.error("the document of a named workflow is damaged", document=str(address), reason=reason)
    return InvalidWorkflow(
        f"{source} cannot be run: its document {told}. Push the workflow again, or let the alias lead to another "
        "version."
    )
