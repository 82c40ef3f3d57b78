"""Assets: records of files. The bytes of uploads are blobs in S3, each content once for each owner, with a count.

    asset ──► blob (references: 2) ──► s3://…/blobs/{owner}/{hash}/{random}.png
    asset ──┘

Nothing is shared between owners. The key of a blob has a random part: whoever deletes the last record of it deletes
these bytes, and never those that somebody uploads anew at the same moment.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from blake3 import blake3

from comfy_serverless.errors import AssetInUse, BlobNotFound, HashMismatch, InvalidRequest, NotFound
from comfy_serverless.jobs.s3 import S3Address
from comfy_serverless.jobs.store.table import (
    ConditionFailed,
    Item,
    Table,
    Update,
    delete_write,
    moment_of,
    now_s,
    now_text,
    put_write,
    update_write,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HASH_PREFIX = "blake3:"
#: How long a presigned upload may take, from its beginning to its completion.
UPLOAD_S = 24 * 3600
MAX_PATH_CHARACTERS = 512
_CHUNK_BYTES = 1 << 20
_HASH = re.compile(r"blake3:([0-9a-f]{64})")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
_ATTEMPTS = 5


class Readable(Protocol):
    """Bytes that come one after the other."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A record of a file.

    Attributes:
        hash: `blake3:<hex>`; None for what a job has made.
        expires: in seconds since 1970; None for never.
        job_id: which job has made it; None for uploads.
        created_new: whether the bytes came with this record, on creation only.
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
    created_new: bool | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the record ends."""
        return None if self.expires is None else moment_of(self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What the caller says of a file.

    Attributes:
        expires_in_s: how long to keep it; None for ever.
    """

    file_path: str | None
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload that goes to S3 itself, and is completed afterwards."""

    id: str
    owner: str
    naming: Naming
    size_bytes: int
    hash: str | None
    expires: int
    asset_id: str | None = None


class AssetStore:
    """The assets of all owners. Thread-safe."""

    def __init__(self, table: Table, s3: S3Client, *, bucket: str) -> None:
        self._table = table
        self._s3 = s3
        self._bucket = bucket

    def get(self, owner: str, asset_id: str) -> Asset:
        """A record.

        Raises:
            NotFound: there is none, it has expired, or it is another owner's.
        """
        item = self._table.get(_pk(asset_id), "asset")
        asset = _asset_of(item) if item else None
        if asset is None or asset.owner != owner or _is_over(asset.expires):
            raise NotFound(f"there is no asset {asset_id[:100]!r} of yours.")
        return asset

    def has_blob(self, owner: str, digest: str) -> bool:
        """Whether the owner has bytes with this hash (in hex)."""
        return self._table.get(_blob_pk(owner, digest), "blob") is not None

    def store(self, owner: str, content: BinaryIO, digest: str, naming: Naming) -> Asset:
        """Keep bytes, unless the owner has them already, and make a record of them.

        Args:
            digest: of the content, in hex, as we have computed it.
        """
        size_bytes = content.seek(0, 2)

        def put(address: S3Address) -> None:
            content.seek(0)
            self._s3.put_object(Bucket=address.bucket, Key=address.key, Body=content, ContentType=naming.content_type)

        return self._mint_over(owner, digest, naming, size_bytes=size_bytes, put=put)

    def mint_from_hash(self, owner: str, digest: str, naming: Naming) -> tuple[Asset, bool]:
        """Make a record over bytes the owner has, or answer the same one again, with the longer life of the two.

        Returns:
            The record, and whether it was there already.

        Raises:
            BlobNotFound: the owner has no such bytes.
        """
        if (same := self._same_reference(owner, digest, naming)) is not None:
            return replace(same, created_new=False), True
        blob = self._table.get(_blob_pk(owner, digest), "blob")
        if blob is not None:
            with contextlib.suppress(ConditionFailed):
                return self._mint(owner, digest, naming, blob=blob, is_new=False), False
        raise BlobNotFound(f"you have uploaded no file with the hash {HASH_PREFIX}{digest}.")

    def delete(self, owner: str, asset_id: str) -> None:
        """Delete a record, and the bytes with the last record of them.

        Raises:
            NotFound: there is none of this owner.
            AssetInUse: it is a job's output, and goes with the job.
        """
        asset = self.get(owner, asset_id)
        if asset.job_id is not None or asset.hash is None:
            raise AssetInUse("an output belongs to its job and is deleted with it, when that is forgotten.")
        digest = asset.hash.removeprefix(HASH_PREFIX)
        one_less = Update(
            pk=_blob_pk(owner, digest), sk="blob", assign={}, add={"references": -1}, condition="attribute_exists(pk)"
        )
        try:
            self._table.transact(
                [delete_write(_pk(asset_id), "asset", condition="attribute_exists(pk)"), update_write(one_less)]
            )
        except ConditionFailed:
            raise NotFound(f"there is no asset {asset_id[:100]!r} of yours.") from None
        if asset.file_path is not None:
            with contextlib.suppress(ConditionFailed):  # another asset has the name by now
                self._table.delete(
                    _path_pk(owner, asset.file_path), "path", condition="#asset_id = :id", values={"id": asset_id}
                )
        with contextlib.suppress(ConditionFailed):  # others refer to it
            blob = self._table.delete(
                _blob_pk(owner, digest), "blob", condition="#references < :one", values={"one": 1}
            )
            if blob is not None:
                self._s3.delete_object(Bucket=self._bucket, Key=blob["key"])

    def by_paths(self, owner: str, paths: Iterable[str]) -> dict[str, Asset]:
        """The newest assets of these file names, as far as there are any."""
        found: dict[str, Asset] = {}
        for path in dict.fromkeys(paths):
            item = self._table.get(_path_pk(owner, path), "path")
            if item is not None:
                with contextlib.suppress(NotFound):
                    found[path] = self.get(owner, item["asset_id"])
        return found

    # Idempotency keys of uploads.

    def claim_key(self, owner: str, key: str) -> bool:
        """Use a key up for a day; answers False where it has been used."""
        item: Item = {"pk": _key_pk(owner, key), "sk": "idempotency", "expires": now_s() + 24 * 3600}
        try:
            self._table.put(item, condition="attribute_not_exists(pk) OR #expires < :now", values={"now": now_s()})
        except ConditionFailed:
            return False
        return True

    def release_key(self, owner: str, key: str) -> None:
        """Let a key be used again: the request has come to nothing."""
        self._table.delete(_key_pk(owner, key), "idempotency")

    # Uploads past Lambda.

    def begin_upload(self, owner: str, naming: Naming, *, size_bytes: int, expected: str | None) -> Upload:
        """Write down that a file will come."""
        upload = Upload(
            id=str(uuid.uuid4()),
            owner=owner,
            naming=naming,
            size_bytes=size_bytes,
            hash=expected,
            expires=now_s() + UPLOAD_S,
        )
        self._table.put(
            {
                "pk": f"upload#{upload.id}",
                "sk": "upload",
                "owner_name": owner,
                "file_path": naming.file_path,
                "content_type": naming.content_type,
                "tags": list(naming.tags),
                "expires_in_s": naming.expires_in_s,
                "size_bytes": size_bytes,
                "hash": expected,
                "expires": upload.expires,
            }
        )
        return upload

    def upload(self, owner: str, upload_id: str) -> Upload:
        """An upload that was begun.

        Raises:
            NotFound: there is none, or it is another owner's, or too old.
        """
        item = self._table.get(f"upload#{upload_id}", "upload")
        if item is None or item["owner_name"] != owner or _is_over(item["expires"]):
            raise NotFound(f"there is no upload {upload_id[:100]!r} of yours; they are kept for a day.")
        return Upload(
            id=upload_id,
            owner=owner,
            naming=Naming(
                file_path=item.get("file_path"),
                content_type=item["content_type"],
                tags=tuple(item.get("tags", ())),
                expires_in_s=item.get("expires_in_s"),
            ),
            size_bytes=item["size_bytes"],
            hash=item.get("hash"),
            expires=item["expires"],
            asset_id=item.get("asset_id"),
        )

    def upload_address(self, upload: Upload) -> S3Address:
        """Where the bytes of an upload are put."""
        return S3Address(self._bucket, f"uploads/{upload.owner}/{upload.id}")

    def complete_upload(self, upload: Upload) -> Asset:
        """Look at what has come, and make it an asset. Done twice, the second answers the first's.

        Raises:
            InvalidRequest: nothing has come, or not as much as was announced.
            HashMismatch: it is something else than was announced; it was deleted.
        """
        if upload.asset_id is not None:
            return replace(self.get(upload.owner, upload.asset_id), created_new=False)
        source = self.upload_address(upload)
        digest, size_bytes = self._digest_of(source)
        if size_bytes != upload.size_bytes:
            raise InvalidRequest(
                f"{size_bytes:,} bytes have come, and {upload.size_bytes:,} were announced: PUT it again."
            )
        try:
            check_hash(upload.hash, digest)
        except HashMismatch:
            self._s3.delete_object(Bucket=source.bucket, Key=source.key)
            raise

        def put(address: S3Address) -> None:
            self._s3.copy_object(
                Bucket=address.bucket,
                Key=address.key,
                CopySource={"Bucket": source.bucket, "Key": source.key},
                ContentType=upload.naming.content_type,
                MetadataDirective="REPLACE",
            )

        asset = self._mint_over(upload.owner, digest, upload.naming, size_bytes=size_bytes, put=put)
        self._table.update(Update(pk=f"upload#{upload.id}", sk="upload", assign={"asset_id": asset.id}))
        self._s3.delete_object(Bucket=source.bucket, Key=source.key)
        return asset

    # How it is done.

    def _digest_of(self, address: S3Address) -> tuple[str, int]:
        try:
            answer = self._s3.get_object(Bucket=address.bucket, Key=address.key)
        except self._s3.exceptions.NoSuchKey:
            raise InvalidRequest("nothing has come yet: PUT the file to the address of the upload first.") from None
        return digest_of(answer["Body"]), answer["ContentLength"]

    def _mint_over(self, owner: str, digest: str, naming: Naming, *, size_bytes: int, put: _Put) -> Asset:
        """A record over bytes that are there, or are put there; whichever of several at once is first puts them."""
        for _ in range(_ATTEMPTS):
            blob = self._table.get(_blob_pk(owner, digest), "blob")
            if blob is not None:
                with contextlib.suppress(ConditionFailed):  # its last record was deleted just now
                    return self._mint(owner, digest, naming, blob=blob, is_new=False)
                continue
            key = f"blobs/{owner}/{digest}/{uuid.uuid4().hex}{_suffix(naming.file_path)}"
            address = S3Address(self._bucket, key)
            put(address)
            fresh: Item = {"key": key, "size_bytes": size_bytes}
            try:
                return self._mint(owner, digest, naming, blob=fresh, is_new=True)
            except ConditionFailed:  # somebody has uploaded the same
                self._s3.delete_object(Bucket=address.bucket, Key=address.key)
        raise TimeoutError("the same file is uploaded and deleted all the time")

    def _mint(self, owner: str, digest: str, naming: Naming, *, blob: Mapping[str, object], is_new: bool) -> Asset:
        asset_id, expires = str(uuid.uuid4()), naming.expires_in_s
        item: Item = {
            "pk": _pk(asset_id),
            "sk": "asset",
            "id": asset_id,
            "owner": owner,
            "kind": "upload",
            "bucket": self._bucket,
            "key": blob["key"],
            "file_path": naming.file_path,
            "content_type": naming.content_type,
            "size_bytes": blob["size_bytes"],
            "hash": f"{HASH_PREFIX}{digest}",
            "created_at": now_text(),
            "expires": None if expires is None else now_s() + expires,
            "tags": list(naming.tags) or None,
        }
        blob_pk = _blob_pk(owner, digest)
        if is_new:
            counted = put_write(
                {"pk": blob_pk, "sk": "blob", "references": 1, **blob}, condition="attribute_not_exists(pk)"
            )
        else:
            counted = update_write(
                Update(pk=blob_pk, sk="blob", assign={}, add={"references": 1}, condition="attribute_exists(pk)")
            )
        writes = [counted, put_write(item)]
        if naming.file_path is not None:
            writes.append(put_write({"pk": _path_pk(owner, naming.file_path), "sk": "path", "asset_id": asset_id}))
        self._table.transact(writes)
        return replace(
            _asset_of({name: value for name, value in item.items() if value is not None}), created_new=is_new
        )

    def _same_reference(self, owner: str, digest: str, naming: Naming) -> Asset | None:
        if naming.file_path is None:
            return None
        same = self.by_paths(owner, [naming.file_path]).get(naming.file_path)
        if same is None or same.hash != f"{HASH_PREFIX}{digest}":
            return None
        if same.expires is None:
            return same
        if naming.expires_in_s is None:
            change = Update(
                pk=_pk(same.id), sk="asset", assign={}, remove=["expires"], condition="attribute_exists(pk)"
            )
        else:
            expires = max(same.expires, now_s() + naming.expires_in_s)
            change = Update(pk=_pk(same.id), sk="asset", assign={"expires": expires}, condition="attribute_exists(pk)")
        try:
            return _asset_of(self._table.update(change))
        except ConditionFailed:
            return None


class _Put(Protocol):
    def __call__(self, address: S3Address, /) -> None: ...


def digest_of(stream: Readable) -> str:
    """The blake3 hash of bytes as they come, in hex."""
    hasher = blake3()
    while chunk := stream.read(_CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()


def digest_in(text: str) -> str | None:
    """The hex of a `blake3:<hex>`, or None if it is none."""
    match = _HASH.fullmatch(text)
    return match[1] if match else None


def check_hash(expected: str | None, digest: str) -> None:
    """Hold what was announced against what has come.

    Raises:
        HashMismatch: they differ.
    """
    if expected is not None and digest_in(expected) != digest:
        raise HashMismatch(
            f"the bytes that came have the hash {HASH_PREFIX}{digest}, and {expected[:100]} was announced: nothing was "
            "kept.",
            details={"hash": f"{HASH_PREFIX}{digest}"},
        )


def check_path(path: str) -> str:
    """A file path as it may be used: below a folder, and nowhere else.

    Raises:
        ValueError: saying what is wrong with it.
    """
    parts = path.split("/")
    if not path or len(path) > MAX_PATH_CHARACTERS:
        raise ValueError(f"must have 1 to {MAX_PATH_CHARACTERS} characters")
    if path.startswith("/") or "\\" in path or ":" in path or not path.isprintable():
        raise ValueError("must be a plain file name or path, like 'photo.png' or 'team/photo.png'")
    if any(part.strip(" .") == "" for part in parts):
        raise ValueError("must not have empty parts, '.' or '..'")
    return path


def _suffix(path: str | None) -> str:
    """The ending of a file name: what loads the file looks at it."""
    suffix = PurePosixPath(path or "").suffix
    return suffix.lower() if _SUFFIX.fullmatch(suffix) else ""


def _is_over(expires: int | None) -> bool:
    return expires is not None and expires <= now_s()


def _asset_of(item: Item) -> Asset:
    return Asset(
        id=item["id"],
        owner=item["owner"],
        address=S3Address(item["bucket"], item["key"]),
        file_path=item.get("file_path"),
        content_type=item["content_type"],
        size_bytes=item["size_bytes"],
        hash=item.get("hash"),
        created_at=item["created_at"],
        expires=item.get("expires"),
        job_id=item.get("job_id"),
    )


def _pk(asset_id: str) -> str:
    return f"asset#{asset_id}"


def _blob_pk(owner: str, digest: str) -> str:
    return f"blob#{owner}#{digest}"


def _path_pk(owner: str, path: str) -> str:
    return f"path#{owner}#{path}"


def _key_pk(owner: str, key: str) -> str:
    return f"idempotency#{owner}#assets#{key}"
