"""Reads an entry of ComfyUI's history. No IO.

Its messages decide: `status_str` can say "success" for a run that failed (section 11 of the wire contract).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAST_WORDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A parsed entry.

    Attributes:
        number: of the submit; tells prompts of the same id apart.
        shown: what each node showed, by node id.
        display_nodes: for nodes made by expansion, the node they are shown as.
        cached_nodes: nodes that did not run; None if the entry does not say.
        executing_ms: by ComfyUI's own clock; None unless both ends have a time.
        last_word: the kind of the message that ended it.
        last_data: that message's data.
    """

    number: float | None
    shown: Mapping[str, Mapping[str, Any]]
    display_nodes: Mapping[str, str]
    cached_nodes: tuple[str, ...] | None
    executing_ms: int | None
    last_word: str
    last_data: Mapping[str, Any]


def read_entry(entry: Mapping[str, Any]) -> HistoryEntry:
    """Parse the entry of `GET /history/{id}`."""
    status = entry.get("status") or {}
    messages = [(str(kind), data) for kind, data in status.get("messages") or ()]
    times = [data["timestamp"] for _, data in messages if isinstance(data.get("timestamp"), int | float)]
    cached = [data.get("nodes") or () for kind, data in messages if kind == "execution_cached"]
    otherwise: tuple[str, Mapping[str, Any]] = (
        "execution_success" if status.get("completed") else "execution_error",
        {},
    )
    last_word, last_data = next((message for message in reversed(messages) if message[0] in _LAST_WORDS), otherwise)
    prompt = entry.get("prompt")
    return HistoryEntry(
        number=prompt[0] if prompt else None,
        shown={str(node): shown for node, shown in (entry.get("outputs") or {}).items() if isinstance(shown, Mapping)},
        display_nodes={
            str(node): str(meta.get("display_node") or node) for node, meta in (entry.get("meta") or {}).items()
        },
        cached_nodes=tuple(map(str, cached[0])) if cached else None,
        executing_ms=round(times[-1] - times[0]) if len(times) > 1 else None,
        last_word=last_word,
        last_data=last_data,
    )
