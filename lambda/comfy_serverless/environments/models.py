"""The models of a build file before they go anywhere: where each is, what it must be, and all that is wrong with them.

    build file ─► each model's file of this machine, hashed; its host, asked without a download ─► Found, one a model

Gigabytes are sent only when nothing is wrong with any of them, so all of it is told at once. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from comfy_serverless.environments.build_file import Model
from comfy_serverless.environments.further_folders import file_of
from comfy_serverless.environments.lock_file import LockedModel
from comfy_serverless.environments.model_hashes import HashCache, hash_files
from comfy_serverless.errors import ComfyError, MissingAsset
from comfy_serverless.fetch.hashes import Get, Pin, hash_of
from comfy_serverless.fetch.model_hosts import host_of
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.sources import show as shown
from comfy_serverless.fetch.tokens import Tokens
from comfy_serverless.files import MODEL_ENDINGS
from comfy_serverless.jobs.request import ModelRequest

#: What Lambda takes of an image, unpacked (quotas of Lambda), and what ComfyUI with torch for CUDA has of that.
IMAGE_LIMIT_BYTES: Final = 10 * 1024**3
IMAGE_WITHOUT_MODELS_BYTES: Final = 66 * 1024**3 // 10
_AT_ONCE: Final = 8
_SAFE: Final = (".safetensors", ".sft")


class Target(Enum):
    """Where models go."""

    NOWHERE = "nowhere"
    MANIFEST = "manifest"
    BUCKET = "bucket"
    IMAGE = "image"

    @property
    def is_fetched_from_hosts(self) -> bool:
        """Whether their content passes through this machine, whatever host it is at."""
        return self in {Target.BUCKET, Target.IMAGE}

    @property
    def is_for_workers(self) -> bool:
        """Whether workers fetch them, by the rules of a job's models."""
        return self in {Target.MANIFEST, Target.BUCKET}


@dataclass(frozen=True, slots=True)
class Found:
    """A model, and what is known of it now.

    Attributes:
        sha256: what its content is, or must be; None if nobody says it without a download.
        file: where it is on this machine; None if it has an address.
        problems: why it cannot go where it shall, and what to do: each begins with the model.
        notes: what people should know.
    """

    model: Model
    sha256: str | None = None
    size_bytes: int | None = None
    file: Path | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return str(self.file) if self.file else self.model.source_uri or self.model.local_path or "Comfy's store"


#: Is shown how many bytes of how many have been read.
Show = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """Looks at models.

    Attributes:
        target: where they shall go.
        models_folder: the folder `models/` of the install that has the local ones; None if nobody has said it.
        get, tokens: how hosts are asked.
        locked: what the lock says of them, by their places below `models/`.
        hashes: what files of this machine were hashed to before.
        show: is shown how far they have been read.
    """

    target: Target
    models_folder: Path | None
    get: Get
    tokens: Tokens
    locked: Mapping[str, LockedModel]
    hashes: HashCache
    show: Show

    def of(self, models: Sequence[Model]) -> list[Found]:
        """Look at all of them: hosts are asked and files are read, several at once."""
        first = [self._begun(model) for model in models]
        local = {found.model.path: found for found in first if found.file is not None and not found.problems}
        read = dict(zip(local, self._read(list(local.values())), strict=True))
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hosts") as pool:
            asked = list(pool.map(self._asked, first))
        return [_with_rules(read.get(found.model.path, found), self.target) for found in asked]

    def _begun(self, model: Model) -> Found:
        """What the build file and the lock say."""
        locked = self.locked.get(model.path)
        same = locked if locked is not None and _is_same_place(locked, model) else None
        sha256 = model.sha256 or (same.sha256 if same else None)
        found = Found(model, sha256, model.size_bytes if model.size_bytes is not None else same.size if same else None)
        match model.source:
            case "local":
                return _local(found, self.models_folder, self.target)
            case "blob":
                return _wrong(
                    found,
                    f"it is in Comfy's own store (blobId {model.blob_id}), which only Comfy's builder reaches: give it "
                    "a sourceUri, or put the file into models/ and write `source: local` with its localPath",
                )
        return found

    def _read(self, local: Sequence[Found]) -> list[Found]:
        """The same with their hashes, which must be those that the file says."""
        done, total = 0, sum(found.size_bytes or 0 for found in local)

        def show(count: int) -> None:
            nonlocal done
            done += count
            self.show(done, total)

        files = [found.file for found in local if found.file is not None]
        read, failed = hash_files(files, self.hashes, progress=show)
        return [_hashed(found, path, read.get(path), failed) for found, path in zip(local, files, strict=True)]

    def _asked(self, found: Found) -> Found:
        """What the model's host says of it: it must be what the file says, and must be handed out."""
        url = found.model.source_uri
        if url is None or found.model.source != "address" or host_of(url) is None:
            return found
        try:
            pin = hash_of(url, get=self.get, tokens=self.tokens)
        except Unusable as reason:
            return self._unreachable(found, reason)
        except ComfyError as error:
            return _wrong(found, error.message)
        return found if pin is None else _compared(found, pin)

    def _unreachable(self, found: Found, reason: Unusable) -> Found:
        text = f"{shown(found.model.source_uri or '')} {reason}"
        # Workers have tokens, and a network, of their own: they need no more than to know which content is meant.
        is_left_to_workers = not self.target.is_fetched_from_hosts and found.sha256 is not None
        if is_left_to_workers and (reason.is_guarded or reason.transient):
            return _noted(found, f"{text}. Its SHA-256 is known, so only what fetches it needs that")
        return _wrong(found, text)


