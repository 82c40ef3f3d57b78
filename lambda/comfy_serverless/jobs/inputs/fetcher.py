"""Bring a job's inputs to ComfyUI: fetch each, check it, upload it, and put its name into the graph.

Sources are `s3://bucket/key`, `https://`, `data:…;base64,` and, for the request's `inputs`, bare base64.
They come from strangers: sizes, times and addresses are limited, images are decoded before ComfyUI sees
them, and a file's name in ComfyUI's input folder is made from its content alone, so that equal inputs are
one file and ComfyUI's cache holds.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from comfy_serverless.errors import ComfyError, DeadlineExceeded, InvalidWorkflow, MissingAsset
from comfy_serverless.jobs.inputs.download import Network, open_web_address
from comfy_serverless.jobs.inputs.sources import (
    Embedded,
    Source,
    Stream,
    Unusable,
    WebAddress,
    is_address,
    open_embedded,
    open_object,
    parse,
    show,
)
from comfy_serverless.jobs.s3 import AssetUnavailable, S3Address
from comfy_serverless.node_lookup import NodeLookup, listing
from comfy_serverless.workflow import copy_graph, is_link

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

#: Different files one job may bring.
MAX_INPUTS = 100
_FETCHES_AT_ONCE = 8
#: Seconds before a fetch that broke off is tried again, and again.
_RETRY_PAUSES_S = (0.2, 1.0)

#: Inputs that take the name of a file: by class, then by name for classes not listed. True: the file is an
#: image.
_FILE_INPUTS: Mapping[str, Mapping[str, bool]] = {
    "Load3D": {"model_file": False},
    "Load3DAnimation": {"model_file": False},
    "LoadAudio": {"audio": False},
    "LoadImage": {"image": True},
    "LoadImageMask": {"image": True},
    "LoadImageOutput": {"image": True},
    "LoadLatent": {"latent": False},
    "LoadVideo": {"file": False},
    "VHS_LoadAudioUpload": {"audio": False},
    "VHS_LoadVideo": {"video": False},
    "VHS_LoadVideoFFmpeg": {"video": False},
}
_FILE_INPUT_NAMES = {"image": True, "mask": True, "video": False, "audio": False, "file": False}
#: Classes of custom nodes that want the address itself.
_TAKES_ADDRESSES = re.compile(r"url|http|base64|path|s3", re.IGNORECASE)

#: File name endings a file that is no image may keep. ComfyUI serves its input folder: nothing a browser
#: runs.
_ENDINGS = frozenset(
    {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".webm"}
    | {".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}
    | {".fbx", ".glb", ".gltf", ".obj", ".ply", ".stl"}
    | {".jpg", ".latent", ".png", ".webp"}
)


class Uploader(Protocol):
    """What of the connector is needed here."""

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        """Put a file into ComfyUI's input folder; answers the value an input takes for it."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An input to bring: where it goes, and the text that says where it comes from."""

    address: str
    targets: tuple[tuple[str, str], ...]
    text: str
    is_image: bool

    @property
    def file(self) -> tuple[str, bool]:
        """What makes two inputs the same file."""
        return self.text, self.is_image


