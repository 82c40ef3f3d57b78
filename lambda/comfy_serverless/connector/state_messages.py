"""Reads ComfyUI's `progress_state`, which says of every node that has begun, each time that one of them changes. No IO.

Of a graph with thousands of nodes that is a gigabyte, nearly all of it said before: nodes stand in the order in which
they have begun, so a message begins as the last one did, up to the node that has changed. Equal text means the same,
so only what is behind it is parsed. A message in any other form than ComfyUI's is left to whoever reads all others.
"""

from __future__ import annotations

import json
import re
from typing import Any

_BLANK = r"[ \t\n\r]*"
_TEXT = r'"([^"\\\x00-\x1f]*)"'  # without any escapes
_BEGINNING = b'{"type": "progress_state"'
_HEAD = re.compile(
    rf'\{{"type": "progress_state"{_BLANK},{_BLANK}"data"{_BLANK}:{_BLANK}\{{{_BLANK}'
    rf'"prompt_id"{_BLANK}:{_BLANK}{_TEXT}{_BLANK},{_BLANK}"nodes"{_BLANK}:{_BLANK}\{{'
)
_FIRST, _NEXT = (re.compile(rf"{comma}{_BLANK}{_TEXT}{_BLANK}:{_BLANK}") for comma in (_BLANK, f"{_BLANK},"))
_END = re.compile(rf"(?:{_BLANK}\}}){{3}}{_BLANK}")
_value_at = json.JSONDecoder().raw_decode


class StateMessages:
    """Reads the messages of one websocket, in the order in which they come.

    Args:
        least_bytes: shorter ones are left: to parse them again is quicker than to look for what has changed.
    """

    def __init__(self, *, least_bytes: int = 4096) -> None:
        self._least_bytes = least_bytes
        self._text = ""
        #: Of the last message: the nodes, and where each of them ends in its text.
        self._nodes: dict[str, dict[str, Any]] = {}
        self._ends: list[int] = []

    def read(self, payload: bytes) -> dict[str, Any] | None:
        """The message, as `json.loads` has it; None if it is none of these, short, or in another form.

        Raises ValueError if it is no JSON.
        """
        if len(payload) < self._least_bytes or not payload.startswith(_BEGINNING):
            return None
        text = payload.decode("utf-8", "surrogatepass")
        head = _HEAD.match(text)
        if head is None:
            return None
        ends = self._ends[: self._same(text)]
        nodes = self._nodes.copy()
        while len(nodes) > len(ends):
            nodes.popitem()
        at = ends[-1] if ends else head.end()
        while (named := (_NEXT if nodes else _FIRST).match(text, at)) is not None:
            state, at = _value_at(text, named.end())
            # Only the end of an object is the same whatever comes behind it.
            if not isinstance(state, dict) or named[1] in nodes:
                return None
            nodes[named[1]] = state
            ends.append(at)
        if _END.fullmatch(text, at) is None:
            return None
        self._text, self._nodes, self._ends = text, nodes, ends
        return {"type": "progress_state", "data": {"prompt_id": head[1], "nodes": nodes}}

    def _same(self, text: str) -> int:
        """How many nodes are said as in the last message, from the first on; fewer, if many are not."""
        count, step = len(self._ends), 1
        while count > 0 and not text.startswith(self._text[: self._ends[count - 1]]):
            count, step = max(0, count - step), 2 * step
        return count