def refuse_problems(found: Iterable[Found], *further: str) -> None:
    """Raise MissingAsset with everything that is wrong, if anything is."""
    problems = [problem for one in found for problem in one.problems] + list(further)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise MissingAsset(
            f"the models of the build file have {count}; nothing was sent or written:\n{listing}",
            details={"problems": problems},
        )


def request_of(found: Found, url: str) -> ModelRequest:
    """The model as a worker gets it from an address. Raises ValidationError if workers take no such model."""
    model = found.model
    return ModelRequest(url=url, folder=model.type, name=model.filename, sha256=found.sha256)


def entry_of(found: Found, url: str) -> dict[str, str]:
    """The model's entry in a standing manifest."""
    model = found.model
    entry = {"url": url, "folder": model.type, "name": model.filename}
    return {**entry, "sha256": found.sha256} if found.sha256 else entry


def image_note(found: Iterable[Found]) -> str:
    """What models in an image mean for its size; "" without models."""
    sizes = [one.size_bytes for one in found]
    total = sum(size or 0 for size in sizes)
    if not sizes:
        return ""
    more = " (and those whose size nobody says)" if None in sizes else ""
    left = IMAGE_LIMIT_BYTES - IMAGE_WITHOUT_MODELS_BYTES - total
    says = (
        f"about {_gib(left)} stay for packs"
        if left >= 0
        else f"that is {_gib(-left)} too much for Lambda: send them to the stack's bucket (--to bucket), or deploy on "
        "SageMaker, which takes larger images"
    )
    return (
        f"{_gib(total)} of models{more} go into the image. Lambda takes {_gib(IMAGE_LIMIT_BYTES)} unpacked, of which "
        f"ComfyUI with torch for CUDA has about {_gib(IMAGE_WITHOUT_MODELS_BYTES)}: {says}."
    )


def models_folder_of(folder: Path) -> Path:
    """The folder of models of a ComfyUI; it may be given itself. Raises MissingAsset if there is none."""
    inner = folder.expanduser() / "models"
    if inner.is_dir():
        return inner
    if inner.parent.name == "models" and inner.parent.is_dir():
        return inner.parent
    raise MissingAsset(f"{inner} is no folder: name the folder of the ComfyUI that has the models (--from ~/ComfyUI).")


