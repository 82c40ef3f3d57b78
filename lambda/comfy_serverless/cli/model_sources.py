"""Where a model comes from that is brought to a store: a file of this machine, or an address.

The hash of the whole is known before anything is sent, because the store says it of the model: of a file by reading it,
of an address by what its host says. Where no host says it, the address is read into a temporary file first.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from comfy_serverless.cli.byte_bar import Show
from comfy_serverless.cli.paths import local_path
from comfy_serverless.errors import AssetUnavailable, ComfyError, InvalidRequest, MissingAsset
from comfy_serverless.fetch.hashes import getting, hash_of
from comfy_serverless.fetch.model_hosts import download_address
from comfy_serverless.fetch.sources import Stream, Unusable
from comfy_serverless.fetch.sources import show as shown
from comfy_serverless.fetch.tokens import Tokens, tokens_of
from comfy_serverless.fetch.web import Network, open_web_address
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.settings import Settings

_CHUNK_BYTES = 1 << 20
#: How long a host may take to say what a file is, and a whole file to come, in seconds.
_ASK_S, _WHOLE_S = 30.0, 24 * 3600.0


def wanted(source: str, *, folder: str, name: str | None, sha256: str | None) -> ModelRequest:
    """The model as a job would ask for it, with a name of its own. Raises InvalidRequest if that cannot be."""
    is_address = _is_address(source)
    own = local_path(source).name if not is_address and name is None else name
    entry = {"url": source if is_address else "s3://bucket/x", "folder": folder, "name": own, "sha256": sha256}
    try:
        return ModelRequest(**entry)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = "--" + str(first["loc"][0]) if first["loc"] else "the name"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise InvalidRequest(f"{field}: {reason}. (--name NAME says what workflows call it.)") from None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model about to be sent.

    Attributes:
        sha256: of the whole, which is compared when it has been read.
        size_bytes: None if the sender does not say.
        chunks: its bytes, in pieces.
    """

    sha256: str
    size_bytes: int | None
    chunks: Iterator[bytes]

    @classmethod
    @contextmanager
    def of(cls, source: str, model: ModelRequest, *, show: Show) -> Iterator[ModelSource]:
        """Open a file or an address.

        Raises:
            MissingAsset: it cannot be read or fetched, or is not what --sha256 says.
            AssetUnavailable: the same, but trying again may help.
            InvalidRequest: it is empty.
        """
        with _explained(source):
            if _is_address(source):
                with _fetched(source, model, show) as found:
                    yield found
            else:
                with _opened(local_path(source)) as file:
                    yield _of_file(file, source, model.sha256, show)

    @classmethod
    @contextmanager
    def of_file(cls, path: Path, *, sha256: str) -> Iterator[ModelSource]:
        """Open a file whose SHA-256 is known. Raises MissingAsset if it cannot be read."""
        with _explained(str(path)), _opened(path) as file:
            yield cls(sha256, os.fstat(file.fileno()).st_size, _chunks_of(file))


def _is_address(source: str) -> bool:
    return source.lower().startswith(("https://", "http://"))


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except Unusable as failure:
        kind: type[ComfyError] = AssetUnavailable if failure.transient or failure.timed_out else MissingAsset
        raise kind(f"{shown(source) if _is_address(source) else source}: {failure}.") from failure


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise MissingAsset(f"{path} cannot be read: {error.strerror}.") from error


def _of_file(file: IO[bytes], name: str, expected: str | None, show: Show) -> ModelSource:
    size_bytes = os.fstat(file.fileno()).st_size
    if not size_bytes:
        raise InvalidRequest(f"{name} is empty.")
    digest = hashlib.sha256()
    for chunk in _chunks_of(file):
        digest.update(chunk)
        show("reading", file.tell(), size_bytes)
    sha256 = digest.hexdigest()
    if expected not in {None, sha256}:
        raise MissingAsset(f"{name} has the SHA-256 {sha256}, not {expected}.")
    return ModelSource(sha256, size_bytes, _chunks_of(file))


def _chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    yield from iter(lambda: file.read(_CHUNK_BYTES), b"")


@contextmanager
def _fetched(source: str, model: ModelRequest, show: Show) -> Iterator[ModelSource]:
    settings = Settings.from_environment()
    network, tokens = Network.of(settings), tokens_of(settings)
    sha256 = model.sha256 or _said(source, network, tokens)
    with open_web_address(
        download_address(source), network=network, deadline=time.monotonic() + _WHOLE_S, tokens=tokens
    ) as stream:
        if sha256 is not None:
            yield ModelSource(sha256, stream.size_bytes, stream.chunks)
            return
        with tempfile.TemporaryFile() as file:
            _keep(stream, file, show)
            yield _of_file(file, shown(source), None, show)


def _said(source: str, network: Network, tokens: Tokens) -> str | None:
    pin = hash_of(source, get=getting(network, deadline=time.monotonic() + _ASK_S), tokens=tokens)
    return pin.sha256 if pin is not None else None


def _keep(stream: Stream, file: IO[bytes], show: Show) -> None:
    done = 0
    for chunk in stream.chunks:
        try:
            file.write(chunk)
        except OSError as error:
            raise MissingAsset(
                f"Its host does not say its SHA-256, so it is kept in {tempfile.gettempdir()} first, which fails: "
                f"{error.strerror}. Set TMPDIR, or give --sha256."
            ) from error
        done += len(chunk)
        show("fetching", done, stream.size_bytes)
    file.flush()
