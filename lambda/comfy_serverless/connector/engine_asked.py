"""What the engine of a connector says of itself, and what it is asked for: nothing here runs a workflow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from comfy_serverless.connector.engine import Engine
from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.recovery import MAX_ATTEMPTS
from comfy_serverless.connector.run import attempt_id


class EngineAsked:
    """The part of `ComfyConnector` that needs its engine alone: names, addresses, declarations, folders, files."""

    _engine: Engine

    @abstractmethod
    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the engine answers."""

    @property
    def engine(self) -> str:
        """The engine's name and version: "ComfyUI 0.3.64", or the embedded engine. Empty until it has answered."""
        return self._engine.name

    @property
    def is_embedded(self) -> bool:
        """Whether it is the embedded engine, which has few node classes and no models."""
        return self._engine.is_embedded

    @property
    def starts(self) -> int:
        """How many times this connector has started a ComfyUI process; 0 if it found a running one."""
        return self._engine.starts

    @property
    def input_directory(self) -> Path | None:
        """ComfyUI's input folder, if it is on this machine."""
        return self._engine.input_directory

    def is_for_all(self, name: str) -> bool:
        """Whether a file in the input folder, by its way there, is there for jobs of all owners, as far as is known."""
        own = self._engine.own_folders if self._engine.process is not None else None
        return own is None or own.is_operators(name)

    @property
    def server_address(self) -> str | None:
        """`http://host:port` of ComfyUI, without user name and password; None after `kill_api`."""
        return None if self._engine.closed else self._engine.server.url

    @property
    def urlport(self) -> int | None:
        """The port of a ComfyUI started here; None after `kill_api`."""
        return None if self._engine.closed or self._engine.process is None else self._engine.process.port

    @property
    def client_id(self) -> str | None:
        """The websocket's current client id; None after `kill_api`."""
        return None if self._engine.closed else self._engine.events.client_id

    @property
    def ws_address(self) -> str | None:
        """The websocket's current address; None after `kill_api`."""
        return None if self._engine.closed else self._engine.events.address

    def is_api_running(self) -> bool:
        """Whether ComfyUI answers. (The original ran its test payload here; now every start runs it, once.)"""
        return self._engine.is_answering()

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Ask ComfyUI to unload models, and to drop its cache, after the workflow that runs.

        Raises:
            EngineUnavailable: it cannot be asked.
        """
        with self._engine.asked() as client:
            client.free(unload_models=unload_models, free_memory=free_memory)

    @property
    def not_imported(self) -> tuple[NotImported, ...]:
        """The packs of custom nodes that ComfyUI could not import at its start, as far as it has said so."""
        return self._engine.not_imported

    def lost_packs(self) -> tuple[NotImported, ...]:
        """The same, with the classes that their sources seem to declare."""
        return self._engine.lost_packs()

    def declarations(self, class_types: Iterable[str]) -> Mapping[str, Mapping[str, Any] | None]:
        """What ComfyUI declares of these classes (their entries in `/object_info`); None of one that it does not have.

        A class is missing in the answer if ComfyUI could not be asked.
        """
        return self._engine.declarations(class_types)

    def object_info(self) -> Mapping[str, Any]:
        """What ComfyUI declares of all its classes: `/object_info`. Read once a start.

        Raises EngineUnavailable if ComfyUI cannot be asked.
        """
        return self._engine.all_declared.object_info()

    def object_info_now(self) -> Mapping[str, Any]:
        """The same, asked now, once ComfyUI answers. Raises ComfyError as `wait_ready`."""
        self.wait_ready()
        return self._engine.all_declared.read()

    def embeddings(self) -> frozenset[str]:
        """The names of the embeddings that ComfyUI has, without endings. Raises EngineUnavailable."""
        with self._engine.asked() as client:
            return frozenset(client.embeddings())

    def file_names(self) -> frozenset[str]:
        """The names of the files in ComfyUI's folders, as nodes list them, as far as they are on this machine."""
        return self._engine.file_names()

    def model_places(self) -> Mapping[str, tuple[Path, ...]] | None:
        """Where ComfyUI looks for models, by folder, in the order of its search; None if it does not answer yet.

        Raises:
            EngineUnavailable: it answers, and cannot say it.
        """
        return self._engine.model_places()

    def get_history(self, prompt_id: str) -> dict[str, Any]:
        """`{prompt_id: entry}` once a prompt has ended; `{}` before, and for unknown prompts.

        Raises:
            EngineUnavailable: ComfyUI gives no usable answer.
        """
        with self._engine.asked() as client:
            entry = client.history(prompt_id)
        return {} if entry is None else {prompt_id: entry}

    def get_image(self, filename: str, subfolder: str, folder_type: str) -> bytes:
        """The bytes of a file that ComfyUI made or received.

        Raises:
            FileNotFoundError: ComfyUI has no such file.
            EngineUnavailable: ComfyUI gives no usable answer.
        """
        with self._engine.asked() as client, client.view(filename, subfolder, folder_type) as stream:
            return stream.read()

    @contextmanager
    def hold_folders(self, check: Callable[[], None], *, owner: str | None = None) -> Iterator[None]:
        """Have ComfyUI's folders, if they are on this machine: no other process runs anything with them meanwhile.

        `check` is called during the wait, and ends it by raising. `owner` as for `EngineFolders.hold`.
        """
        own = self._engine.own_folders
        # In an engine that is not ours, what comes between two runs may be other clients'.
        whose = owner if self._engine.process is not None else None
        with own.hold(check, owner=whose) if own is not None else nullcontext():
            yield

    def discard(self, prompt_id: str, *, apart_as: str | None = None) -> None:
        """Remove what a delivered run has left: its entry in the history and, if it was apart, its kept files.

        Never raises: what cannot be removed is logged.
        """
        if apart_as is not None and (own := self._engine.own_folders) is not None:
            own.forget(apart_as)
        self._engine.forget([attempt_id(prompt_id, attempt) for attempt in range(1, MAX_ATTEMPTS + 1)])

    def kept_bytes(self, apart_as: str) -> int:
        """The size in bytes of what is kept of runs that were apart under this name."""
        own = self._engine.own_folders
        return own.kept_bytes(apart_as) if own is not None else 0

    def discard_kept(self, apart_as: str) -> None:
        """Remove that, delivered or not. Never raises: what cannot be removed is logged."""
        if (own := self._engine.own_folders) is not None:
            own.forget(apart_as)