def _hashed(found: Found, path: Path, sha256: str | None, failed: Mapping[Path, OSError]) -> Found:
    if sha256 is None:
        return _wrong(found, f"{path} cannot be read: {failed[path].strerror}")
    if found.sha256 not in {None, sha256}:
        return _wrong(
            found,
            f"{path} has the SHA-256 {sha256}, and the build file says {found.sha256}: it is another version, or was "
            "damaged. Bring the right file, or correct sha256 (and sizeBytes) there",
        )
    return replace(found, sha256=sha256)


def _local(found: Found, folder: Path | None, target: Target) -> Found:
    """A model that this machine should have."""
    if folder is None:
        words = (
            f"it is a file of the machine that has ComfyUI (localPath {found.model.local_path}): say where that is, "
            "with --from ~/ComfyUI or COMFYUI_DIR"
        )
        return _noted(found, words) if target is Target.NOWHERE else _wrong(found, words)
    path = file_of(found.model.local_path or "", folder)
    found = replace(found, file=path)
    if not path.is_file():
        return _wrong(
            found, f"{path} is not there: copy it to there, say where it is (--from), or give the model a sourceUri"
        )
    size_bytes = path.stat().st_size
    if not size_bytes:
        return _wrong(found, f"{path} is empty: bring the file anew")
    if found.size_bytes not in {None, size_bytes}:
        return _wrong(
            found,
            f"{path} has {size_bytes:,} bytes, and the build file says {found.size_bytes:,}: it is another version, or "
            "was cut off. Bring the right file, or correct sizeBytes (and sha256) there",
        )
    return replace(found, size_bytes=size_bytes)


def _compared(found: Found, pin: Pin) -> Found:
    """A model after its host has said what it is."""
    model = found.model
    if found.sha256 not in {None, pin.sha256}:
        found = _wrong(
            found,
            f"{pin.said_by} says that {model.source_uri} has the SHA-256 {pin.sha256}, and the build file says "
            f"{found.sha256}: the file there was replaced, or it is another one. Correct sha256 or sourceUri",
        )
    elif pin.size_bytes is not None and found.size_bytes not in {None, pin.size_bytes}:
        found = _wrong(
            found,
            f"{pin.said_by} says that {model.source_uri} has {pin.size_bytes:,} bytes, and the build file says "
            f"{found.size_bytes:,}: correct sizeBytes or sourceUri",
        )
    if pin.moved_to:
        found = _noted(found, f"{pin.said_by} has it under another name now: write sourceUri: {pin.moved_to}")
    return replace(
        found,
        sha256=found.sha256 or pin.sha256,
        size_bytes=pin.size_bytes if found.size_bytes is None else found.size_bytes,
    )


def _with_rules(found: Found, target: Target) -> Found:
    """What workers say to such a model."""
    if not target.is_for_workers:
        return found
    model = found.model
    try:
        request_of(found, "s3://bucket/x")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        what = "its folder" if first["loc"][:1] == ("folder",) else "its name"
        reason = str(first["msg"]).removeprefix("Value error, ")
        return _wrong(found, f"workers fetch no such model: {what} {reason}. With --to image it can be in the image")
    if (model.source_uri or "").startswith("s3://"):
        found = _noted(found, "workers fetch it from its bucket only if the stack's InputBuckets names that")
    lower = model.filename.lower()
    if lower.endswith(MODEL_ENDINGS) and not lower.endswith(_SAFE):
        found = _noted(found, "it is not safetensors: workers take it only with ALLOW_PICKLED_MODELS=true")
    if found.sha256 is None and not found.problems and target is Target.MANIFEST:
        found = _noted(
            found,
            "nobody says its SHA-256: workers fetch it only with ALLOW_UNPINNED_MODELS=true. Write sha256 into the "
            "build file, or bring it to the stack's bucket (--to bucket), which reads it",
        )
    return found


def _is_same_place(locked: LockedModel, model: Model) -> bool:
    return (locked.url, locked.local_path) == (model.source_uri, model.local_path)


def _wrong(found: Found, problem: str) -> Found:
    return replace(found, problems=(*found.problems, f"{found.model.path}: {problem}"))


def _noted(found: Found, note: str) -> Found:
    return replace(found, notes=(*found.notes, f"{found.model.path}: {note}."))


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"
