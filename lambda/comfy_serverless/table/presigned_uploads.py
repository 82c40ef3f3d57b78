"""Uploads that go to S3 itself: the API begins them, the client puts the bytes, and completion checks them.

begin ──► PUT s3://…/uploads/{owner}/{id} ──► complete: hash ──► copy ──► asset {id}

A function has half a minute, so that only small files are read here. S3 copies a large one itself, and computes its
SHA-256 with that. A SHA-256 that was announced is signed into the link: S3 takes no other bytes.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import Self

from botocore.exceptions import ClientError

from comfy_serverless.aws.dynamodb import Item, Update, now_s
from comfy_serverless.aws.s3 import S3Address, Trouble, copy_and_hash, trouble_of
from comfy_serverless.errors import HashMismatch, InvalidRequest, NotFound, UpstreamError
from comfy_serverless.files import UNKNOWN_TYPE
from comfy_serverless.jobs.keys import is_asset_id
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import (
    MAX_READ_BYTES,
    S3_HASH_PREFIX,
    check_hash,
    digest_of,
    is_s3_hash,
    suffix_of,
)
from comfy_serverless.table.assets import AssetStore, Naming

#: How long a presigned upload may take, from its beginning to its completion.
UPLOAD_S = 24 * 3600
_UPLOAD = "upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload that goes to S3 itself, and is completed afterwards.

    Attributes:
        naming: what the asset will be called, of which type it is, and when it ends.
        hash: the hash that was announced; None if none was.
        expires: when it is forgotten, in seconds since 1970.
        asset_id: the asset that it has become; None before.
    """

    id: str
    owner: str
    naming: Naming
    size_bytes: int
    hash: str | None
    expires: int
    asset_id: str | None = None

    @classmethod
    def from_item(cls, upload_id: str, item: Item) -> Self:
        return cls(
            id=upload_id,
            owner=item["owner_name"],
            naming=Naming(
                file_path=item.get("file_path"),
                content_type=item.get("content_type"),
                tags=tuple(item.get("tags", ())),
                expires_in_s=item.get("expires_in_s"),
            ),
            size_bytes=item["size_bytes"],
            hash=item.get("hash"),
            expires=item["expires"],
            asset_id=item.get("asset_id"),
        )

    def to_item(self) -> Item:
        """The item of an upload that has begun; `asset_id` comes with its completion."""
        return {
            "pk": _pk(self.id),
            "sk": _UPLOAD,
            "owner_name": self.owner,
            "file_path": self.naming.file_path,
            "content_type": self.naming.content_type,
            "tags": list(self.naming.tags),
            "expires_in_s": self.naming.expires_in_s,
            "size_bytes": self.size_bytes,
            "hash": self.hash,
            "expires": self.expires,
        }


