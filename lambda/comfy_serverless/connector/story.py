"""Collects what the events of one prompt have said so far, and whether that is complete. No IO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from comfy_serverless.connector.facts import FrameSeen
from comfy_serverless.connector.history import HistoryEntry


class Story:
    """Folds the events of one prompt, in the order they come; late and repeated events do no harm.

    Args:
        silent: returns the nodes that have nothing to show if they are cached: see `silent_classes`.

    Attributes:
        shown: what each node showed, by node id.
        display_nodes: for nodes made by expansion, the node of the submitted graph they are shown as.
        frames: images that came through the websocket as results.
        cached_nodes: nodes that did not need to run.
        blocked: nodes that did not run because an input was blocked, one line each.
        succeeded: whether ComfyUI has reported success.
    """

    def __init__(self, silent: Callable[[], Collection[str]] = frozenset) -> None:
        self._silent = silent
        self.shown: dict[str, Mapping[str, Any]] = {}
        self.display_nodes: dict[str, str] = {}
        self.frames: list[FrameSeen] = []
        self.cached_nodes: tuple[str, ...] = ()
        self.blocked: list[str] = []
        self.succeeded = False
        self._failed = False
        self._executed: set[str] = set()
        #: By ComfyUI's clock, in ms.
        self._times: dict[str, float] = {}

    def see(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take in one event."""
        if isinstance(time_ms := data.get("timestamp"), (int, float)):
            self._times[kind] = time_ms
        match kind:
            case "execution_cached":
                self.cached_nodes = tuple(str(node) for node in data.get("nodes") or ())
            case "executed":
                node = str(data["node"])
                self._executed.add(node)
                self.display_nodes[node] = str(data.get("display_node") or node)
                if isinstance(data.get("output"), Mapping):
                    self.shown[node] = data["output"]
            case "execution_error":
                self._failed = True
                if data.get("exception_type") == "ExecutionBlocked":
                    self.blocked.append(f"Node {data.get('node_id')}: {str(data.get('exception_message')).strip()}")
            case "execution_interrupted":
                self._failed = True
            case "execution_success":
                self.succeeded = True

    def amend(self, entry: HistoryEntry) -> None:
        """Take over what the history says: it is the truth."""
        self.shown.update(entry.shown)
        self.display_nodes.update(entry.display_nodes)
        if entry.cached_nodes is not None:
            self.cached_nodes = entry.cached_nodes

    @property
    def is_whole(self) -> bool:
        """Whether the history would add nothing, if no event was missed: a success without a blemish.

        ComfyUI 0.3.64 puts what a cached node once showed into the history even if it did not visit the node again;
        then no `executed` event reports it.
        """
        return (
            self.succeeded
            and not self._failed
            and {"execution_start", "execution_success"} <= self._times.keys()
            and (not (untold := set(self.cached_nodes) - self._executed) or untold.issubset(self._silent()))
        )

    @property
    def executing_ms(self) -> int:
        """Time from start to success, by ComfyUI's clock, in ms. Only a whole story has it."""
        return round(self._times["execution_success"] - self._times["execution_start"])
