"""Assets: records of files. The bytes of uploads are blobs in S3, each content once for each owner, with a count.

    asset ──► blob (references: 2) ──► s3://…/blobs/{owner}/{hash}/{random}.png
    asset ──┘

Owners share nothing. The key of a blob has a random part: deleting its last record deletes these bytes, and never those
that another request uploads anew at the same moment.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from comfy_serverless.aws.dynamodb import (
    NOT_THERE,
    ConditionFailed,
    Table,
    Update,
    delete_write,
    not_there,
    now_s,
    now_text,
    put_write,
    update_write,
)
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import AssetInUse, BlobNotFound, NotFound
from comfy_serverless.files import UNKNOWN_TYPE
from comfy_serverless.jobs.keys import is_asset_id
from comfy_serverless.observability import Failures
from comfy_serverless.table.asset_item import (
    BLOB,
    IDEMPOTENCY,
    PATH,
    RECORD,
    Asset,
    Blob,
    asset_pk,
    blob_pk,
    idempotency_item,
    idempotency_pk,
    path_item,
    path_pk,
    row_item,
    row_sk,
    rows_pk,
)
from comfy_serverless.table.asset_names import HASH_PREFIX, hash_named, is_path, suffix_of
from comfy_serverless.table.columns import ASSET, KEEPER, KEEPER_DUE, neglected

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 5
#: Which of the writes of `_mint` is the record.
_OF_RECORD = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The caller's description of a file: without a type, that of the bytes counts; without an expiry, it is kept."""

    file_path: str | None
    content_type: str | None = None
    tags: tuple[str, ...] = ()
    expires_in_s: int | None = None


