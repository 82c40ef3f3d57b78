"""Brings a job's inputs to ComfyUI: fetches each, checks it, uploads it, and puts its name into the graph.

Sources are `s3://bucket/key`, `https://`, `data:…;base64,` and, for the request's `inputs`, bare base64. They come
from strangers: sizes, times and addresses are limited, images are decoded before ComfyUI sees them, and a file's name
in ComfyUI's input folder is made from its content alone, so that equal inputs are one file and ComfyUI's cache holds.
"""

from __future__ import annotations

import contextvars
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from comfy_serverless.errors import AssetUnavailable, ComfyError, DeadlineExceeded, MissingAsset
from comfy_serverless.fetch.sources import Unusable, UnusableMask, show
from comfy_serverless.fetch.web import Network
from comfy_serverless.graph.file_inputs import name_in_input_folder
from comfy_serverless.sandbox.refused import MaskRefused, Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.inputs.cache import DIGEST_LENGTH, TOO_LATE, HeldFiles, InputCache, Uploader
from comfy_serverless.worker.inputs.plan import (
    MAX_INPUTS,
    Asset,
    Origin,
    Wanted,
    plan_inputs,
    put_name,
    refuse_names_of_others,
    refuse_other_kinds,
)
from comfy_serverless.worker.inputs.receive import Receiver
from comfy_serverless.worker.temporary import remove_left, temporary_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

_FETCHES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class PreparedInputs:
    """A copy of a job's graph whose file inputs name files in ComfyUI's input folder.

    `show` puts the files there, when it is the job's turn, and `release` takes them away: idempotent, never raises.
    """

    graph: dict[str, Any]
    show: Callable[[float], None]
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Local:
    """An input on this machine's disk, and the name that its content gives it."""

    path: Path
    name: str
    size_bytes: int
    source: str