class InputFetcher:
    """Fetches the inputs of jobs. One instance serves all jobs of a process; safe to use from several threads."""

    def __init__(
        self, *, settings: Settings, s3: S3Client, connector: Uploader, network: Network | None = None
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._connector = connector
        self._network = network or Network(allow_private=settings.allow_private_addresses)
        #: One image is decoded at a time: each may take gigabytes.
        self._decoding = threading.Lock()

    def prepare(
        self, graph: Mapping[str, Any], inputs: Mapping[str, str], *, job_id: str, deadline: float
    ) -> dict[str, Any]:
        """A copy of the graph with every input fetched, checked, uploaded to ComfyUI, and its name put in.

        Fetched are the values of `inputs` (addresses as in `workflow.targets`; where two mean the same
        input the more specific one wins) and every address found in a file input of the graph itself.

        Args:
            graph: has passed `workflow.check_format`.
            deadline: on the monotonic clock; INPUT_TIMEOUT_S limits each fetch as well.

        Raises:
            InvalidWorkflow: an address of `inputs` means nothing here; all are in `details["inputs"]`.
            MissingAsset: an input cannot be fetched or used; all are in `details["inputs"]`.
            AssetUnavailable: the same, but sending the job again may help.
            DeadlineExceeded: the job's time is over.
            ComfyError: whatever the connector raises when it cannot take the files.
        """
        wanted = [*_requested(graph, inputs)]
        requested = {target for entry in wanted for target in entry.targets}
        wanted = [*_found_in(graph, requested), *wanted]
        result = copy_graph(graph)
        names = self._bring_all(wanted, job_id=job_id, deadline=deadline)
        for entry in wanted:
            for node_id, name in entry.targets:
                result[node_id]["inputs"][name] = names[entry.file]
        return result

    def _bring_all(self, wanted: list[_Wanted], *, job_id: str, deadline: float) -> dict[tuple[str, bool], str]:
        """Bring every file once, several at the same time; all failures are told together."""
        files = list(dict.fromkeys(entry.file for entry in wanted))
        if not files:
            return {}
        if len(files) > MAX_INPUTS:
            raise MissingAsset(f"The job has {len(files)} different inputs; at most {MAX_INPUTS} are fetched.")
        pool = ThreadPoolExecutor(min(_FETCHES_AT_ONCE, len(files)), thread_name_prefix="input")
        try:
            fetches = {file: pool.submit(self._bring, *file, job_id=job_id, deadline=deadline) for file in files}
            # Fetches keep the deadline themselves; only a name that is not resolved in time outlives it.
            wait(fetches.values(), timeout=max(0.0, deadline - time.monotonic()) + 0.5)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        failures: dict[tuple[str, bool], Unusable] = {}
        for file, fetch in fetches.items():
            failure = _failure(fetch)
            if isinstance(failure, Unusable):
                failures[file] = failure
            elif failure is not None:
                raise failure  # not the input's fault: the connector's, or ours
        if failures:
            is_over = time.monotonic() >= deadline
            raise _refusal(wanted, failures, is_over=is_over) from next(iter(failures.values()))
        return {file: fetch.result() for file, fetch in fetches.items()}

    def _bring(self, text: str, is_image: bool, *, job_id: str, deadline: float) -> str:
        """Fetch, check and upload one file; answers the value an input takes for it."""
        start = time.monotonic()
        source = self._allowed(parse(text))
        with tempfile.NamedTemporaryFile(prefix="comfy-input-") as file:
            limit = min(deadline, start + self._settings.input_timeout_s)
            size_bytes, digest, content_type = self._land(source, file, deadline=limit)
            if is_image:
                # Here, so that Pillow is loaded while the file is on its way and not when a worker starts.
                from comfy_serverless.jobs.inputs.images import check_image

                with self._decoding:
                    ending = check_image(Path(file.name), max_pixels=self._settings.max_input_pixels)
            else:
                ending = _ending(source, content_type)
            value = self._connector.upload_file(Path(file.name), f"{digest[:32]}{ending}")
        logger.info(
            "input fetched",
            extra={
                "job_id": job_id,
                "source": str(source),
                "file": value,
                "bytes": size_bytes,
                "fetch_ms": round((time.monotonic() - start) * 1000),
            },
        )
        return value

    def _allowed(self, source: Source) -> Source:
        buckets = self._settings.allowed_input_buckets
        if isinstance(source, S3Address) and buckets and source.bucket not in buckets:
            raise Unusable(f"its bucket is not allowed; ALLOWED_INPUT_BUCKETS has {', '.join(buckets)}")
        return source

    def _land(self, source: Source, file: IO[bytes], *, deadline: float) -> tuple[int, str, str]:
        """Read a source into a file, trying again what may have been an accident: size, SHA-256, content type."""
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                with self._open(source, deadline=deadline) as stream:
                    size_bytes, digest = self._copy(stream, file, deadline=deadline)
                    return size_bytes, digest, stream.content_type
            except Unusable as failure:
                if not failure.transient or pause_s is None or time.monotonic() + pause_s >= deadline:
                    raise
                time.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open(self, source: Source, *, deadline: float) -> AbstractContextManager[Stream]:
        if isinstance(source, S3Address):
            return open_object(source, self._s3)
        if isinstance(source, Embedded):
            return open_embedded(source, max_bytes=self._settings.max_input_bytes)
        return open_web_address(source.url, network=self._network, deadline=deadline)

    def _copy(self, stream: Stream, file: IO[bytes], *, deadline: float) -> tuple[int, str]:
        """Write a stream to the start of a file, within the limits; answers size and SHA-256."""
        limit = self._settings.max_input_bytes
        if (stream.size_bytes or 0) > limit:
            raise Unusable(f"has {stream.size_bytes} bytes; the limit is {limit} (MAX_INPUT_BYTES)")
        digest = hashlib.sha256()
        size_bytes = 0
        file.seek(0)
        file.truncate()
        for chunk in stream.chunks:
            size_bytes += len(chunk)
            if size_bytes > limit:
                raise Unusable(f"has more than {limit} bytes, the limit (MAX_INPUT_BYTES)")
            if time.monotonic() > deadline:
                raise Unusable("did not arrive in time (INPUT_TIMEOUT_S, or the job's deadline)", timed_out=True)
            digest.update(chunk)
            _write(file, chunk)
        if not size_bytes:
            raise Unusable("is empty")
        return size_bytes, digest.hexdigest()


def _requested(graph: Mapping[str, Any], inputs: Mapping[str, str]) -> Iterator[_Wanted]:
    """What a request's `inputs` ask for, the least specific address first: later ones win."""
    meanings, problems = NodeLookup(graph).resolve_all(inputs)
    for meaning in meanings:
        for node_id, name in meaning.targets:
            if is_link(value := graph[node_id]["inputs"][name]):
                problems[meaning.address] = f"is connected to node {value[0]!r}: name the input of a loader"
    if problems:
        raise InvalidWorkflow(f"`inputs` does not fit the workflow: {listing(problems)}.", details={"inputs": problems})
    for meaning in meanings:
        is_image = any(_takes_image(graph[node_id]["class_type"], name) for node_id, name in meaning.targets)
        yield _Wanted(meaning.address, tuple(meaning.targets), inputs[meaning.address], is_image)


def _found_in(graph: Mapping[str, Any], without: set[tuple[str, str]]) -> Iterator[_Wanted]:
    """The addresses that stand in file inputs of the graph itself."""
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            if not isinstance(value, str) or (node_id, name) in without or not is_address(value):
                continue
            is_image = _takes_image(node["class_type"], name)
            if is_image is not None:
                yield _Wanted(f"{node_id}.{name}", ((node_id, name),), value, is_image)


def _takes_image(class_type: str, input_name: str) -> bool | None:
    """Whether an input takes the name of an image file (True), of another file (False), or none (None)."""
    if class_type in _FILE_INPUTS:
        return _FILE_INPUTS[class_type].get(input_name)
    if _TAKES_ADDRESSES.search(class_type):
        return None
    return _FILE_INPUT_NAMES.get(input_name)


def _failure(fetch: Future[str]) -> BaseException | None:
    """Why a fetch has brought nothing; None if it has."""
    if not fetch.done() or fetch.cancelled():
        return Unusable("was not there when the job's time was over", timed_out=True)
    return fetch.exception()


def _refusal(wanted: Iterable[_Wanted], failures: Mapping[tuple[str, bool], Unusable], *, is_over: bool) -> ComfyError:
    """The one exception for all failures of a job's inputs."""
    reasons: dict[str, str] = {}
    told: list[str] = []
    for entry in wanted:
        failure = failures.get(entry.file)
        if failure is None:
            continue
        nodes = ", ".join(f"node {node_id} input {name!r}" for node_id, name in entry.targets)
        reasons[entry.address] = f"{show(entry.text)}: {failure}"
        told.append(f"{entry.address} ({nodes}) from {reasons[entry.address]}")
    if is_over and any(failure.timed_out for failure in failures.values()):
        return DeadlineExceeded(
            f"The job's time was over before its inputs had been fetched: {'; '.join(told)}.",
            details={"inputs": reasons},
        )
    error_class = AssetUnavailable if all(failure.transient for failure in failures.values()) else MissingAsset
    return error_class(f"Inputs cannot be used: {'; '.join(told)}.", details={"inputs": reasons})


def _ending(source: Source, content_type: str) -> str:
    """The file name ending for a file that is no image: the source's own where it is a known one."""
    path = source.key if isinstance(source, S3Address) else ""
    if isinstance(source, WebAddress):
        path = urlsplit(source.url).path
    named = PurePosixPath(path).suffix.lower()
    guessed = mimetypes.guess_extension(content_type.partition(";")[0].strip().lower()) or ""
    return next((ending for ending in (named, guessed) if ending in _ENDINGS), ".bin")


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise Unusable(f"cannot be stored on the worker's disk: {error.strerror}", transient=True) from error
