"""Holds the models of a job: there and checked while it prepares, under their names while ComfyUI runs it.

hold: the operator's? ──► fetched, checked, pinned ─┐   outside the job's turn, and slow
show: the operator's? ──► linked ◄──────────────────┘   in its turn, and quick
release: unlinked, unpinned                             after its run
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import TYPE_CHECKING

from comfy_serverless.connector.model_paths import make_store_directory, own_directory
from comfy_serverless.errors import (
    AssetUnavailable,
    ComfyError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    MissingAsset,
)
from comfy_serverless.fetch.sources import Unusable, show
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.model_store.blobs import Blobs, NoRoom, Partial
from comfy_serverless.worker.model_store.names import NameInUse, Names
from comfy_serverless.worker.model_store.operator_models import NameTaken, OperatorModels, Places
from comfy_serverless.worker.model_store.remote import remote_of
from comfy_serverless.worker.model_store.safetensors import NotSafetensors, check_safetensors, is_safetensors_name
from comfy_serverless.worker.model_store.standing_models import Manifest, read_manifest
from comfy_serverless.worker.model_store.transfer import DiskFailure, Transfer, store_and_hash

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

#: The time between two checks whether another job has fetched a content, in seconds.
_POLL_S = 0.05
#: How long the models of the manifest may take, in seconds.
_MANIFEST_S = 3600.0
#: The deadline of a question that must not wait.
_AT_ONCE = 0.0
#: Why a model cannot be had: see `_refusal`.
_Failure = Unusable | NotSafetensors | NoRoom | DiskFailure | OSError
_FAILURES = (Unusable, NotSafetensors, NoRoom, DiskFailure, OSError)


class HeldModels:
    """The models of one job, kept from being evicted until `release`. A `worker.protocols.Shown`."""

    def __init__(self, show: Callable[[float], Iterable[str]], hide: Callable[[Iterable[str]], None]) -> None:
        self._show = show
        self._hide = hide
        self._pins = ExitStack()
        self._names: tuple[str, ...] = ()

    def show(self, deadline: float) -> None:
        """Give the models their names in ComfyUI's folders. Called once.

        Raises:
            InvalidRequest: a name is one of the operator's, with another content.
            AssetUnavailable: the links cannot be written, or a model of the operator's has just gone.
            DeadlineExceeded: another job here has a name with another content, and the job's time is over.
            ComfyError: ComfyUI could not be made to forget what a name meant before, or does not answer.
        """
        self._names = tuple(self._show(deadline))

    def release(self) -> None:
        """Remove the names that no other job has, and let the contents be evicted. Idempotent, never raises."""
        names, self._names = self._names, ()
        if names:
            self._hide(names)
        try:
            self._pins.close()
        except OSError as error:
            logger.warning("models could not be let go: %s", error)

    def pin(self, descriptor: int) -> None:
        """Keep a content from being evicted until `release`."""
        self._pins.callback(_let_go, descriptor)


class ModelStore:
    """Fetches the models of jobs. One instance serves all jobs of a process, and several processes one folder.

    Args:
        forget: has ComfyUI forget what it has read, until the deadline it is given; it is called when a name begins to
            mean another content. See `forgetting.forget_everything`.
        places: where ComfyUI looks for models; None if it has not answered at the deadline it is given. See
            `operator_models.places_of`.
    """

    def __init__(
        self,
        settings: Settings,
        s3: S3Client,
        network: Network | None = None,
        *,
        forget: Callable[[float], None],
        places: Callable[[float], Places | None],
        sandbox: Sandbox | None = None,
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._network = network or Network.of(settings)
        self._forget = forget
        self._places = places
        self._sandbox = sandbox or Sandbox()
        self._opening = threading.Lock()
        #: The manifest's models, by what a workflow calls them.
        self._kept: dict[str, ModelRequest] = {}
        self._manifest = Manifest(self._keep_manifest) if settings.models_manifest else None
        if self._manifest is not None:
            self._manifest.start()

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float) -> HeldModels:
        """Fetch models, and keep them until they are released. Those of MODELS_MANIFEST are there, and stay for good.

        Raises:
            InvalidRequest: ComfyUI runs elsewhere, or a name is the operator's with another content.
            MissingAsset: a model cannot be fetched or used; the message says which and why.
            AssetUnavailable: the same, but sending the job again may help.
            DeadlineExceeded: the job's time is over.
        """
        if self._manifest is not None:
            self._manifest.wait(deadline)
        for model in models:
            kept = self._kept.get(model.called, model)
            if (kept.path, kept.sha256) != (model.path, model.sha256):
                raise _taken(model, "of this worker's MODELS_MANIFEST")
        return self._hold(models, job_id=job_id, deadline=deadline)

    def _keep_manifest(self) -> None:
        models = read_manifest(self._settings.models_manifest or "", self._s3)
        deadline = time.monotonic() + _MANIFEST_S
        held = self._hold(models, job_id="", deadline=deadline)
        try:
            held.show(deadline)
        except BaseException:
            held.release()
            raise
        self._kept = {model.called: model for model in models}

    def _hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float) -> HeldModels:
        # Always in the same order, so that no two jobs wait for each other.
        wanted = {model.path: model for model in sorted(models, key=lambda model: model.path)}
        pinned: set[str] = set()
        held = HeldModels(lambda until: self._show(wanted, pinned, deadline=until), self._hide)
        if not wanted:
            return held
        self._check(models)
        try:
            standing = self._standing(wanted, self._places(_AT_ONCE), deadline=deadline)
            for path, model in wanted.items():
                if path not in standing:
                    self._fetch_and_pin(model, held, job_id=job_id, deadline=deadline)
                    pinned.add(path)
            # Again, if ComfyUI has begun to answer meanwhile: to compare contents can take longer than a turn should.
            self._standing(wanted, self._places(_AT_ONCE), deadline=deadline)
        except BaseException:
            held.release()
            raise
        return held

    def _show(self, wanted: Mapping[str, ModelRequest], pinned: set[str], *, deadline: float) -> Iterable[str]:
        """Link what is not the operator's; return the names."""
        if not wanted:
            return ()
        places = self._places(deadline)
        if places is None:
            raise EngineUnavailable("ComfyUI did not say where its models are, so the job's models were not put there.")
        standing = self._standing(wanted, places, deadline=deadline)
        contents = {path: model.sha256 for path, model in wanted.items() if path not in standing}
        for path in contents.keys() - pinned:
            raise AssetUnavailable(f"The model {path!r} of this worker was removed while the job was being prepared.")
        names = self._opened()[1]
        try:
            names.show(contents, deadline=deadline)
        except NameInUse as failure:
            raise DeadlineExceeded(
                f"Until the deadline another job used a model with the name {str(failure)!r} and another sha256. Give "
                "the models different names to run such jobs at the same time."
            ) from failure
        except OSError as failure:
            raise AssetUnavailable(f"Models cannot be given their names on this worker's disk: {failure}.") from failure
        return contents

    def _hide(self, paths: Iterable[str]) -> None:
        self._opened()[1].hide(paths)

    def _standing(self, wanted: Mapping[str, ModelRequest], places: Places | None, *, deadline: float) -> set[str]:
        """The paths of the models that are the operator's, with this content. Nothing is known without places.

        Raises InvalidRequest if a name is the operator's, with another content, and as `_refusal`.
        """
        if places is None:
            return set()
        standing = set()
        for model in wanted.values():
            try:
                blobs, _, operator = self._opened()
                size_bytes = blobs.size_of(model.sha256)
                if operator.has(model, places, size_bytes=size_bytes, deadline=deadline):
                    standing.add(model.path)
            except NameTaken as failure:
                raise _taken(model, "of this worker's own") from failure
            except _FAILURES as failure:
                raise _refusal(model, failure, deadline=deadline) from failure
        return standing

    def _check(self, models: Iterable[ModelRequest]) -> None:
        if self._settings.comfyui_url:
            raise InvalidRequest(
                "models: cannot be fetched for a ComfyUI that runs elsewhere (COMFYUI_URL); put them there yourself."
            )
        for model in models:
            if not self._settings.allow_pickled_models and not is_safetensors_name(model.file_name):
                raise MissingAsset(
                    f"The model {model.path!r} is not a safetensors file; other formats can run code when they are "
                    "loaded. Use its .safetensors version, convert it, or set ALLOW_PICKLED_MODELS=true if you trust "
                    "everybody who sends jobs."
                )

    @cached_property
    def _store(self) -> tuple[Blobs, Names, OperatorModels]:
        directory, own = make_store_directory(self._settings), own_directory(self._settings)
        blobs = Blobs(directory, limit_bytes=self._settings.model_store_bytes)
        names = Names(own, blobs=directory / "blobs", forget=self._forget)
        return blobs, names, OperatorModels(own / "models")

    def _opened(self) -> tuple[Blobs, Names, OperatorModels]:
        """The folders, which are made and tidied when they are first needed."""
        with self._opening:
            return self._store

    def _fetch_and_pin(self, model: ModelRequest, held: HeldModels, *, job_id: str, deadline: float) -> None:
        try:
            blobs = self._opened()[0]
            pin = self._pinned(model, blobs, job_id=job_id, deadline=deadline)
            held.pin(pin)
            # Fetched for another name, it may never have been checked.
            self._check_content(model, pin, blobs, deadline=deadline, turn=job_id)
        except _FAILURES as failure:
            raise _refusal(model, failure, deadline=deadline) from failure

    def _pinned(self, model: ModelRequest, blobs: Blobs, *, job_id: str, deadline: float) -> int:
        while (pin := blobs.pin(model.sha256)) is None:
            begun = blobs.begin(model.sha256)
            if begun is None:
                if time.monotonic() >= deadline:
                    raise Unusable("another job was still fetching it", timed_out=True)
                time.sleep(_POLL_S)
                continue
            pin = blobs.pin(model.sha256)
            if pin is not None:  # another job had just finished
                blobs.abandon(begun)
                break
            try:
                self._fetch(model, begun, blobs, job_id=job_id, deadline=deadline)
            except BaseException:
                blobs.abandon(begun)
                raise
            pin = blobs.finish(begun, model.sha256)
            if pin is not None:
                break
        return pin

    def _fetch(self, model: ModelRequest, begun: Partial, blobs: Blobs, *, job_id: str, deadline: float) -> None:
        start = time.monotonic()
        buckets = self._settings.allowed_input_buckets
        remote = remote_of(model.url, s3=self._s3, network=self._network, allowed_buckets=buckets)
        allocate = partial(blobs.allocate, begun)
        size_bytes = Transfer(remote, begun.path, allocate=allocate, deadline=deadline).run()
        sha256 = store_and_hash(begun.descriptor, deadline=deadline)
        if sha256 != model.sha256:
            raise Unusable(f"its content has the SHA-256 {sha256}, not {model.sha256} as the job says")
        self._check_content(model, begun.descriptor, blobs, deadline=deadline, turn=job_id)
        fetch_s = round(time.monotonic() - start, 3)
        facts = {"model": model.path, "source": show(model.url), "bytes": size_bytes, "fetch_s": fetch_s}
        logger.info("model fetched", extra={"job_id": job_id, **facts})

    def _check_content(self, model: ModelRequest, descriptor: int, blobs: Blobs, *, deadline: float, turn: str) -> None:
        """Check a content that calls itself safetensors, unless that was done before, here or in another process."""
        if is_safetensors_name(model.file_name) and not blobs.is_checked(model.sha256):
            check_safetensors(self._sandbox, descriptor, deadline=deadline, turn=turn)
            blobs.note_checked(model.sha256)