class InputFetcher:
    """Fetches the inputs of jobs. One instance serves all jobs of a process; safe to use from several threads."""

    def __init__(
        self,
        *,
        settings: Settings,
        s3: S3Client | None,
        connector: Uploader,
        network: Network | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._settings = settings
        self._connector = connector
        self._cache = InputCache(connector, max_bytes=settings.input_cache_bytes)
        self._receiver = Receiver(
            settings=settings,
            s3=s3,
            network=network or Network.of(settings),
            make_room=self._cache.make_room,
        )
        self._sandbox = sandbox or Sandbox()
        remove_left()

    def prepare(
        self,
        graph: Mapping[str, Any],
        inputs: Mapping[str, str | list[str]],
        *,
        job_id: str,
        owner: str,
        deadline: float,
    ) -> PreparedInputs:
        """A copy of the graph with every input fetched, checked, ready for ComfyUI, and its name put in.

        The values of `inputs` are fetched (addresses as in `workflow.targets`; where two mean the same input the more
        specific one wins), and every address found in a file input of the graph itself. A list makes a batch of its
        images; a `mask` is put into the alpha of its loader's image.

        Args:
            graph: has passed `workflow.check_format`.
            owner: whose job it is; "" for the operator.
            deadline: on the monotonic clock; INPUT_TIMEOUT_S limits each fetch as well.

        Raises:
            InvalidWorkflow: an address of `inputs` means nothing here; all are in `details["inputs"]`.
            MissingAsset: an input cannot be fetched or used; all are in `details["inputs"]`.
            AssetUnavailable: the same, but sending the job again may help.
            DeadlineExceeded: the job's time is over.
            ComfyError: the connector cannot take the files.
        """
        refuse_names_of_others(graph, inputs)
        return self._place(graph, inputs, is_owners=False, job_id=job_id, owner=owner, deadline=deadline)

    def place(
        self, graph: Mapping[str, Any], inputs: Mapping[str, Origin | Sequence[Origin]], *, job_id: str, deadline: float
    ) -> PreparedInputs:
        """As `prepare`, for the owner of this machine, who may give files of it and read the outputs of other jobs."""
        return self._place(graph, inputs, is_owners=True, job_id=job_id, owner="", deadline=deadline)

    def _place(
        self,
        graph: Mapping[str, Any],
        inputs: Mapping[str, Origin | Sequence[Origin]],
        *,
        is_owners: bool,
        job_id: str,
        owner: str,
        deadline: float,
    ) -> PreparedInputs:
        plan = plan_inputs(graph, inputs)
        files = HeldFiles(self._cache)
        try:
            names = self._bring_all(
                plan.wanted, files, is_owners=is_owners, job_id=job_id, owner=owner, deadline=deadline
            )
        except BaseException:
            files.release()
            raise
        for entry in plan.wanted:
            put_name(plan.graph, entry, names[entry.asset])
        try:
            images = {name for asset, name in names.items() if asset.is_image}
            refuse_other_kinds(plan.graph, set(names.values()) - images)
        except BaseException:
            files.release()
            raise
        return PreparedInputs(plan.graph, files.show, files.release)

    def _bring_all(
        self, wanted: Sequence[Wanted], held: HeldFiles, *, is_owners: bool, job_id: str, owner: str, deadline: float
    ) -> dict[Asset, str]:
        """Bring every file once, several at the same time; all failures are reported together."""
        assets = list(dict.fromkeys(entry.asset for entry in wanted))
        if not assets:
            return {}
        if len(assets) > MAX_INPUTS:
            raise MissingAsset(f"The job has {len(assets)} different inputs; at most {MAX_INPUTS} are fetched.")
        pool = ThreadPoolExecutor(min(_FETCHES_AT_ONCE, len(assets)), thread_name_prefix="input")
        try:
            bring = partial(self._bring, held=held, is_owners=is_owners, job_id=job_id, owner=owner, deadline=deadline)
            fetches = {asset: pool.submit(contextvars.copy_context().run, bring, asset) for asset in assets}
            # Fetches keep the deadline themselves; only a name that is not resolved in time outlives it.
            wait(fetches.values(), timeout=max(0.0, deadline - time.monotonic()) + 0.5)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        failures: dict[Asset, Unusable] = {}
        for asset, fetch in fetches.items():
            is_late = not fetch.done() or fetch.cancelled()
            failure = Unusable(TOO_LATE, timed_out=True) if is_late else fetch.exception()
            if isinstance(failure, Unusable):
                failures[asset] = failure
            elif failure is not None:
                raise failure  # not the input's fault: the connector's, or ours
        if failures:
            is_over = time.monotonic() >= deadline
            raise _refusal(wanted, failures, is_over=is_over) from next(iter(failures.values()))
        return {asset: fetch.result() for asset, fetch in fetches.items()}

    def _bring(
        self, asset: Asset, held: HeldFiles, *, is_owners: bool, job_id: str, owner: str, deadline: float
    ) -> str:
        """Fetch, check and upload one file; return the value an input takes for it."""
        start = time.monotonic()
        limit = min(deadline, start + self._settings.input_timeout_s)
        with ExitStack() as files:
            bring = partial(self._stored, is_owners=is_owners) if asset.is_stored else self._received
            local = bring(asset, files, job_id=job_id, owner=owner, deadline=limit)
            if asset.mask is not None:
                local = self._masked(local, asset.mask, files, job_id=job_id, owner=owner, deadline=limit)
            left_s = max(0.0, deadline - time.monotonic())
            try:
                value = held.bring(local.path, local.name, subfolder=asset.subfolder, timeout_s=left_s)
            except MissingAsset as refused:  # by ComfyUI, which knows the file by a name that is no name to its sender
                raise Unusable(refused.message.removeprefix(f"{local.name} "), transient=refused.retryable) from refused
        fetch_ms = round((time.monotonic() - start) * 1000)
        facts = {"source": local.source, "file": value, "bytes": local.size_bytes, "fetch_ms": fetch_ms}
        logger.info("input fetched", extra={"job_id": job_id, **facts})
        return value

    def _received(self, asset: Asset, files: ExitStack, *, job_id: str, owner: str, deadline: float) -> _Local:
        """Fetch the file of an asset into a temporary one."""
        if asset.is_image:
            self._sandbox.warm(owner=owner)  # it starts while the file is on its way
        file = files.enter_context(temporary_file())
        received = self._receiver.receive(asset.origin, file, deadline=deadline)
        path = Path(file.name)
        ending = received.ending
        if asset.is_image:
            ending = self._checked_image(path, job_id=job_id, owner=owner, deadline=deadline)
        return _Local(path, _name(received.digest, ending), received.size_bytes, received.source)

    def _stored(
        self, asset: Asset, files: ExitStack, *, is_owners: bool, job_id: str, owner: str, deadline: float
    ) -> _Local:
        """An image that is in ComfyUI's input folder already, to be given a mask.

        It is not the job's turn yet: what another owner's job has there meanwhile is not this one's to read.
        """
        name = name_in_input_folder(str(asset.origin))
        folder = self._connector.input_directory
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise Unusable("is not a name in ComfyUI's input folder")
        if folder is not None:
            path = folder / name
            if not path.is_file() or not (is_owners or self._connector.is_for_all(name)):
                raise Unusable("is not in ComfyUI's input folder, or not for all")
        else:
            subfolder, _, base_name = name.rpartition("/")
            file = files.enter_context(temporary_file())
            path = Path(file.name)
            try:
                path.write_bytes(self._connector.get_image(base_name, subfolder, "input"))
            except FileNotFoundError as error:
                raise Unusable("is not in ComfyUI's input folder") from error
            except OSError as error:
                raise Unusable(f"cannot be read from ComfyUI's input folder: {error}", transient=True) from error
        self._checked_image(path, job_id=job_id, owner=owner, deadline=deadline)
        return _Local(path, "", path.stat().st_size, name)

    def _masked(
        self, image: _Local, mask: Origin, files: ExitStack, *, job_id: str, owner: str, deadline: float
    ) -> _Local:
        """The image with the mask in its alpha."""
        try:
            asset = Asset(mask, is_image=True, subfolder="")
            local = self._received(asset, files, job_id=job_id, owner=owner, deadline=deadline)
        except Unusable as failure:
            raise UnusableMask(str(failure), transient=failure.transient, timed_out=failure.timed_out) from failure
        file = files.enter_context(temporary_file())
        path = Path(file.name)
        try:
            with _refusals_as_unusable():
                self._sandbox.combine_mask(image.path, local.path, path, deadline=deadline, turn=job_id, owner=owner)
        except OSError as error:
            raise Unusable(f"cannot be stored on the worker's disk: {error.strerror}", transient=True) from error
        with path.open("rb") as combined:
            digest = hashlib.file_digest(combined, "sha256").hexdigest()
        return _Local(path, _name(digest, ".png"), path.stat().st_size, f"{image.source} with {local.source}")

    def _checked_image(self, path: Path, *, job_id: str, owner: str, deadline: float) -> str:
        max_pixels = self._settings.max_input_pixels
        with _refusals_as_unusable():
            return self._sandbox.check_image(path, max_pixels=max_pixels, deadline=deadline, turn=job_id, owner=owner)


@contextmanager
def _refusals_as_unusable() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        unusable = UnusableMask if isinstance(refused, MaskRefused) else Unusable
        raise unusable(str(refused), transient=refused.transient, timed_out=refused.timed_out) from refused


def _name(digest: str, ending: str) -> str:
    return f"{digest[:DIGEST_LENGTH]}{ending}"


def _refusal(wanted: Iterable[Wanted], failures: Mapping[Asset, Unusable], *, is_over: bool) -> ComfyError:
    """The one exception for all failures of a job's inputs."""
    reasons: dict[str, str] = {}
    listing: list[str] = []
    for entry in wanted:
        failure = failures.get(entry.asset)
        if failure is None:
            continue
        address, origin = entry.address, entry.asset.origin
        if isinstance(failure, UnusableMask) and entry.asset.mask is not None:
            address, origin = entry.mask_address, entry.asset.mask
        nodes = ", ".join(f"node {node_id} input {name!r}" for node_id, name in entry.targets)
        reasons[address] = f"{origin if isinstance(origin, Path) else show(origin)}: {failure}"
        listing.append(f"{address} ({nodes}) from {reasons[address]}")
    if is_over and any(failure.timed_out for failure in failures.values()):
        return DeadlineExceeded(
            f"The job's time was over before its inputs had been fetched: {'; '.join(listing)}.",
            details={"inputs": reasons},
        )
    error_class = AssetUnavailable if all(failure.transient for failure in failures.values()) else MissingAsset
    return error_class(f"Inputs cannot be used: {'; '.join(listing)}.", details={"inputs": reasons})
