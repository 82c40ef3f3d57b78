"""The names of assets, and the hashes of their bytes. No IO but reading the bytes that are passed in."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Protocol

from blake3 import blake3

from comfy_serverless.errors import HashMismatch

HASH_PREFIX = "blake3:"
MAX_PATH_CHARACTERS = 512
#: It is a part of a key in DynamoDB, and of links.
_MAX_PATH_BYTES = 1024
_CHUNK_BYTES = 1 << 20
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Control characters, halves of characters, and ends of lines and paragraphs.
_UNSPEAKABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: They make a name look like another one.
_WRITING_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HASH = re.compile(r"blake3:([0-9a-f]{64})")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


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
    """Compare the announced hash with that of the bytes. Raises HashMismatch if they differ."""
    if expected is not None and digest_in(expected) != digest:
        raise HashMismatch(
            f"the bytes that came have the hash {HASH_PREFIX}{digest}, and {expected[:100]} was announced: nothing was "
            "kept.",
            details={"hash": f"{HASH_PREFIX}{digest}"},
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


def is_id(text: str) -> bool:
    """Whether a text can be the id of an asset or an upload; other texts cost no read of the table."""
    return _UUID.fullmatch(text) is not None


def suffix_of(path: str | None) -> str:
    """The ending of a file name, which programs that load the file read."""
    suffix = PurePosixPath(path or "").suffix
    return suffix.lower() if _SUFFIX.fullmatch(suffix) else ""
