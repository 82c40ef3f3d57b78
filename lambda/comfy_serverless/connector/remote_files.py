"""The files that a run has made on an engine elsewhere: see `made_files`. Only ComfyUI itself can be asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.made_files import Made, MadeFiles, Place, Remembered, View
from comfy_serverless.connector.outputs import places_in

logger = logging.getLogger(__name__)

#: `Last-Modified` has whole seconds.
_WHOLE_SECOND_S = 1.0
#: So many files are asked for at once while a run goes on.
_AT_ONCE = 4
#: Where nodes make files.
_FOLDERS = frozenset({"output", "temp"})


class RemoteFiles(MadeFiles):
    """The files of a run on an engine elsewhere: what its nodes name, and what ComfyUI says is new.

    Args:
        changed_at: asks ComfyUI when a file was last changed, in seconds since the epoch; None if it has no such file.
        view: opens a file through ComfyUI.
        is_apart: whether the run shares ComfyUI with strangers; then cached nodes are not believed.
    """

    def __init__(
        self,
        changed_at: Callable[[Place], float | None],
        remembered: Remembered,
        *,
        view: View,
        is_apart: bool,
    ) -> None:
        self._changed_at = changed_at
        self.remembered = remembered
        self.finds_late = False
        self.nothing = "it has shown nothing, and what it may have saved is on ComfyUI's machine"
        self._view = view
        self._is_apart = is_apart
        self._began_s = time.time()
        self._made: dict[Place, Made] = {}
        #: What ComfyUI was asked while the run went on.
        self._asked: dict[Place, Future[float | None]] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="comfy-made")

    def begin(self, at_s: float) -> None:
        """See MadeFiles."""
        self._began_s = at_s

    def end(self, at_s: float) -> None:
        """See MadeFiles. What ComfyUI says of a file is asked when it is named."""

    def see_number(self, number: float | None) -> None:
        """See MadeFiles. Nothing is found here that no node names."""

    def ask(self, shown: Mapping[str, Any]) -> Callable[[], bool]:
        """See MadeFiles. ComfyUI is asked in other threads: it may be slow, and events must not wait for it."""
        are_known = partial(self._knows, places_in(shown))
        are_known()
        return are_known

    def _knows(self, places: Collection[Place]) -> bool:
        """Whether ComfyUI has answered for these files; those that were not asked for are asked for now."""
        wanted = [place for place in places if place.folder_type in _FOLDERS and place not in self._made]
        for place in wanted:
            if place not in self._asked:
                self._asked[place] = self._threads.submit(self._changed_at, place)
        return all(self._asked[place].done() for place in wanted)

    def claim(self, place: Place, *, cached: bool) -> Made | None:
        """See MadeFiles."""
        if place in self._made:
            return self._made[place]
        if place.folder_type not in _FOLDERS:
            return None
        # An answer counts once: what was not there may come.
        asked = self._asked.pop(place, None)
        changed_s = self._changed_at(place) if asked is None else asked.result()
        is_new = changed_s is not None and changed_s >= self._began_s - _WHOLE_SECOND_S
        # A proxy may keep the time from us.
        is_believed = (cached or not changed_s) and not self._is_apart and place not in self.remembered.refused
        if changed_s is None or not (is_new or is_believed):
            return None
        made = self._made[place] = Made(place, None, lambda: self._view(*place))
        return made

    def find(self, text: str, *, cached: bool) -> Made | None:  # noqa: ARG002  (as all)
        """See MadeFiles. A path says nothing about another machine."""
        return None

    def unclaimed(self) -> list[Made]:
        """See MadeFiles. The folders of another machine cannot be looked into."""
        return []

    def leave(self) -> None:
        """See MadeFiles. ComfyUI has no route that removes a file."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def changed_at(client: ComfyClient, place: Place) -> float | None:
    """When ComfyUI last changed a file; None if it has none, or does not answer."""
    try:
        return client.changed_at(*place)
    except RequestFailed as error:
        logger.warning("ComfyUI could not be asked for %s: %s", place, error)
        return None
