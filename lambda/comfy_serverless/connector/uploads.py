"""Gives an engine files over HTTP. What is too large for it is refused before it is sent."""

from __future__ import annotations

import logging
from typing import Any, BinaryIO, Protocol

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.unusable import too_large_to_upload, upload_failure

logger = logging.getLogger(__name__)

#: What an upload has beside its file, in bytes: names of fields, and a file name.
_FORM_BYTES = 1024


class _Engine(Protocol):
    client: ComfyClient

    @property
    def starts(self) -> int: ...


class Uploads:
    """The way of files to one engine."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        #: The start it was asked at, and how much ComfyUI takes in one upload; None if it does not say.
        self._limit: tuple[int, int | None] = (-1, None)

    def send(
        self,
        file: BinaryIO,
        name: str,
        *,
        subfolder: str | None,
        folder_type: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Send a file: see `ComfyClient.upload_image`.

        Raises:
            MissingAsset: ComfyUI does not take this file.
            EngineUnavailable: it takes none now.
        """
        client = self._engine.client
        begin = file.tell()
        size_bytes = file.seek(0, 2) - begin
        file.seek(begin)
        limit_bytes = self._limit_bytes(client)
        if limit_bytes is not None and size_bytes + _FORM_BYTES > limit_bytes:
            raise too_large_to_upload(name, size_bytes, limit_bytes, client.server)
        try:
            return client.upload_image(file, name, subfolder=subfolder, folder_type=folder_type, overwrite=overwrite)
        except RequestFailed as failure:
            raise upload_failure(failure, client.server, name) from failure

    def _limit_bytes(self, client: ComfyClient) -> int | None:
        generation, limit_bytes = self._limit
        if generation != self._engine.starts:
            try:
                said = client.features().get("max_upload_size")
            except (RequestFailed, AttributeError) as error:  # older ones have no such route
                logger.info("ComfyUI does not say how much it takes in one upload: %s", error)
                said = None
            limit_bytes = int(said) if isinstance(said, int | float) and said > 0 else None
            self._limit = self._engine.starts, limit_bytes
        return limit_bytes
