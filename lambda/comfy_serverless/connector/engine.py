"""The warm engine: one ComfyUI with its client, its events and its folders, started, watched and replaced.

What is here is about the engine alone; what runs on it is the connector's part.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from comfy_serverless.connector.choice import choose_engine, engine_name, folders_of
from comfy_serverless.connector.client import ComfyClient
from comfy_serverless.connector.events import EventStream
from comfy_serverless.connector.outputs import FileLocator
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.errors import DeadlineExceeded, EngineUnavailable
from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)


class Engine:
    """A ComfyUI that is kept running: our own process, or one that COMFYUI_URL names.

    Creating it starts the process and does not wait.

    Raises:
        EngineUnavailable: the process cannot be started.
        InvalidSetting: a setting of the engine cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: Held during a whole start: one thread waits for ComfyUI, the others for that thread.
        self._lock = threading.RLock()
        #: Held for the moment of a start and of the end, so that nothing is started after the end.
        self._switch = threading.Lock()
        self._closed = False
        self._greeted_generation = -1
        self._stats: Mapping[str, Any] = {}
        self._folders: dict[str, list[Path]] = {}
        self.process: ComfyProcess | None = None
        if settings.comfyui_url:
            self._connect_to(settings.comfyui_url.rstrip("/"))
            return
        choice = choose_engine(settings)
        self.process = ComfyProcess(
            choice.arguments,
            host=settings.api_url,
            first_port=settings.initial_port,
            cwd=choice.cwd,
            environment=choice.environment,
            answers=self._answers_at,
        )
        self.process.start()
        self._connect_to(self._address(self.process.port))

    def _connect_to(self, server_address: str) -> None:
        self.server_address = server_address
        self.client = ComfyClient(server_address)
        self.events = EventStream(server_address, app_name=self._settings.app_name)

    def _address(self, port: int) -> str:
        return f"http://{self._settings.api_url}:{port}"

    @property
    def name(self) -> str:
        """What executes workflows here: "ComfyUI 0.3.64", or the embedded engine. Empty until it has answered."""
        return engine_name(self._stats) if self._stats else ""

    @property
    def is_embedded(self) -> bool:
        """Whether it is `comfy_lite`, which has no models and no custom nodes."""
        return "comfy_lite_version" in self._stats.get("system", {})

    @property
    def starts(self) -> int:
        """How many processes have been started; 0 for an engine that was running already."""
        return self.process.starts if self.process else 0

    @property
    def closed(self) -> bool:
        """Whether it was stopped for good."""
        return self._closed

    @property
    def input_directory(self) -> Path | None:
        """ComfyUI's input folder, when it is on this machine."""
        return next((folder for folder in self._folders.get("input", ()) if folder.is_dir()), None)

    @property
    def locator(self) -> FileLocator:
        """Finds the files the engine names."""
        return FileLocator(self._folders, self.client.view)

    def is_answering(self) -> bool:
        """Whether it answers now."""
        if self._closed:
            return False
        try:
            self.client.queue_remaining()
        except (requests.RequestException, KeyError, TypeError, ValueError):
            return False
        return True

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until it answers; start it again if it has died.

        Args:
            timeout_s: longest wait in seconds; the start's own limit holds besides.

        Returns:
            Whether this is the first time that this process is found ready.

        Raises:
            EngineUnavailable: it exited, or did not answer within the start's limit.
            DeadlineExceeded: `timeout_s` passed while it was still starting.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise DeadlineExceeded("the deadline passed while ComfyUI was still starting")
        try:
            return self._wait_answer(deadline)
        except EngineUnavailable:
            # A start that `close` broke off is no failure of ComfyUI.
            self._check_open()
            raise
        finally:
            self._lock.release()

    def replace(self, generation: int) -> None:
        """End a broken process and start the next one at once; nobody waits for it here.

        Args:
            generation: `starts` of the process that is broken. Of several prompts that it takes with it the first one
                to get here replaces it; its successor is not touched.
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
                # The prompt's own failure is what its caller must hear of; the next `wait_ready` tries again.
                logger.warning("ComfyUI could not be started again: %s", error)

    def free_memory(self, *, unload_models: bool) -> None:
        """Forget cached results, and unload models, before the next prompt, as far as it can be asked to."""
        try:
            self.client.free(unload_models=unload_models, free_memory=True)
        except requests.RequestException as error:
            logger.warning("ComfyUI could not be asked to free memory: %s", error)

    def has_file(self, name: str, subfolder: str, folder_type: str) -> bool:
        """Whether it still has a file that it named. True also when it cannot be asked: then nothing is known."""
        try:
            return self.client.exists(name, subfolder, folder_type)
        except requests.RequestException as error:
            logger.warning("ComfyUI could not be asked for %s: %s", name, error)
            return True

    def close(self) -> None:
        """Stop the process with everything it started, and close all connections. Idempotent."""
        with self._switch:
            self._closed = True
        self.events.close()
        if self.process is not None:
            self.process.stop()
        self.client.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("this connector was closed by kill_api(); create a new ComfyConnector()")

    def _start(self, process: ComfyProcess) -> None:
        with self._switch:
            self._check_open()
            process.start()

    def _wait_answer(self, deadline: float | None) -> bool:
        self._check_open()
        if self.process is not None:
            self._wait_process(self.process, deadline)
        elif self._greeted_generation < 0 and not self.is_answering():
            raise EngineUnavailable(f"no ComfyUI answers at {self.server_address} (COMFYUI_URL)")
        if self._greeted_generation == self.starts:
            return False
        self._greet()
        return True

    def _wait_process(self, process: ComfyProcess, deadline: float | None) -> None:
        if not process.is_alive:
            self.events.drop()
            self._start(process)
        limit = process.started_at + self._settings.start_timeout_s
        until = limit if deadline is None else min(limit, deadline)
        if process.wait_ready(max(0.0, until - time.monotonic())):
            return
        if until < limit:
            raise DeadlineExceeded("the deadline passed while ComfyUI was still starting")
        log_tail = process.log_tail
        process.stop()
        raise EngineUnavailable(
            f"ComfyUI did not answer within {self._settings.start_timeout_s:g} s of its start "
            "(MAX_COMFY_START_ATTEMPTS x COMFY_START_ATTEMPTS_SLEEP)",
            details={"log_tail": log_tail},
        )

    def _greet(self) -> None:
        """Get to know an engine that has just begun to answer."""
        process = self.process
        if process is not None and self._address(process.port) != self.server_address:
            self.events.close()
            self.client.close()
            self._connect_to(self._address(process.port))
        try:
            self._stats = self.client.system_stats()
        except requests.RequestException as error:
            raise EngineUnavailable(f"ComfyUI at {self.server_address} stopped answering: {error}") from error
        self._folders = folders_of(self._stats, process.cwd) if process is not None else {}
        self._greeted_generation = self.starts
        logger.info("%s answers at %s", self.name, self.server_address)

    def _answers_at(self, port: int) -> bool:
        client = ComfyClient(self._address(port))
        try:
            client.queue_remaining()
        except (requests.RequestException, KeyError, TypeError, ValueError):
            return False
        finally:
            client.close()
        return True
