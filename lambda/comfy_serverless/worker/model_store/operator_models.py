"""The models that ComfyUI has without us: of the image, of MODEL_DATA_DIR, of any place the operator gave it.

Their names cannot be taken by a job. The store comes last where ComfyUI searches; here, a job hears of it.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from comfy_serverless.connector.model_folders import EMBEDDINGS
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.files import MODEL_ENDINGS
from comfy_serverless.worker.model_store.transfer import sha256_of
from comfy_serverless.worker.model_store.wanted import Wanted

#: Where ComfyUI looks for the models of a folder, by the folder, in the order of its search.
Places = Mapping[str, Sequence[Path]]
#: A file as it is now: its path, size, time of change and inode.
_State = tuple[str, int, int, int]


class Connector(Protocol):
    """The methods of `comfy_serverless.ComfyConnector` that are needed here."""

    def wait_ready(self, timeout_s: float | None = None) -> None: ...
    def model_places(self) -> Places | None: ...


def places_of(connector: Connector, *, deadline: float) -> Places | None:
    """Where ComfyUI looks for models; None if it has not answered by the deadline, which may be past: then at once.

    Raises EngineUnavailable if it does not start, or cannot say it; DeadlineExceeded if it still starts.
    """
    places = connector.model_places()
    left_s = deadline - time.monotonic()
    if places is None and left_s > 0:
        connector.wait_ready(left_s)
        places = connector.model_places()
    return places


class NameTaken(Exception):
    """A model of the operator's has the name, with another content."""


class OperatorModels:
    """Compares what jobs bring with the operator's files, whose contents are read once.

    `own` is the folder of the links that jobs bring, which are not the operator's.
    """

    def __init__(self, own: Path) -> None:
        self._own = own
        self._hashing = threading.Lock()
        self._known: dict[_State, str] = {}

    def has(self, model: Wanted, places: Places, *, size_bytes: int | None, deadline: float) -> bool:
        """Whether ComfyUI finds this content under this name without us.

        Args:
            size_bytes: of the content, if it is known.

        Raises:
            NameTaken: it finds another one there.
            Unusable: a file cannot be read, or the deadline passed before the files had been compared.
        """
        folder, _, name = model.path.partition("/")
        is_there, alike = False, False
        for searched, its_places in self._searched_with(folder, places):
            found = next((place / name for place in its_places if os.path.isfile(place / name)), None)  # noqa: PTH113
            if found is not None and not self._is(found, model.sha256, size_bytes=size_bytes, deadline=deadline):
                raise NameTaken(model.path)
            if searched == folder:
                is_there = found is not None
                alike = any(map(os.path.isfile, _called_alike(model, its_places)))
        if alike and not is_there:
            raise NameTaken(model.path)
        return is_there

    def _searched_with(self, folder: str, places: Places) -> Iterator[tuple[str, list[Path]]]:
        """The folders of models that our place of this one belongs to, with the operator's places of each.

        A custom node may have given a folder of its own the places of another one.
        """
        ours = _real(self._own / folder)
        for searched, its_places in places.items():
            real = {place: _real(place) for place in its_places}
            if searched == folder or ours in real.values():
                yield searched, [place for place in its_places if real[place] != ours]

    def _is(self, path: Path, sha256: str, *, size_bytes: int | None, deadline: float) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                state = os.fstat(descriptor)
                if size_bytes is not None and state.st_size != size_bytes:
                    return False
                key = str(path), state.st_size, state.st_mtime_ns, state.st_ino
                return (self._known.get(key) or self._hash(key, descriptor, deadline=deadline)) == sha256
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unusable(f"cannot be compared with the worker's own model of that name: {error.strerror}") from error

    def _hash(self, key: _State, descriptor: int, *, deadline: float) -> str:
        # One after the other: two jobs that ask for the same file have it read once.
        if not self._hashing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unusable("other models of this worker were still being compared", timed_out=True)
        try:
            if key not in self._known:
                self._known[key] = sha256_of(descriptor, deadline=deadline)
            return self._known[key]
        finally:
            self._hashing.release()


@functools.lru_cache(maxsize=4096)
def _real(place: Path) -> str:
    return os.path.realpath(place)


def _called_alike(model: Wanted, places: Sequence[Path]) -> Iterator[Path]:
    """The files that a workflow might mean instead: an embedding is called without its ending."""
    if model.path.startswith(f"{EMBEDDINGS}/"):
        bare = model.called.removeprefix(f"{EMBEDDINGS}/")
        yield from (place / f"{bare}{ending}" for place in places for ending in ("", *MODEL_ENDINGS))
