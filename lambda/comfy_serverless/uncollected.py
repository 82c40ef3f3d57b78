"""Keeps Python from searching for cycles while many objects are made that have none, as by reading JSON.

Each search goes through everything that has been made until then, and holds up all threads: it makes reading a hostile
document, of millions of lists, take five times as long, and nobody is answered meanwhile.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_inside = 0
_was_enabled = False
#: Fewer objects than a text of so many characters has are no trouble.
_LARGE_CHARACTERS = 50_000


@contextmanager
def uncollected() -> Iterator[None]:
    """No search begins within the block; threads may be in several at once."""
    global _inside, _was_enabled
    with _lock:
        if not _inside:
            _was_enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _was_enabled:
                gc.enable()


def load_json(text: str | bytes | bytearray) -> Any:  # noqa: ANN401  (any JSON)
    """The value of a text of JSON. Raises as `json.loads`."""
    if len(text) < _LARGE_CHARACTERS:
        return json.loads(text)
    with uncollected():
        return json.loads(text)
