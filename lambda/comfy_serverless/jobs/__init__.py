"""A job as data: its request and where that comes from, its message, its document and result, its keys and links."""

from __future__ import annotations
