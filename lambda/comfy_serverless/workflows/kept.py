"""The versions that a process has read last, up to a number of bytes: they never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from comfy_serverless.workflows.version import Version

KEPT_BYTES: Final = 16_000_000
#: Owner, name and number of a version, and the beginning of its document's hash.
Key = tuple[str, str, int, str]


class KeptVersions:
    """Those of one process. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[Version, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Version | None:
        """A version that was read before."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Key, version: Version) -> None:
        """Keep a version, and forget those that were not asked for the longest."""
        size_bytes = len(version.to_bytes())
        with self._lock:
            _, before = self._kept.pop(key, (version, 0))
            self._kept[key] = version, size_bytes
            self._bytes += size_bytes - before
            while self._bytes > KEPT_BYTES and self._kept:
                _, (_, least) = self._kept.popitem(last=False)
                self._bytes -= least
