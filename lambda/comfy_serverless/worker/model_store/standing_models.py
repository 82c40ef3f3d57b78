"""The models every job needs: fetched once, in the background, beside the start of ComfyUI, and kept for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_serverless.aws.s3 import S3Address, read_json
from comfy_serverless.errors import DeadlineExceeded, InvalidRequest
from comfy_serverless.jobs.request import ModelRequest, parse_manifest
from comfy_serverless.json_text import parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Manifest:
    """Fetches and holds the models of a manifest by calling `fetch`, and tries again for the next job if that fails."""

    def __init__(self, fetch: Callable[[], None]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._fetching: Future[None] | None = None

    def start(self) -> Future[None]:
        """Begin, unless it has begun and not failed."""
        with self._lock:
            fetching = self._fetching
            if fetching is None or (fetching.done() and fetching.exception() is not None):
                fetching = self._fetching = Future()
                # A daemon: a download must not keep the process from ending.
                threading.Thread(target=self._run, args=(fetching,), name="models-manifest", daemon=True).start()
            return fetching

    def wait(self, deadline: float) -> None:
        """Wait until the models are there. Raises DeadlineExceeded, or the ComfyError why they cannot be fetched."""
        try:
            self.start().result(max(0.0, deadline - time.monotonic()))
        except NotDone:
            raise DeadlineExceeded("The job's time was over before the models of MODELS_MANIFEST were there.") from None

    def _run(self, fetching: Future[None]) -> None:
        try:
            self._fetch()
        except BaseException as error:  # noqa: BLE001 - the job that waits gets it
            fetching.set_exception(error)
        else:
            fetching.set_result(None)


def read_manifest(place: str, s3: S3Client) -> tuple[ModelRequest, ...]:
    """The models that a manifest at a path or `s3://bucket/key` names.

    Raises InvalidRequest if it is not there or not a list of models, MissingAsset if it cannot be read from S3.
    """
    if place.startswith("s3://"):
        return parse_manifest(read_json(s3, S3Address.parse(place), what="the manifest of models"), source=place)
    try:
        content = Path(place).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"MODELS_MANIFEST={place!r} cannot be read: {error.strerror}.") from error
    return parse_manifest(parse_json(content, source=place), source=place)
