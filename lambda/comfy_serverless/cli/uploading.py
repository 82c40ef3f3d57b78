"""Sends a file of any size to the API, unless it has its bytes already.

hash ──► does the API have it? ──► a record of it
                 └──► POST /uploads ──► PUT to S3 ──► complete
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from blake3 import blake3

from comfy_serverless.cli import remote
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.files import UNKNOWN_TYPE, type_of_name
from comfy_serverless.table import asset_names

_CHUNK_BYTES = 1 << 20

#: Is shown what goes on with how many bytes of how many.
Show = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that the API has.

    Attributes:
        asset: its record.
        was_sent: whether its bytes had to be sent.
        digest: its hash, with the name of the hash before it.
    """

    asset: dict[str, Any]
    was_sent: bool
    digest: str
    size_bytes: int


def upload_file(
    api: remote.Api,
    path: Path,
    *,
    show: Show,
    naming: Mapping[str, Any] | None = None,
    content_type: str | None = None,
) -> Sent:
    """Upload a file.

    Args:
        naming: `file_path` (by default the file's own name), `tags` and `expires_in`, as far as they are given.

    Raises:
        MissingAsset: it cannot be read.
        InvalidRequest: it is empty, or becomes shorter meanwhile.
    """
    given = {name: value for name, value in (naming or {}).items() if value}
    given.setdefault("file_path", path.name)
    with _opened(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes:
            raise InvalidRequest(f"{path} is empty.")
        # S3 checks the SHA-256 of a file that the API would not read; an older release may know it by its blake3.
        hashers: dict[str, _Hasher] = {"blake3": blake3()}
        if size_bytes > asset_names.MAX_READ_BYTES:
            hashers["sha256"] = hashlib.sha256()
        *others, digest = _hashes(file, hashers, lambda done: show("reading", done, size_bytes))
        known = (remote.has_bytes(api, one, given) for one in (digest, *others))
        if (asset := next((one for one in known if one is not None), None)) is not None:
            return Sent(asset, was_sent=False, digest=digest, size_bytes=size_bytes)
        kind = content_type or type_of_name(given["file_path"]) or UNKNOWN_TYPE
        upload = {**given, "content_type": kind, "size_bytes": size_bytes, "hash": digest}
        target = remote.begin_upload(api, upload)
        sending = lambda done: show("sending", done, size_bytes)  # noqa: E731
        remote.put_bytes(api, target, lambda: _Counted(file, size_bytes, sending))
        return Sent(remote.complete_upload(api, target), was_sent=True, digest=digest, size_bytes=size_bytes)


class _Hasher(Protocol):
    """Computes a hash of bytes as they come."""

    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Counted:
    """A file of which exactly `size_bytes` are sent and shown, from its beginning: what `requests` takes as a body."""

    def __init__(self, file: IO[bytes], size_bytes: int, show: Callable[[int], None]) -> None:
        self._file, self._size_bytes, self._show = file, size_bytes, show
        file.seek(0)

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_CHUNK_BYTES), b"")

    def tell(self) -> int:
        """How many bytes were read."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`."""
        position = self._file.tell()
        left = self._size_bytes - position
        chunk = self._file.read(left if size < 0 else min(size, left))
        if left and size and not chunk:
            raise InvalidRequest("the file has become shorter while it was sent.")
        self._show(position + len(chunk))
        return chunk


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise MissingAsset(f"{path} cannot be read: {error.strerror}") from error


def _hashes(file: IO[bytes], hashers: Mapping[str, _Hasher], show: Callable[[int], None]) -> list[str]:
    """The hashes of a file by these names, read once."""
    while chunk := file.read(_CHUNK_BYTES):
        for hasher in hashers.values():
            hasher.update(chunk)
        show(file.tell())
    return [f"{name}:{hasher.hexdigest()}" for name, hasher in hashers.items()]