class UploadStore:
    """The uploads of all owners. Thread-safe."""

    def __init__(self, assets: AssetStore) -> None:
        self._assets = assets
        self._table, self._s3, self._bucket = assets.table, assets.s3, assets.bucket

    def begin(self, owner: str, naming: Naming, *, size_bytes: int, expected: str | None) -> Upload:
        """Write that a file will come."""
        upload = Upload(
            id=str(uuid.uuid4()),
            owner=owner,
            naming=naming,
            size_bytes=size_bytes,
            hash=expected,
            expires=now_s() + UPLOAD_S,
        )
        self._table.put(upload.to_item())
        return upload

    def get(self, owner: str, upload_id: str) -> Upload:
        """An upload that has begun. Raises NotFound if there is none, or if it is another owner's or too old."""
        item = self._table.get(_pk(upload_id), _UPLOAD) if is_asset_id(upload_id) else None
        upload = Upload.from_item(upload_id, item) if item else None
        if upload is None or upload.owner != owner:
            raise NotFound(f"there is no upload {upload_id[:100]!r} of yours; they are kept for a day.")
        return upload

    def address(self, upload: Upload) -> S3Address:
        """Where the bytes of an upload are put."""
        return S3Address(self._bucket, f"uploads/{upload.owner}/{upload.id}")

    def complete(self, upload: Upload) -> Asset:
        """Check the bytes that have come, and make them an asset; a second call returns the first's.

        Raises:
            InvalidRequest: nothing has come, not as much as was announced, or something else meanwhile.
            HashMismatch: the bytes are not those that were announced; they were deleted.
        """
        if upload.asset_id is not None:
            return replace(self._assets.get(upload.owner, upload.asset_id), created_new=False)
        source = self.address(upload)
        try:
            asset = self._take_over(upload, source)
        except ClientError as error:
            trouble = trouble_of(error)
            if trouble is Trouble.OCCUPIED:  # its version is not the one that was looked at
                raise InvalidRequest("other bytes came while these were checked: complete it again.") from error
            if trouble is not Trouble.MISSING:
                raise
            # Nothing has come; or it was completed by another request meanwhile.
            completed = self.get(upload.owner, upload.id)
            if completed.asset_id is None:
                raise InvalidRequest("nothing has come yet: PUT the file to the address of the upload first.") from None
            return replace(self._assets.get(upload.owner, completed.asset_id), created_new=False)
        # What is gone meanwhile stays gone: half of an item, which never expires, could not be read.
        done = Update(pk=_pk(upload.id), sk=_UPLOAD, assign={"asset_id": asset.id}, condition="attribute_exists(pk)")
        self._table.try_update(done)
        self._s3.delete_object(Bucket=source.bucket, Key=source.key)
        return asset

    def _take_over(self, upload: Upload, source: S3Address) -> Asset:
        """Make a blob of the bytes, and a record with the upload's id, so that there is never a second one."""
        arrived = self._s3.head_object(Bucket=source.bucket, Key=source.key)
        size_bytes, version = arrived["ContentLength"], arrived["ETag"]
        if size_bytes != upload.size_bytes:
            raise InvalidRequest(
                f"{size_bytes:,} bytes have come, and {upload.size_bytes:,} were announced: PUT it again."
            )
        if size_bytes > MAX_READ_BYTES:
            return self._adopt(upload, source, version)
        digest = self._read(upload, source, version)

        def put(address: S3Address) -> None:
            self._copy(upload, source, address, version)

        return self._assets.mint_over(
            upload.owner, digest, upload.naming, size_bytes=size_bytes, put=put, asset_id=upload.id
        )

    def _read(self, upload: Upload, source: S3Address, version: str) -> str:
        """Read the bytes; returns their hash."""
        body = self._s3.get_object(Bucket=source.bucket, Key=source.key, IfMatch=version)["Body"]
        sha256 = hashlib.sha256() if is_s3_hash(upload.hash) else None
        digest = digest_of(body, also=sha256)
        self._check(upload, source, f"{S3_HASH_PREFIX}{sha256.hexdigest()}" if sha256 else digest)
        return digest

    def _adopt(self, upload: Upload, source: S3Address, version: str) -> Asset:
        """Have S3 copy the bytes and compute their hash: none of them comes here, and no caller's hash is believed.

        The copy's key is always the same for the same bytes: a call that was cut off leaves it to the next one.
        """
        name = version.strip('"') + suffix_of(upload.naming.file_path)
        copy = S3Address(self._bucket, f"blobs/{upload.owner}/upload-{upload.id}/{name}")
        checksum = self._checksum_of(copy) or self._copy(upload, source, copy, version)
        if not checksum:
            raise UpstreamError("S3 has copied the upload, and not said its SHA-256: complete it again.")
        digest = f"{S3_HASH_PREFIX}{base64.b64decode(checksum).hex()}"
        # A blake3 that an older release has taken cannot be checked: it is not told as the hash either.
        if is_s3_hash(upload.hash):
            self._check(upload, source, digest, copy)
        return self._assets.adopt(
            upload.owner, digest, upload.naming, size_bytes=upload.size_bytes, address=copy, asset_id=upload.id
        )

    def _check(self, upload: Upload, source: S3Address, digest: str, *copies: S3Address) -> None:
        try:
            check_hash(upload.hash, digest)
        except HashMismatch:
            for address in (*copies, source):
                self._s3.delete_object(Bucket=address.bucket, Key=address.key)
            self._table.delete(_pk(upload.id), _UPLOAD)
            raise

    def _checksum_of(self, address: S3Address) -> str | None:
        """The SHA-256 that S3 has computed of an object; None if there is none."""
        try:
            head = self._s3.head_object(Bucket=address.bucket, Key=address.key, ChecksumMode="ENABLED")
        except ClientError as error:
            if trouble_of(error) is not Trouble.MISSING:
                raise
            return None
        return head.get("ChecksumSHA256")

    def _copy(self, upload: Upload, source: S3Address, address: S3Address, version: str) -> str | None:
        """Have S3 copy the bytes; returns their SHA-256, which it computes."""
        # The link is good for a while yet: what was looked at is what is kept.
        content_type = upload.naming.content_type or UNKNOWN_TYPE
        return copy_and_hash(self._s3, source, address, etag=version, content_type=content_type)


def _pk(upload_id: str) -> str:
    return f"upload#{upload_id}"