class AssetStore:
    """The assets of all owners. Thread-safe."""

    def __init__(self, table: Table, s3: S3Client, *, bucket: str) -> None:
        self.table = table
        self.s3 = s3
        self.bucket = bucket

    def get(self, owner: str, asset_id: str) -> Asset:
        """A record. Raises NotFound if there is none, it has expired, or it is another owner's."""
        item = self.table.get(asset_pk(asset_id), RECORD) if is_asset_id(asset_id) else None
        asset = Asset.from_item(item) if item else None
        if asset is None or asset.owner != owner or asset.is_over:
            raise NotFound(f"there is no asset {asset_id[:100]!r} of yours.")
        return asset

    def has_blob(self, owner: str, digest: str) -> bool:
        """Whether the owner has bytes with this hash (see `digest_in`)."""
        return self._blob(owner, digest) is not None

    def store(self, owner: str, content: BinaryIO, digest: str, naming: Naming) -> Asset:
        """Keep bytes with this hash, unless the owner has them already, and make a record of them."""
        size_bytes = content.seek(0, 2)

        def put(address: S3Address) -> None:
            content.seek(0)
            self.s3.put_object(Bucket=address.bucket, Key=address.key, Body=content, ContentType=_type(naming))

        return self.mint_over(owner, digest, naming, size_bytes=size_bytes, put=put)

    def mint_over(
        self,
        owner: str,
        digest: str,
        naming: Naming,
        *,
        size_bytes: int,
        put: Callable[[S3Address], None],
        asset_id: str | None = None,
    ) -> Asset:
        """Make a record of bytes that are stored, or that `put` stores: the first of several callers stores them.

        If there is a record with the `asset_id` already, that one is returned.
        """
        asset_id = asset_id or str(uuid.uuid4())
        for _ in range(_ATTEMPTS):
            blob = self._blob(owner, digest)
            if blob is not None:
                try:
                    return self._mint(owner, digest, naming, blob=blob, is_new=False, asset_id=asset_id)
                except ConditionFailed as failure:
                    if failure.index == _OF_RECORD:
                        return replace(self.get(owner, asset_id), created_new=False)
                continue  # its last record was deleted just now
            key = f"blobs/{owner}/{digest}/{uuid.uuid4().hex}{suffix_of(naming.file_path)}"
            address = S3Address(self.bucket, key)
            put(address)
            fresh = Blob(key=key, size_bytes=size_bytes, content_type=_type(naming))
            try:
                return self._mint(owner, digest, naming, blob=fresh, is_new=True, asset_id=asset_id)
            except ConditionFailed:  # another request has uploaded the same
                self.s3.delete_object(Bucket=address.bucket, Key=address.key)
        raise TimeoutError("the same file is uploaded and deleted all the time")

    def adopt(
        self, owner: str, digest: str, naming: Naming, *, size_bytes: int, address: S3Address, asset_id: str
    ) -> Asset:
        """Make a record of bytes that are in their place already; they are deleted if the owner has the same.

        If there is a record with the `asset_id` already, that one is returned.
        """
        fresh = Blob(key=address.key, size_bytes=size_bytes, content_type=_type(naming))
        for _ in range(_ATTEMPTS):
            standing = self._blob(owner, digest)
            is_new = standing is None
            try:
                asset = self._mint(owner, digest, naming, blob=standing or fresh, is_new=is_new, asset_id=asset_id)
            except ConditionFailed as failure:
                if failure.index != _OF_RECORD:
                    continue  # another request was faster: with the same bytes, or with the deletion of the last record
                asset = replace(self.get(owner, asset_id), created_new=False)
            if asset.address != address:
                self.s3.delete_object(Bucket=address.bucket, Key=address.key)
            return asset
        raise TimeoutError("the same file is uploaded and deleted all the time")

    def mint_from_hash(self, owner: str, digest: str, naming: Naming) -> tuple[Asset, bool]:
        """Make a record of bytes that the owner has, or return the same one again, with the longer life of the two.

        Returns also whether the record existed already. Raises BlobNotFound if the owner has no such bytes.
        """
        if (same := self._same_reference(owner, digest, naming)) is not None:
            return replace(same, created_new=False), True
        blob = self._blob(owner, digest)
        if blob is not None:
            with contextlib.suppress(ConditionFailed):
                asset_id = str(uuid.uuid4())
                return self._mint(owner, digest, naming, blob=blob, is_new=False, asset_id=asset_id), False
        raise BlobNotFound(f"you have uploaded no file with the hash {hash_named(digest)}.")

    def delete(self, owner: str, asset_id: str) -> None:
        """Delete a record, and the bytes with the last record of them.

        Raises NotFound if this owner has none, and AssetInUse if it is a job's output, which goes with the job.
        """
        asset = self.get(owner, asset_id)
        if asset.job_id is not None or asset.hash is None:
            # By the contract, callers do not learn what depends on it.
            raise AssetInUse("this record is still needed; it goes by itself when it is not.")
        try:
            self._remove(asset, asset.hash, condition="attribute_exists(pk)")
        except ConditionFailed:
            raise NotFound(f"there is no asset {asset_id[:100]!r} of yours.") from None

    def remove_expired(self, *, limit: int) -> int:
        """Delete expired records, with bytes that have no other record; returns how many.

        TTL would delete the records only, without counting them out of their blobs. If one of them fails, its exception
        is raised after the others are removed.
        """
        count = 0
        with Failures() as failures:
            for asset in map(Asset.from_item, neglected(self.table, ASSET, limit=limit)):
                with (
                    failures.logged("an expired asset could not be removed", asset_id=asset.id),
                    contextlib.suppress(ConditionFailed),  # its life was prolonged just now, or it was deleted
                ):
                    condition, values = f"#{KEEPER_DUE} = :seen", {"seen": asset.expires}
                    self._remove(asset, str(asset.hash), condition=condition, values=values)
                    count += 1
        return count

    def _remove(
        self, asset: Asset, asset_hash: str, *, condition: str, values: Mapping[str, object] | None = None
    ) -> None:
        owner, asset_id = asset.owner, asset.id
        digest = asset_hash.removeprefix(HASH_PREFIX)
        one_less = Update(
            pk=blob_pk(owner, digest), sk=BLOB, assign={}, add={"references": -1}, condition="attribute_exists(pk)"
        )
        self.table.transact(
            [
                delete_write(asset_pk(asset_id), RECORD, condition=condition, values=values),
                update_write(one_less),
                delete_write(rows_pk(owner), row_sk(asset)),
            ]
        )
        if asset.file_path is not None:
            with contextlib.suppress(ConditionFailed):  # another asset has the name by now
                self.table.delete(
                    path_pk(owner, asset.file_path), PATH, condition="#asset_id = :id", values={"id": asset_id}
                )
        with contextlib.suppress(ConditionFailed):  # others refer to it
            blob = self.table.delete(blob_pk(owner, digest), BLOB, condition="#references < :one", values={"one": 1})
            if blob is not None:
                self.s3.delete_object(Bucket=self.bucket, Key=Blob.from_item(blob).key)

    def page(self, owner: str, *, limit: int, before: str | None) -> tuple[list[Asset], str | None]:
        """Uploads of an owner, newest first, and where the next page begins; None at the end.

        Those that older releases took are in no list. What was deleted just now makes a page shorter.
        """
        rows = self.table.query(
            "#pk = :pk AND #sk < :before",
            {"pk": rows_pk(owner), "before": before or "~"},
            newest_first=True,
            limit=limit + 1,
        ).items
        wanted = [str(row["asset_id"]) for row in rows[:limit]]
        items = self.table.get_all([(asset_pk(asset_id), RECORD) for asset_id in wanted]) if wanted else []
        found = {asset.id: asset for asset in map(Asset.from_item, items) if asset.owner == owner and not asset.is_over}
        end = str(rows[limit - 1]["sk"]) if len(rows) > limit else None
        return [found[asset_id] for asset_id in wanted if asset_id in found], end

    def by_paths(self, owner: str, paths: Iterable[str]) -> dict[str, Asset]:
        """The newest assets of these file names."""
        found: dict[str, Asset] = {}
        for path in dict.fromkeys(filter(is_path, paths)):
            item = self.table.get(path_pk(owner, path), PATH)
            if item is not None:
                with contextlib.suppress(NotFound):
                    found[path] = self.get(owner, item["asset_id"])
        return found

    # Idempotency keys of uploads.

    def claim_key(self, owner: str, key: str) -> bool:
        """Use a key for a day; returns False if it has been used."""
        try:
            self.table.put(idempotency_item(owner, key), condition=NOT_THERE, values=not_there())
        except ConditionFailed:
            return False
        return True

    def release_key(self, owner: str, key: str) -> None:
        """Let a key be used again, because the request has failed."""
        self.table.delete(idempotency_pk(owner, key), IDEMPOTENCY)

    def _mint(self, owner: str, digest: str, naming: Naming, *, blob: Blob, is_new: bool, asset_id: str) -> Asset:
        lives_s = naming.expires_in_s
        asset = Asset(
            id=asset_id,
            owner=owner,
            address=S3Address(self.bucket, blob.key),
            file_path=naming.file_path,
            content_type=naming.content_type or blob.content_type,
            size_bytes=blob.size_bytes,
            hash=hash_named(digest),
            created_at=now_text(),
            expires=None if lives_s is None else now_s() + lives_s,
            tags=naming.tags,
            created_new=is_new,
        )
        if is_new:
            counted = put_write(blob.to_item(owner, digest), condition="attribute_not_exists(pk)")
        else:
            counted = update_write(
                Update(
                    pk=blob_pk(owner, digest),
                    sk=BLOB,
                    assign={},
                    add={"references": 1},
                    condition="#key = :key",  # and no newer bytes, at another place
                    values={"key": blob.key},
                )
            )
        record = put_write(asset.to_item(), condition="attribute_not_exists(pk)")
        writes = [counted, record, put_write(row_item(asset))]
        if naming.file_path is not None:
            writes.append(put_write(path_item(owner, naming.file_path, asset_id)))
        self.table.transact(writes)
        return asset

    def _blob(self, owner: str, digest: str) -> Blob | None:
        item = self.table.get(blob_pk(owner, digest), BLOB)
        return Blob.from_item(item) if item else None

    def _same_reference(self, owner: str, digest: str, naming: Naming) -> Asset | None:
        if naming.file_path is None:
            return None
        same = self.by_paths(owner, [naming.file_path]).get(naming.file_path)
        if same is None or same.hash != hash_named(digest):
            return None
        if same.expires is None:
            return same
        if naming.expires_in_s is None:
            change = Update(
                pk=asset_pk(same.id),
                sk=RECORD,
                assign={},
                remove=[KEEPER, KEEPER_DUE],
                condition="attribute_exists(pk)",
            )
        else:
            later = now_s() + naming.expires_in_s
            change = Update(
                pk=asset_pk(same.id),
                sk=RECORD,
                assign={KEEPER_DUE: later},
                condition=f"#{KEEPER_DUE} < :later",
                values={"later": later},
            )
        with contextlib.suppress(ConditionFailed):  # it lives longer than that, or has just been deleted
            return Asset.from_item(self.table.update(change))
        with contextlib.suppress(NotFound):
            return self.get(owner, same.id)
        return None


def _type(naming: Naming) -> str:
    return naming.content_type or UNKNOWN_TYPE
