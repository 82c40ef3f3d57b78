"""What an engine says of itself: its version, node classes, lost packs, places of models. Asked once a start."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.launch import engine_name, places_of
from comfy_serverless.connector.pack_sources import declared_classes
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.graph.nodes import Declared, declared

logger = logging.getLogger(__name__)

#: Longest time for reading the declarations that explain a refusal, in seconds.
_DECLARATIONS_S = 5.0


class EngineDeclares:
    """The part of `Engine` that remembers what it says of itself.

    Attributes:
        client: asks it.
        process: runs it; None for one elsewhere.
    """

    client: ComfyClient
    process: ComfyProcess | None
    _stats: Mapping[str, Any]
    #: The start after which it has answered; -1 before the first.
    _greeted_generation: int
    #: The start they were read from, and where they are.
    _model_places: tuple[int, Mapping[str, tuple[Path, ...]]]
    _lost_packs: tuple[int, tuple[NotImported, ...]]
    #: What the engine says of classes; nothing where it does not know one.
    _declared: dict[str, Declared | None]

    @property
    def name(self) -> str:
        """The engine's name and version: "ComfyUI 0.3.64", or the embedded engine. Empty until it has answered."""
        return engine_name(self._stats) if self._stats else ""

    @property
    def is_embedded(self) -> bool:
        """Whether it is `comfy_lite`, which has neither models nor custom nodes."""
        return "comfy_lite_version" in self._stats.get("system", {})

    @property
    def stats(self) -> Mapping[str, Any]:
        """What it said of itself when it had started: `/system_stats`."""
        return self._stats

    @property
    def starts(self) -> int:
        """How many processes this engine has started; 0 if ComfyUI was running already."""
        return self.process.starts if self.process else 0

    def declarations(self, class_types: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """How ComfyUI declares these classes now, with the files it finds now; None for classes it does not know.

        Reading stops after a few seconds: nothing is known about a class that is missing from the result.
        """
        declarations: dict[str, dict[str, Any] | None] = {}
        give_up_at = time.monotonic() + _DECLARATIONS_S
        for class_type in dict.fromkeys(class_types):
            if time.monotonic() >= give_up_at:
                logger.warning("ComfyUI takes too long to declare its nodes: %d were read", len(declarations))
                break
            try:
                answer = self.client.object_info(class_type)
                declarations[class_type] = answer.get(class_type) if isinstance(answer, dict) else None
            except RequestFailed as error:
                logger.info("ComfyUI does not declare %r: %s", class_type, error)
                if error.status is None:
                    break  # no answer at all; with a status, only this class cannot declare itself
        return declarations

    def declared(self, class_types: Iterable[str]) -> dict[str, Declared]:
        """What ComfyUI says of these classes; nothing of those that it does not know. Asked once a start for each."""
        wanted = dict.fromkeys(class_types)
        missing = [class_type for class_type in wanted if class_type not in self._declared]
        for class_type, declaration in self.declarations(missing).items() if missing else ():
            self._declared[class_type] = declared(declaration) if declaration is not None else None
        return {class_type: said for class_type in wanted if (said := self._declared.get(class_type)) is not None}

    def known_declared(self) -> Mapping[str, Declared]:
        """What it has said of classes so far; asks nothing."""
        return {class_type: said for class_type, said in self._declared.items() if said is not None}

    @property
    def not_imported(self) -> tuple[NotImported, ...]:
        """The packs of custom nodes that the running process could not import; none are known of one elsewhere."""
        return self.process.not_imported if self.process is not None else ()

    def lost_packs(self) -> tuple[NotImported, ...]:
        """The same, with the classes that their sources seem to declare. Reads those once a start."""
        generation, packs = self._lost_packs
        if generation != self.starts or len(packs) != len(self.not_imported):
            packs = tuple(replace(lost, classes=declared_classes(self._cwd / lost.path)) for lost in self.not_imported)
            self._lost_packs = self.starts, packs
        return packs

    def model_places(self) -> Mapping[str, tuple[Path, ...]] | None:
        """Where ComfyUI looks for models, by folder, in the order of its search. Asked once a start.

        None if it has not answered since its start, or does not now. Raises EngineUnavailable if it cannot say it.
        """
        generation, places = self._model_places
        if generation != self.starts:
            if self._greeted_generation != self.starts:
                return None
            try:
                generation, places = self.starts, places_of(self.client.model_folders(), self._cwd)
            except RequestFailed as error:
                if error.status is None:
                    return None
                raise EngineUnavailable(
                    f"ComfyUI cannot say where its models are, so no job can bring any: {error}. Use a newer one."
                ) from error
            self._model_places = generation, places
        return places

    @property
    def _cwd(self) -> Path:
        return Path.cwd() if self.process is None else self.process.cwd
