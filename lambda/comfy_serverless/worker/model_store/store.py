"""Holds the models of a job: there, checked, under their names, and not evicted until the job has ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import TYPE_CHECKING

from comfy_serverless.connector.model_paths import make_store_directory
from comfy_serverless.errors import AssetUnavailable, ComfyError, DeadlineExceeded, InvalidRequest, MissingAsset
from comfy_serverless.fetch.sources import Unusable, show
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.model_store.blobs import Blobs, NoRoom, Partial
from comfy_serverless.worker.model_store.names import NameInUse, Names
from comfy_serverless.worker.model_store.remote import remote_of
from comfy_serverless.worker.model_store.safetensors import NotSafetensors, check_safetensors, is_safetensors_name
from comfy_serverless.worker.model_store.standing_models import Manifest, read_manifest
from comfy_serverless.worker.model_store.transfer import DiskFailure, Transfer, sha256_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)

#: The time between two checks whether another job has fetched a content, in seconds.
_POLL_S = 0.05
#: How long the models of the manifest may take, in seconds.
_MANIFEST_S = 3600.0


class ModelStore:
    """Fetches the models of jobs. One instance serves all jobs of a process, and several processes one folder.

    `forget` has ComfyUI forget what it has read, until the deadline it is given; it is called when a name begins to
    mean another content. See `forgetting.forget_everything`.
    """

    def __init__(
        self,
        settings: Settings,
        s3: S3Client,
        network: Network | None = None,
        *,
        forget: Callable[[float], None],
        sandbox: Sandbox | None = None,
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._network = network or Network(allow_private=settings.allow_private_addresses)
        self._forget = forget
        self._sandbox = sandbox or Sandbox()
        #: The last meaning each name had to ComfyUI, as far as this process knows.
        self._meant: dict[str, str] = {}
        self._telling = threading.Lock()
        self._opening = threading.Lock()
        self._kept: dict[str, str] = {}
        self._manifest = Manifest(self._keep_manifest) if settings.models_manifest else None
        if self._manifest is not None:
            self._manifest.start()

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float) -> ExitStack:
        """Have models in place until they are released; those of MODELS_MANIFEST too, which are never released.

        Raises:
            InvalidRequest: ComfyUI runs elsewhere, or a name is one of the manifest's with another content.
            MissingAsset: a model cannot be fetched or used; the message says which and why.
            AssetUnavailable: the same, but sending the job again may help.
            DeadlineExceeded: the job's time is over.
            ComfyError: ComfyUI could not be made to forget what a name meant before.
        """
        if self._manifest is not None:
            self._manifest.wait(deadline)
        for model in models:
            if self._kept.get(model.path, model.sha256) != model.sha256:
                raise InvalidRequest(
                    f"models: {model.path!r} is in MODELS_MANIFEST with another sha256; give this one another `name`."
                )
        return self._hold(models, job_id=job_id, deadline=deadline)

    def _keep_manifest(self) -> None:
        models = read_manifest(self._settings.models_manifest or "", self._s3)
        self._hold(models, job_id="", deadline=time.monotonic() + _MANIFEST_S)
        self._kept = {model.path: model.sha256 for model in models}

    def _hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float) -> ExitStack:
        with ExitStack() as holds:
            if models:
                self._check(models)
            # Always in the same order, so that no two jobs wait for each other.
            for model in sorted({model.path: model for model in models}.values(), key=lambda model: model.path):
                try:
                    self._fetch_and_pin(model, holds, job_id=job_id, deadline=deadline)
                except (Unusable, NotSafetensors, NoRoom, DiskFailure, OSError) as failure:
                    raise _refusal(model, failure, deadline=deadline) from failure
            for model in sorted({model.path: model for model in models}.values(), key=lambda model: model.path):
                self._name(model, holds, deadline=deadline)
            return holds.pop_all()

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
    def _store(self) -> tuple[Blobs, Names]:
        directory = make_store_directory(self._settings)
        names = Names(directory)
        return Blobs(directory, limit_bytes=self._settings.model_store_bytes, names=names), names

    def _opened(self) -> tuple[Blobs, Names]:
        """The folders, which are made and tidied when they are first needed."""
        with self._opening:
            return self._store

    def _fetch_and_pin(self, model: ModelRequest, holds: ExitStack, *, job_id: str, deadline: float) -> None:
        blobs, _ = self._opened()
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
        holds.callback(_let_go, pin)
        if is_safetensors_name(model.file_name):
            # Fetched for another name, it may never have been checked.
            check_safetensors(self._sandbox, pin, deadline=deadline, turn=job_id)

    def _fetch(self, model: ModelRequest, begun: Partial, blobs: Blobs, *, job_id: str, deadline: float) -> None:
        start = time.monotonic()
        buckets = self._settings.allowed_input_buckets
        remote = remote_of(model.url, s3=self._s3, network=self._network, allowed_buckets=buckets)
        allocate = partial(blobs.allocate, begun)
        size_bytes = Transfer(remote, begun.path, allocate=allocate, deadline=deadline).run()
        sha256 = sha256_of(begun.descriptor, deadline=deadline)
        if sha256 != model.sha256:
            raise Unusable(f"its content has the SHA-256 {sha256}, not {model.sha256} as the job says")
        if is_safetensors_name(model.file_name):
            check_safetensors(self._sandbox, begun.descriptor, deadline=deadline, turn=job_id)
        fetch_s = round(time.monotonic() - start, 3)
        facts = {"model": model.path, "source": show(model.url), "bytes": size_bytes, "fetch_s": fetch_s}
        logger.info("model fetched", extra={"job_id": job_id, **facts})

    def _name(self, model: ModelRequest, holds: ExitStack, *, deadline: float) -> None:
        blobs, names = self._opened()
        try:
            held, before = names.hold(model.path, model.sha256, deadline=deadline)
        except NameInUse as failure:
            raise DeadlineExceeded(
                f"Until the deadline another job used a model with the name {model.path!r} and another sha256. Give "
                "the models different names to run such jobs at the same time."
            ) from failure
        except OSError as failure:
            raise _refusal(model, failure, deadline=deadline) from failure
        holds.callback(os.close, held)
        with self._telling:
            known = self._meant.get(model.path) or before or blobs.evicted_names.get(model.path)
            if known is not None and known != model.sha256:
                # If this raises, the old meaning stays noted, and the next job tries again.
                self._meant[model.path] = known
                self._forget(deadline)
            self._meant[model.path] = model.sha256


def _let_go(pin: int) -> None:
    os.utime(pin)
    os.close(pin)


def _refusal(
    model: ModelRequest, failure: Unusable | NotSafetensors | NoRoom | DiskFailure | OSError, *, deadline: float
) -> ComfyError:
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
