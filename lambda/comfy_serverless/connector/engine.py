"""The warm engine: one ComfyUI with its client, its events and its folders, started, watched and replaced.

This module is about the engine alone; the connector runs workflows on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from comfy_serverless.connector.all_declared import AllDeclared
from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.confinement import engine_user
from comfy_serverless.connector.engine_declares import EngineDeclares
from comfy_serverless.connector.events import EventStream
from comfy_serverless.connector.folders import EngineFolders, are_here, names_below
from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.launch import choose_engine, folders_of, model_paths_config
from comfy_serverless.connector.local_files import LocalFiles
from comfy_serverless.connector.made_files import WRITTEN, MadeFiles, Remembered
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.connector.remote_files import RemoteFiles, changed_at
from comfy_serverless.connector.server import Server
from comfy_serverless.connector.silent_classes import SilentClasses
from comfy_serverless.connector.start_patience import StartPatience
from comfy_serverless.connector.unusable import named, unavailable, why_not
from comfy_serverless.connector.uploads import Uploads
from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.graph.nodes import Declared
from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

#: In the folder of ComfyUI's temp folder: for every other process.
_SECOND_TEMP = "comfy-serverless-second"


class Engine(EngineDeclares):
    """A ComfyUI that is kept running: our own process, or the one that COMFYUI_URL names.

    Creating it starts the process without waiting.

    Raises:
        EngineUnavailable: the process cannot be started.
        InvalidSetting: a setting of the engine cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: Held during a whole start: one thread waits for ComfyUI, the others for that thread.
        self._lock = threading.RLock()
        #: Held at the moment of a start and of the end: nothing may start after the end.
        self._switch = threading.Lock()
        self._closed = False
        self._greeted_generation = -1
        self._stats: Mapping[str, Any] = {}
        self._folders: dict[str, Path] = {}
        self._own_folders: EngineFolders | None = None
        self._model_places: tuple[int, Mapping[str, tuple[Path, ...]]] = (-1, {})
        self._lost_packs: tuple[int, tuple[NotImported, ...]] = (-1, ())
        self._declared: dict[str, Declared | None] = {}
        self.all_declared = AllDeclared(self)
        self.uploads = Uploads(self)
        self._remembered = Remembered()
        self.silent_classes = SilentClasses()
        self.process: ComfyProcess | None = None
        #: The process that is to take the place of the first, as soon as it answers.
        self.successor: ComfyProcess | None = None
        self._has_second_temp = False
        if settings.comfyui_url:
            self._connect_to(Server.of_settings(settings))
            return
        self._choice = choose_engine(settings)
        self._first_port: int | None = None
        self.process = self._new_process()
        self.process.start()
        self._connect_to(self._server_at(self.process.port))

    def _new_process(self, *more: str) -> ComfyProcess:
        """A process to be started, whose command line ends with these arguments."""
        choice = self._choice

        def command(port: int) -> list[str]:
            self._first_port = self._first_port or port
            model_paths_config(self._settings)  # it may have been cleaned up since the last start
            return [*choice.arguments(port, first_port=self._first_port), *more]

        return ComfyProcess(
            command,
            host=self._settings.api_url,
            first_port=self._settings.initial_port,
            cwd=choice.cwd,
            environment=choice.environment,
            passed=self._settings.engine_environment,
            user=engine_user(choice.cwd),
            answers=self._answers_at,
        )

    def _connect_to(self, server: Server) -> None:
        self.server = server
        self.client = ComfyClient(server)
        self.events = EventStream(server, app_name=self._settings.app_name)

    def _server_at(self, port: int) -> Server:
        return Server.of_process(self._settings.api_url, port)

    @property
    def is_running(self) -> bool:
        """Whether there is a process to ask. Unknown, and so true, for an engine that is not ours."""
        return not self._closed and (self.process is None or self.process.is_alive)

    @property
    def closed(self) -> bool:
        """Whether it has been stopped for good."""
        return self._closed

    @property
    def input_directory(self) -> Path | None:
        """ComfyUI's input folder, if it is on this machine: made again, should a node have removed it."""
        if "input" in self._folders and self.folder("input") is None and (own := self.own_folders) is not None:
            own.restore()
        return self.folder("input")

    def folder(self, folder_type: str) -> Path | None:
        """Its folder on this machine for files of a type ("input", "output", …)."""
        folder = self._folders.get(folder_type)
        return folder if folder is not None and folder.is_dir() else None

    @property
    def own_folders(self) -> EngineFolders | None:
        """Its folders and ours beside them; None for an engine elsewhere, and before it has answered.

        Raises:
            EngineUnavailable: ours cannot be made.
        """
        with self._switch:
            if self._own_folders is None and self._folders and not self._closed:
                try:
                    self._own_folders = EngineFolders(self._folders)
                except OSError as error:
                    raise EngineUnavailable(f"the files of jobs cannot be kept apart here: {error}") from error
            return self._own_folders

    def made_files(self, apart_as: str | None, *, owner: str = "", is_plain: bool = False) -> MadeFiles:
        """What tells the files of one run from others; see `ComfyConnector.run` for `apart_as`.

        Args:
            owner: whose run it is.
            is_plain: see `own_folder.writes_there_alone`.
        """

        def view(*place: str) -> BinaryIO:
            try:
                return self.client.view(*place)  # of the process that there is by then
            except RequestFailed as failure:  # to whoever reads, a file
                raise ConnectionError(why_not(failure, self.server)) from failure

        if not self._folders:
            client, is_apart = self.client, apart_as is not None
            return RemoteFiles(lambda place: changed_at(client, place), self._remembered, view=view, is_apart=is_apart)
        own = self.own_folders if apart_as is not None else None
        keep_in = own.kept(apart_as) if own is not None and apart_as is not None else None
        if keep_in is None or own is None:
            return LocalFiles(self._folders, self._remembered, view=view)
        stray = own.move_strays if self._remembered.may_have_strays(owner, is_plain=is_plain) else None
        return LocalFiles(self._folders, self._remembered, view=view, keep_in=keep_in, move_strays=stray)

    @contextmanager
    def asked(self) -> Iterator[ComfyClient]:
        """The client, for a block that needs an answer. Raises EngineUnavailable, which says what came instead."""
        try:
            yield self.client
        except RequestFailed as failure:
            raise unavailable(failure, self.server) from failure

    def is_answering(self) -> bool:
        """Whether it answers now."""
        if self._closed:
            return False
        try:
            self.client.queue_remaining()
        except (RequestFailed, KeyError, TypeError, ValueError):
            return False
        return True

    def wait_ready(self, timeout_s: float | None = None, canceled: threading.Event | None = None) -> bool:
        """Wait until it answers; start it again if it has died.

        Args:
            timeout_s: longest wait in seconds; the start's own limit also applies.
            canceled: ends the wait, not the start.

        Returns:
            Whether this is the first call to find this process ready.

        Raises:
            EngineUnavailable: it exited, or did not answer within the start's limit.
            DeadlineExceeded: `timeout_s` passed while it was still starting.
            Canceled: `canceled` was set during the wait.
        """
        patience = StartPatience(timeout_s, canceled)
        while not self._lock.acquire(timeout=patience.next_s()):
            patience.check()
        try:
            return self._wait_answer(patience)
        except EngineUnavailable:
            # A start that `close` has ended is no failure of ComfyUI.
            self._check_open()
            raise
        finally:
            self._lock.release()

    def replace(self, generation: int) -> None:
        """End a broken process and start the next one at once, without waiting for it.

        Args:
            generation: `starts` of the broken process. If it takes several prompts with it, the first one to get here
                replaces it; its successor is left alone.
        """
        if self.process is None or self.starts != generation:
            return
        with self._lock:
            if self.starts != generation or self._closed:
                return
            self.events.drop()
            self.process.kill()
            try:
                self._start(self.process)
            except EngineUnavailable as error:
                # The caller must see the prompt's own failure; the next `wait_ready` tries again.
                logger.warning("ComfyUI could not be started again: %s", error)

    def start_successor(self) -> None:
        """Start the process that is to take the place of this one, beside it and without waiting.

        Raises:
            EngineUnavailable: it cannot be started.
        """
        successor = self._new_process(*self._second_temp())
        with self._switch:
            self._check_open()
            self.successor = successor
            successor.start()

    def _second_temp(self) -> tuple[str, ...]:
        """ComfyUI empties its temp folder when it starts: a process beside another one gets a folder of its own."""
        if self._has_second_temp or "temp" not in self._folders:
            return ()
        return ("--temp-directory", str(self._folders["temp"].parent / _SECOND_TEMP))

    def drop_successor(self) -> None:
        """End the process that was to take the place of this one, if there is one."""
        with self._switch:
            successor, self.successor = self.successor, None
        if successor is not None:
            successor.stop()

    def hand_over(self) -> bool:
        """Let the successor, which answers, take the place of the process; nothing runs. False while one starts."""
        old, successor = self.process, self.successor
        if old is None or successor is None or not self._lock.acquire(blocking=False):
            return False
        try:
            with self._switch:
                self._check_open()
                successor.starts = old.starts + 1
                self.process, self.successor = successor, None
                self._has_second_temp = not self._has_second_temp
            self.events.drop()
            old.kill()
        finally:
            self._lock.release()
        return True

    def free_memory(self, *, unload_models: bool) -> None:
        """Ask it to drop cached results, and to unload models, before the next prompt. A failure is only logged."""
        try:
            self.client.free(unload_models=unload_models, free_memory=True)
        except RequestFailed as error:
            logger.warning("ComfyUI could not be asked to free memory: %s", error)

    def forget(self, prompt_ids: Iterable[str]) -> None:
        """Ask it to remove prompts from its history. A failure is only logged; a new process has no history."""
        if not self.is_running:
            return
        try:
            self.client.delete_history(list(prompt_ids))
        except RequestFailed as error:
            logger.warning("ComfyUI could not be asked to forget a prompt: %s", error)

    def file_names(self) -> frozenset[str]:
        """The names of the files in its folders, below the folder and alone, as far as they are on this machine."""
        folders = filter(None, map(self.folder, ("input", *WRITTEN)))
        return frozenset(name for folder in folders for name in names_below(folder))

    def close(self) -> None:
        """Stop the process and everything it started, and close all connections. Idempotent."""
        with self._switch:
            self._closed = True
        self.events.close()
        self.drop_successor()
        if self.process is not None:
            self.process.stop()
        self.client.close()
        if self._own_folders is not None:
            self._own_folders.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("this connector was closed by kill_api(); create a new ComfyConnector()")

    def _start(self, process: ComfyProcess) -> None:
        with self._switch:
            self._check_open()
            process.start()

    def _wait_answer(self, patience: StartPatience) -> bool:
        self._check_open()
        if self.process is not None:
            self._wait_process(self.process, patience)
        elif self._greeted_generation < 0:
            self._check_answer()
        if self._greeted_generation == self.starts:
            return False
        self._greet()
        return True

    def _check_answer(self) -> None:
        """Raise EngineUnavailable unless a ComfyUI answers."""
        try:
            self.client.queue_remaining()
        except RequestFailed as failure:
            raise unavailable(failure, self.server) from failure
        except (KeyError, TypeError, ValueError) as error:
            raise EngineUnavailable(
                f"what answers at {named(self.server)} is not a ComfyUI: it says nothing of a queue. Check the address"
            ) from error

    def _wait_process(self, process: ComfyProcess, patience: StartPatience) -> None:
        if not process.is_alive:
            self.events.drop()
            self._start(process)
        # Counted from now, not from its start: the sandbox may have been frozen since.
        limit = time.monotonic() + self._settings.start_timeout_s
        while not process.wait_ready(min(patience.next_s(), max(0.0, limit - time.monotonic()))):
            if time.monotonic() >= limit:
                break
            patience.check()
        else:
            return
        log_tail = process.log_tail
        process.stop()
        raise EngineUnavailable(
            f"ComfyUI did not answer within {self._settings.start_timeout_s:g} s of its start "
            "(MAX_COMFY_START_ATTEMPTS x COMFY_START_ATTEMPTS_SLEEP)",
            details={"log_tail": log_tail},
        )

    def _greet(self) -> None:
        """Learn about an engine that has just begun to answer."""
        process = self.process
        if process is not None and self._server_at(process.port) != self.server:
            self.disconnect(self._server_at(process.port))
        try:
            self._stats = self.client.system_stats()
        except RequestFailed as error:
            raise EngineUnavailable(f"ComfyUI stopped answering: {why_not(error, self.server)}") from error
        folders = folders_of(self._stats, process.cwd) if process is not None else {}
        folders = {kind: folder.resolve() for kind, folder in folders.items()}
        # What its command line does not tell we do not know: then it is as an engine elsewhere.
        self._folders = folders if folders and are_here(folders) else {}
        if self._own_folders is not None and self._folders:
            self._own_folders.follow(self._folders)
        self._declared = {}
        written = {kind: folder for kind, folder in self._folders.items() if kind in WRITTEN}
        self._remembered = Remembered(written, pid=process.pid if process is not None else None)
        self.silent_classes = SilentClasses()
        self._greeted_generation = self.starts
        logger.info("%s answers at %s", self.name, self.server)
        for lost in self.not_imported:
            logger.warning("the custom nodes of %r did not import: %s", lost.pack, lost.reason)

    def disconnect(self, server: Server | None = None) -> None:
        """Close all connections; the next ones are made when they are needed, to the server given or as before."""
        self.events.close()
        self.client.close()
        self._connect_to(server or self.server)

    def _answers_at(self, port: int) -> bool:
        client = ComfyClient(self._server_at(port))
        try:
            client.queue_remaining()
        except (RequestFailed, KeyError, TypeError, ValueError):
            return False
        finally:
            client.close()
        return True
