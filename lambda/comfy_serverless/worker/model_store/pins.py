"""What an address had when it was first fetched, for models of which nobody says a SHA-256: written once, and held to.

    pins/{SHA-256 of owner and address}.json    in the assets bucket, for all workers; without one, in MODEL_STORE_DIR

An owner's pins bind that owner only: what somebody has fetched decides nothing for anybody else, and tells nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import (
    EXISTS_ALREADY,
    Problem,
    S3Address,
    Trouble,
    error_code,
    read_document,
    read_problem,
    trouble_of,
    unless_in_conflict,
    write_problem,
)
from comfy_serverless.errors import AssetUnavailable, MissingAsset, NotJson
from comfy_serverless.json_text import parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A content as it was first fetched.

    Attributes:
        etag: the version that the server named; "" if it named none.
    """

    sha256: str
    size_bytes: int
    etag: str = ""


class Pins(Protocol):
    """What addresses had. Raises AssetUnavailable if that cannot be read or written now, MissingAsset if never."""

    def read(self, key: str) -> Pinned | None:
        """What was pinned; None if nothing was."""

    def write(self, key: str, pinned: Pinned) -> Pinned:
        """Pin it, unless something is; return what is pinned."""


def pin_key(owner: str, url: str) -> str:
    """The name of a pin. An address's fragment is not sent to its server."""
    return hashlib.sha256("\0".join((owner, url.partition("#")[0])).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class S3Pins:
    """Pins in a bucket."""

    s3: S3Client
    bucket: str

    def read(self, key: str) -> Pinned | None:
        """See `Pins`."""
        address = self._address(key)
        try:
            return _parsed(read_document(self.s3, address).content, str(address))
        except (ClientError, BotoCoreError) as error:
            if trouble_of(error) is Trouble.MISSING:
                return None
            raise _refused(address, read_problem(error, address)) from error

    def write(self, key: str, pinned: Pinned) -> Pinned:
        """See `Pins`."""
        address = self._address(key)
        put = partial(
            self.s3.put_object,
            Bucket=address.bucket,
            Key=address.key,
            Body=_text(pinned),
            ContentType="application/json",
            IfNoneMatch="*",
        )
        try:
            unless_in_conflict(put)
        except (ClientError, BotoCoreError) as error:
            if error_code(error) not in EXISTS_ALREADY:
                raise _refused(address, write_problem(error, address)) from error
            return self.read(key) or pinned
        return pinned

    def _address(self, key: str) -> S3Address:
        return S3Address(self.bucket, f"pins/{key}.json")


@dataclass(frozen=True, slots=True)
class FilePins:
    """Pins in a folder of this machine."""

    folder: Path

    def read(self, key: str) -> Pinned | None:
        """See `Pins`."""
        path = self._path(key)
        try:
            return _parsed(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AssetUnavailable(f"the pin of a model, {path}, cannot be read: {error.strerror}.") from error

    def write(self, key: str, pinned: Pinned) -> Pinned:
        """See `Pins`."""
        path = self._path(key)
        new = path.with_name(f"{uuid.uuid4().hex}.new")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            new.write_bytes(_text(pinned))
            try:
                os.link(new, path)  # which fails if it is there, also between processes
            except FileExistsError:
                return self.read(key) or pinned
            finally:
                new.unlink()
        except OSError as error:
            raise AssetUnavailable(f"the pin of a model, {path}, cannot be written: {error.strerror}.") from error
        return pinned

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _refused(address: S3Address, problem: Problem) -> MissingAsset:
    kind = AssetUnavailable if problem.is_transient else MissingAsset
    return kind(f"the pin of a model, {address}, {problem.reason}.")


def _text(pinned: Pinned) -> bytes:
    return json.dumps(asdict(pinned)).encode()


def _parsed(content: bytes, place: str) -> Pinned:
    try:
        document = parse_json(content, source=place)
        pinned = Pinned(str(document["sha256"]), int(document["size_bytes"]), str(document.get("etag", "")))
    except (NotJson, KeyError, TypeError, ValueError, AttributeError) as error:
        raise AssetUnavailable(f"the pin of a model, {place}, is damaged: delete it to pin anew.") from error
    if not _SHA256.fullmatch(pinned.sha256):
        raise AssetUnavailable(f"the pin of a model, {place}, is damaged: delete it to pin anew.")
    return pinned
