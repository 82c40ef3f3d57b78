"""A workflow as data: reading, checking and editing it. No IO."""

from __future__ import annotations