def _let_go(pin: int) -> None:
    try:
        os.utime(pin)
    finally:
        os.close(pin)


def _taken(model: ModelRequest, whose: str) -> InvalidRequest:
    return InvalidRequest(
        f"models: {model.path!r} is the name of a model {whose}, which is not the one with the SHA-256 {model.sha256}. "
        "Give this one another `name`, and use that in the workflow."
    )


def _refusal(model: ModelRequest, failure: _Failure, *, deadline: float) -> ComfyError:
    """The error that a failure means for the job."""
    subject = f"The model {model.path!r} from {show(model.url)}"
    if isinstance(failure, NoRoom):
        error_class: type[ComfyError] = AssetUnavailable if failure.later else MissingAsset
        reason = f"does not fit: {failure} (MODEL_STORE_BYTES)"
    elif isinstance(failure, OSError):
        error_class, reason = AssetUnavailable, str(DiskFailure(failure))
    elif isinstance(failure, Unusable) and failure.timed_out and time.monotonic() >= deadline - 0.01:
        error_class, reason = DeadlineExceeded, f"was not there in time: {failure}"
    else:
        is_transient = isinstance(failure, DiskFailure) or (isinstance(failure, Unusable) and failure.transient)
        error_class, reason = AssetUnavailable if is_transient else MissingAsset, f"cannot be used: {failure}"
    return error_class(f"{subject} {reason}.", details={"model": model.path, "sha256": model.sha256})
