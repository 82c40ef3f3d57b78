"""From an address to bytes, and everything that is hostile about that."""

from __future__ import annotations
