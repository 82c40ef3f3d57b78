"""Holds the models of a job: there and checked while it prepares, under their names while ComfyUI runs it.

hold: what is it? (hashes) ──► the operator's? ──► fetched, checked, pinned ─┐   outside the job's turn, and slow
show: the operator's? ──► linked ◄───────────────────────────────────────────┘   in its turn, and quick
release: unlinked, unpinned                             after its run
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
from comfy_serverless.fetch.tokens import Tokens, tokens_of
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.model_store.blobs import Blobs, NoRoom, Partial
from comfy_serverless.worker.model_store.hashes import Hashes, told
from comfy_serverless.worker.model_store.held import HeldModels, let_go
from comfy_serverless.worker.model_store.names import NameInUse, Names
from comfy_serverless.worker.model_store.operator_models import NameTaken, OperatorModels, Places
from comfy_serverless.worker.model_store.pins import FilePins, Pinned, Pins, S3Pins, pin_key
from comfy_serverless.worker.model_store.remote import Remote, remote_of
from comfy_serverless.worker.model_store.safetensors import NotSafetensors, check_safetensors, is_safetensors_name
from comfy_serverless.worker.model_store.standing_models import Manifest, read_manifest
from comfy_serverless.worker.model_store.transfer import DiskFailure, Transfer, store_and_hash
from comfy_serverless.worker.model_store.wanted import Wanted

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


class ModelStore:
    """Fetches the models of jobs. One instance serves all jobs of a process, and several processes one folder.

    Args:
        forget: has ComfyUI forget what it has read, until the deadline it is given; it is called when a name begins to
            mean another content. See `forgetting.forget_everything`.
        places: where ComfyUI looks for models; None if it has not answered at the deadline it is given. See
            `operator_models.places_of`.
        tokens: for hosts of models; by default those that the settings name.
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
        tokens: Tokens | None = None,
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._network = network or Network.of(settings)
        self._forget = forget
        self._places = places
        self._sandbox = sandbox or Sandbox()
        self._tokens = tokens or tokens_of(settings)
        self._hashes = Hashes(
            s3=s3,
            network=self._network,
            tokens=self._tokens,
            pins=self._pins,
            allow_unpinned=settings.allow_unpinned_models,
        )
        self._opening = threading.Lock()
        #: The manifest's models, by what a workflow calls them.
        self._kept: dict[str, Wanted] = {}
        self._manifest = Manifest(self._keep_manifest) if settings.models_manifest else None
        if self._manifest is not None:
            self._manifest.start()

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float, owner: str = "") -> HeldModels:
        """Fetch models, and keep them until they are released. Those of MODELS_MANIFEST are there, and stay for good.

        Args:
            owner: whose job it is; "" for the operator.

        Raises:
            InvalidRequest: ComfyUI runs elsewhere, or a name is the operator's with another content.
            MissingAsset: a model cannot be fetched or used; the message says which and why.
            AssetUnavailable: the same, but sending the job again may help.
            DeadlineExceeded: the job's time is over.
        """
        if self._manifest is not None:
            self._manifest.wait(deadline)
            self._opened()[1].restore()
        named = self._named(models, owner=owner, job_id=job_id, deadline=deadline)
        for model in named:
            kept = self._kept.get(model.called, model)
            if (kept.path, kept.sha256) != (model.path, model.sha256):
                raise _taken(model, "of this worker's MODELS_MANIFEST")
        return self._hold(named, job_id=job_id, deadline=deadline)

    def _named(self, models: Sequence[ModelRequest], *, owner: str, job_id: str, deadline: float) -> tuple[Wanted, ...]:
        """The models with the contents that they are held to."""
        self._check(models)

        def named(model: ModelRequest) -> Wanted:
            kept = self._kept.get(model.called)
            if kept is not None and model.sha256 is None and (kept.path, kept.url) == (model.path, model.url):
                return replace(kept, model=model)
            try:
                return self._hashes.wanted(
                    model,
                    owner=owner,
                    remote=lambda: self._remote(model.url),
                    fetch=lambda sha256: self._fetch_unpinned(
                        model, sha256, pin_key(owner, model.url), job_id=job_id, deadline=deadline
                    ),
                    deadline=deadline,
                )
            except _FAILURES as failure:
                raise _refusal(model, failure, deadline=deadline) from failure

        return tuple(named(model) for model in models)

    def _keep_manifest(self) -> None:
        models = read_manifest(self._settings.models_manifest or "", self._s3)
        deadline = time.monotonic() + _MANIFEST_S
        named = self._named(models, owner="", job_id="", deadline=deadline)
        held = self._hold(named, job_id="", deadline=deadline)
        for warning in held.warnings:
            logger.warning("MODELS_MANIFEST: %s", warning)
        try:
            held.show(deadline)
        except BaseException:
            held.release()
            raise
        self._kept = {model.called: model for model in named}

    def _hold(self, models: Sequence[Wanted], *, job_id: str, deadline: float) -> HeldModels:
        # Always in the same order, so that no two jobs wait for each other.
        wanted = {model.path: model for model in sorted(models, key=lambda model: model.path)}
        pinned: set[str] = set()
        held = HeldModels(lambda until: self._show(wanted, pinned, deadline=until), self._hide, told(models))
        if not wanted:
            return held
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

    def _show(self, wanted: Mapping[str, Wanted], pinned: set[str], *, deadline: float) -> Iterable[str]:
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

    def _standing(self, wanted: Mapping[str, Wanted], places: Places | None, *, deadline: float) -> set[str]:
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

    def _check(self, models: Sequence[ModelRequest]) -> None:
        if models and self._settings.comfyui_url:
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
        """The folders, which are made and tidied when they are first needed, and made again if they are gone."""
        with self._opening:
            make_store_directory(self._settings)
            own_directory(self._settings)
            self._store[0].make_folders()
            return self._store

    def _fetch_and_pin(self, model: Wanted, held: HeldModels, *, job_id: str, deadline: float) -> None:
        try:
            blobs = self._opened()[0]
            pin = self._pinned(model, blobs, job_id=job_id, deadline=deadline)
            held.pin(pin)
            # Fetched for another name, it may never have been checked.
            self._check_content(model, pin, blobs, deadline=deadline, turn=job_id)
        except _FAILURES as failure:
            raise _refusal(model, failure, deadline=deadline) from failure

    def _pinned(self, model: Wanted, blobs: Blobs, *, job_id: str, deadline: float) -> int:
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

    def _fetch(self, model: Wanted, begun: Partial, blobs: Blobs, *, job_id: str, deadline: float) -> None:
        def allocate(size_bytes: int) -> None:
            if model.size_bytes not in {None, size_bytes}:
                raise Unusable(f"it has {size_bytes:,} bytes, not {model.size_bytes:,} {model.said}")
            blobs.allocate(begun, size_bytes)

        found = self._transfer(model.model, begun, allocate, job_id=job_id, deadline=deadline)
        if found.sha256 != model.sha256:
            raise Unusable(f"its content has the SHA-256 {found.sha256}, not {model.sha256} {model.said}")
        self._check_content(model, begun.descriptor, blobs, deadline=deadline, turn=job_id)

    def _fetch_unpinned(
        self, model: ModelRequest, expected: str | None, key: str, *, job_id: str, deadline: float
    ) -> Pinned:
        """Fetch a model of which nobody says what it is, keep it if it is what is expected, and return what it was."""
        blobs = self._opened()[0]
        while (begun := blobs.begin(key)) is None:
            if time.monotonic() >= deadline:
                raise Unusable("another job was still fetching it", timed_out=True)
            time.sleep(_POLL_S)
        try:
            allocate = partial(blobs.allocate, begun)
            found = self._transfer(model, begun, allocate, job_id=job_id, deadline=deadline)
            if expected not in {None, found.sha256}:
                blobs.abandon(begun)
                return found
            wanted = Wanted(model, found.sha256)
            self._check_content(wanted, begun.descriptor, blobs, deadline=deadline, turn=job_id)
            pin = blobs.pin(found.sha256)  # known by another address, too
        except BaseException:
            blobs.abandon(begun)
            raise
        if pin is not None:
            blobs.abandon(begun)
        else:
            pin = blobs.finish(begun, found.sha256)
        if pin is not None:
            let_go(pin)
        return found

    def _transfer(
        self, model: ModelRequest, begun: Partial, allocate: Callable[[int], None], *, job_id: str, deadline: float
    ) -> Pinned:
        """Fetch what is at a model's address, whatever it is."""
        start = time.monotonic()
        transfer = Transfer(self._remote(model.url), begun.path, allocate=allocate, deadline=deadline)
        size_bytes = transfer.run()
        sha256 = store_and_hash(begun.descriptor, deadline=deadline)
        fetch_s = round(time.monotonic() - start, 3)
        facts = {"model": model.path, "source": show(model.url), "bytes": size_bytes, "fetch_s": fetch_s}
        logger.info("model fetched", extra={"job_id": job_id, **facts})
        return Pinned(sha256, size_bytes, transfer.version)

    def _remote(self, url: str) -> Remote:
        buckets = self._settings.allowed_input_buckets
        return remote_of(url, s3=self._s3, network=self._network, allowed_buckets=buckets, tokens=self._tokens)

    def _pins(self) -> Pins:
        bucket = self._settings.assets_bucket
        if bucket is not None:
            return S3Pins(self._s3, bucket)
        return FilePins(make_store_directory(self._settings) / "pins")

    def _check_content(self, model: Wanted, descriptor: int, blobs: Blobs, *, deadline: float, turn: str) -> None:
        """Check a content that calls itself safetensors, unless that was done before, here or in another process."""
        if is_safetensors_name(model.file_name) and not blobs.is_checked(model.sha256):
            check_safetensors(self._sandbox, descriptor, deadline=deadline, turn=turn)
            blobs.note_checked(model.sha256)


def _taken(model: Wanted, whose: str) -> InvalidRequest:
    return InvalidRequest(
        f"models: {model.path!r} is the name of a model {whose}, which is not the one with the SHA-256 {model.sha256}. "
        "Give this one another `name`, and use that in the workflow."
    )


def _refusal(model: ModelRequest | Wanted, failure: _Failure, *, deadline: float) -> ComfyError:
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
