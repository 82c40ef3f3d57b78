"""The items of assets, of their bytes and of their names. No IO."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from comfy_serverless.aws.dynamodb import Item, moment_of, now_s, now_text
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.files import UNKNOWN_TYPE
from comfy_serverless.jobs.document import Output
from comfy_serverless.table.columns import ASSET, IDEMPOTENCY_S, KEEPER, KEEPER_DUE, read_columns

#: The sort keys of a record, of bytes, of a name, and of an idempotency key.
RECORD, BLOB, PATH, IDEMPOTENCY = "asset", "blob", "path", "idempotency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A record of a file.

    Attributes:
        address: where its bytes are: bucket and key, as two columns.
        file_path: the name under which workflows find it; None for an upload without one.
        hash: `blake3:<hex>`, or `sha256:<hex>` of a large upload; None for an output of a job.
        expires: in seconds since 1970; None for never. The keeper ends an upload, because of its bytes; DynamoDB ends
            an output (`expires`).
        job_id: the job that has made it; None for uploads.
        tags: what its uploader calls it, to be shown again.
        created_new: whether the bytes came with this record, on creation only; no column.
    """

    id: str
    owner: str
    address: S3Address
    file_path: str | None
    content_type: str
    size_bytes: int
    hash: str | None
    created_at: str
    expires: int | None = None
    job_id: str | None = None
    tags: tuple[str, ...] = ()
    created_new: bool | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the record ends."""
        return None if self.expires is None else moment_of(self.expires)

    @property
    def is_over(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now_s()

    @classmethod
    def of_output(cls, output: Output, *, owner: str, job_id: str, expires: int | None) -> Self:
        """An output as an asset of its job's owner."""
        return cls(
            id=output.id,
            owner=owner,
            address=S3Address.parse(output.s3_uri or ""),
            file_path=output.name,
            content_type=output.content_type,
            size_bytes=output.size_bytes,
            hash=output.hash,
            created_at=now_text(),
            expires=expires,
            job_id=job_id,
        )

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = {"file_path": None, "content_type": UNKNOWN_TYPE, "hash": None, **read_columns(cls, item)}
        columns["address"] = S3Address(item["bucket"], item["key"])
        columns["expires"] = item.get(KEEPER_DUE, item.get("expires"))
        columns["tags"] = tuple(item.get("tags", ()))
        return cls(**columns)

    def to_item(self) -> Item:
        """The record as it is written."""
        is_kept = self.job_id is None and self.expires is not None
        return {
            "pk": asset_pk(self.id),
            "sk": RECORD,
            "id": self.id,
            "owner": self.owner,
            "bucket": self.address.bucket,
            "key": self.address.key,
            "file_path": self.file_path,
            "content_type": self.content_type,
            "size_bytes": self.size_bytes,
            "hash": self.hash,
            "created_at": self.created_at,
            KEEPER: ASSET if is_kept else None,
            KEEPER_DUE: self.expires if is_kept else None,
            "expires": None if is_kept else self.expires,
            "job_id": self.job_id,
            "tags": list(self.tags) or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that an owner has uploaded, once. `references`, how many records there are of them, is counted in place."""

    key: str  # where they are in the assets bucket
    size_bytes: int
    content_type: str = UNKNOWN_TYPE

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    def to_item(self, owner: str, digest: str) -> Item:
        """The bytes with their first record."""
        return {
            "pk": blob_pk(owner, digest),
            "sk": BLOB,
            "key": self.key,
            "size_bytes": self.size_bytes,
            "content_type": self.content_type,
            "references": 1,
        }


def row_item(asset: Asset) -> Item:
    """The item that has an upload in its owner's list."""
    return {"pk": rows_pk(asset.owner), "sk": row_sk(asset), "asset_id": asset.id}


def row_sk(asset: Asset) -> str:
    """Where an upload stands in its owner's list: by the moment it was made."""
    return f"{asset.created_at}#{asset.id}"


def rows_pk(owner: str) -> str:
    """The partition key of an owner's list."""
    return f"assets#{owner}"


def path_item(owner: str, path: str, asset_id: str) -> Item:
    """The item that names the newest asset of a file path."""
    return {"pk": path_pk(owner, path), "sk": PATH, "asset_id": asset_id}


def idempotency_item(owner: str, key: str) -> Item:
    """The item of an upload's idempotency key that was used just now."""
    return {"pk": idempotency_pk(owner, key), "sk": IDEMPOTENCY, "expires": now_s() + IDEMPOTENCY_S}


def asset_pk(asset_id: str) -> str:
    """The partition key of a record."""
    return f"asset#{asset_id}"


def blob_pk(owner: str, digest: str) -> str:
    """The partition key of an owner's bytes."""
    return f"blob#{owner}#{digest}"


def path_pk(owner: str, path: str) -> str:
    """The partition key of a name."""
    return f"path#{owner}#{path}"


def idempotency_pk(owner: str, key: str) -> str:
    """The partition key of an upload's idempotency key."""
    return f"asset_idempotency#{owner}#{key}"
