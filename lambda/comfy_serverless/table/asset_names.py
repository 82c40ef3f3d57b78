"""The names of assets, and the hashes of their bytes. No IO but reading the bytes that are passed in."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Protocol

from blake3 import blake3

from comfy_serverless.errors import HashMismatch

#: What we compute, and what S3 computes of files that are larger than we read.
HASH_PREFIX, S3_HASH_PREFIX = "blake3:", "sha256:"
#: The largest upload whose bytes we read ourselves. What is larger S3 copies and hashes.
MAX_READ_BYTES = 32_000_000
MAX_PATH_CHARACTERS = 512
#: It is a part of a key in DynamoDB, and of links.
_MAX_PATH_BYTES = 1024
_CHUNK_BYTES = 1 << 20
#: Control characters, halves of characters, and ends of lines and paragraphs.
_UNSPEAKABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: They make a name look like another one.
_WRITING_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HASH = re.compile(r"blake3:([0-9a-f]{64})")
_S3_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


class Hasher(Protocol):
    """Computes a hash of bytes as they come."""

    def update(self, data: bytes, /) -> object: ...


def digest_of(stream: Readable, *, also: Hasher | None = None) -> str:
    """The blake3 hash of bytes as they come, in hex; another one is computed on the way."""
    hasher = blake3()
    while chunk := stream.read(_CHUNK_BYTES):
        hasher.update(chunk)
        if also is not None:
            also.update(chunk)
    return hasher.hexdigest()


def is_s3_hash(text: str | None) -> bool:
    """Whether a hash is one that S3 can check: `sha256:<hex>`."""
    return text is not None and _S3_HASH.fullmatch(text) is not None


def digest_in(text: str) -> str | None:
    """What names bytes in the table: the hex of a `blake3:<hex>`, or a whole `sha256:<hex>`; None if it is neither."""
    match = _HASH.fullmatch(text)
    if match is None:
        return text if is_s3_hash(text) else None
    return match[1]


def hash_named(digest: str) -> str:
    """The hash that such a name is of."""
    return digest if is_s3_hash(digest) else f"{HASH_PREFIX}{digest}"


def check_hash(expected: str | None, digest: str) -> None:
    """Compare the announced hash with that of the bytes. Raises HashMismatch if they differ."""
    if expected is not None and digest_in(expected) != digest:
        raise HashMismatch(
            f"the bytes that came have the hash {hash_named(digest)}, and {expected[:100]} was announced: nothing was "
            "kept.",
            details={"hash": hash_named(digest)},
        )


def check_path(path: str) -> str:
    """Check that a file path stays below its folder, and return it. Raises ValueError with the reason if not."""
    if not path or len(path) > MAX_PATH_CHARACTERS or len(path.encode("utf-8", "replace")) > _MAX_PATH_BYTES:
        raise ValueError(f"must have 1 to {MAX_PATH_CHARACTERS} characters ({_MAX_PATH_BYTES} bytes)")
    if path.startswith("/") or "\\" in path or ":" in path:
        raise ValueError("must be a plain file name or path, like 'photo.png' or 'team/photo.png'")
    if any(unicodedata.category(sign) in _UNSPEAKABLE or sign in _WRITING_DIRECTIONS for sign in path):
        raise ValueError("must not have control characters or ends of lines")
    if any(part.strip(" .") == "" for part in path.split("/")):
        raise ValueError("must not have empty parts, '.' or '..'")
    return path


def is_path(text: str) -> bool:
    """Whether a text can be the file path of an asset."""
    try:
        check_path(text)
    except ValueError:
        return False
    return True


def suffix_of(path: str | None) -> str:
    """The ending of a file name, which programs that load the file read."""
    suffix = PurePosixPath(path or "").suffix
    return suffix.lower() if _SUFFIX.fullmatch(suffix) else ""
