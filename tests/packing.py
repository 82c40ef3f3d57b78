"""Packed content that is the same in every process: pytest names tests by their parameters."""

from __future__ import annotations

import gzip


def packed(content: bytes) -> bytes:
    """It, packed by gzip, without the time."""
    return gzip.compress(content, mtime=0)
