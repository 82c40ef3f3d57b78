"""The SHA-256 of models whose request has none: from their host, else pinned when they are first fetched.

    in the request? ──► the host says it? ──► pinned before? ──► may it be fetched unpinned? ──► fetched, pinned
                        S3, Hugging Face,     by owner and       ALLOW_UNPINNED_MODELS
                        CivitAI               address

Whatever the source, the content is compared with it when it is fetched. The caller is told what it was.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import read_problem
from comfy_serverless.errors import MissingAsset
from comfy_serverless.fetch.hashes import getting, hash_of
from comfy_serverless.fetch.sources import S3Source, Unusable, parse, show
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.worker.model_store.pins import Pinned, Pins, pin_key
from comfy_serverless.worker.model_store.remote import Remote
from comfy_serverless.worker.model_store.wanted import Wanted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.fetch.tokens import Tokens
    from comfy_serverless.fetch.web import Network

#: How long a host may take to say what a file is, in seconds.
_ASK_S = 20.0
#: How long what a host has said is believed, in seconds, so that not every job of a busy worker asks.
_BELIEVED_S = 300.0
_MOST_BELIEVED = 1000
#: The metadata of an object in S3 that names its SHA-256: `comfy-serverless models add` writes it.
SHA256_METADATA = "sha256"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Hashes:
    """Says what models are. Thread-safe.

    Args:
        allow_unpinned: whether a model is fetched of which nobody says what it is.
    """

    def __init__(
        self, *, s3: S3Client, network: Network, tokens: Tokens, pins: Callable[[], Pins], allow_unpinned: bool
    ) -> None:
        self._s3 = s3
        self._network = network
        self._tokens = tokens
        self._pins = pins
        self._allow_unpinned = allow_unpinned
        self._lock = threading.Lock()
        self._change = threading.Condition()
        #: The pins that somebody here looks at now: what is fetched first is fetched once.
        self._busy: set[str] = set()
        self._believed: dict[str, tuple[float, Wanted]] = {}
        #: Contents that were compared with their pins: by pin and version.
        self._same: set[tuple[str, str]] = set()

    def wanted(
        self,
        model: ModelRequest,
        *,
        owner: str,
        remote: Callable[[], Remote],
        fetch: Callable[[str | None], Pinned],
        deadline: float,
    ) -> Wanted:
        """The model with the content that it is held to.

        Args:
            owner: whose job it is; "" for the operator.
            remote: the file at its address.
            fetch: fetches the file and returns what it was; keeps its content if that is the SHA-256 it is given, or
                if it is given none.

        Raises:
            Unusable: its place is not allowed, its host does not hand it out, or it has another content than it had.
            MissingAsset: nobody says what it is, and such models are not fetched here.
            ComfyError: a token or a pin cannot be read, or the file not be fetched.
        """
        if model.sha256 is not None:
            return Wanted(model, model.sha256)
        place = remote()  # which may not be allowed
        if (said := self._said(model, deadline=deadline)) is not None:
            return said
        if not self._allow_unpinned:
            raise _unpinned(model)
        key = pin_key(owner, model.url)
        with self._alone(key, deadline=deadline):
            pinned = self._pins().read(key)
            if pinned is None:
                pinned = self._pins().write(key, fetched := fetch(None))
                _compare(fetched, pinned)
            else:
                self._hold_to(pinned, key, remote=place, fetch=fetch, deadline=deadline)
        return Wanted(model, pinned.sha256, "as it had when it was first fetched", pinned.size_bytes)

    @contextmanager
    def _alone(self, key: str, *, deadline: float) -> Iterator[None]:
        with self._change:
            while key in self._busy:
                if not self._change.wait(max(0.0, deadline - time.monotonic())):
                    raise Unusable("another job was still fetching it", timed_out=True)
            self._busy.add(key)
        try:
            yield
        finally:
            with self._change:
                self._busy.discard(key)
                self._change.notify_all()

    def _said(self, model: ModelRequest, *, deadline: float) -> Wanted | None:
        """What the host says, now or a moment ago."""
        with self._lock:
            until, said = self._believed.get(model.url, (0.0, None))
        if said is not None and time.monotonic() < until:
            return Wanted(model, said.sha256, said.said, said.size_bytes)
        source = parse(model.url)
        until = min(deadline, time.monotonic() + _ASK_S)
        said = (
            self._said_by_s3(model, source)
            if isinstance(source, S3Source)
            else self._said_by_host(model, deadline=until)
        )
        if said is not None:
            with self._lock:
                if len(self._believed) >= _MOST_BELIEVED:
                    self._believed.clear()
                self._believed[model.url] = time.monotonic() + _BELIEVED_S, said
        return said

    def _said_by_host(self, model: ModelRequest, *, deadline: float) -> Wanted | None:
        pin = hash_of(model.url, get=getting(self._network, deadline=deadline), tokens=self._tokens)
        return None if pin is None else Wanted(model, pin.sha256, f"as {pin.said_by} says")

    def _said_by_s3(self, model: ModelRequest, source: S3Source) -> Wanted | None:
        address = source.address
        try:
            head = self._s3.head_object(Bucket=address.bucket, Key=address.key, ChecksumMode="ENABLED")
        except (ClientError, BotoCoreError) as error:
            reason, is_transient = read_problem(error, address)
            raise Unusable(reason, transient=is_transient) from error
        sha256 = head.get("Metadata", {}).get(SHA256_METADATA, "")
        if not _SHA256.fullmatch(sha256):
            sha256 = _whole_checksum(head.get("ChecksumSHA256", ""))
        return Wanted(model, sha256.lower(), "as S3 says", head["ContentLength"]) if sha256 else None

    def _hold_to(
        self, pinned: Pinned, key: str, *, remote: Remote, fetch: Callable[[str | None], Pinned], deadline: float
    ) -> None:
        """Raise Unusable if the address has another content than was pinned.

        Its version tells, if it is the same; if it is another, the content itself has to be compared.
        """
        until = min(deadline, time.monotonic() + _ASK_S)
        with remote.open(0, 0, version="", deadline=until) as part:
            size_bytes, version = part.total_bytes, part.version
        if size_bytes != pinned.size_bytes:
            raise _changed(f"{size_bytes:,} bytes", f"{pinned.size_bytes:,}")
        if version != pinned.etag and (key, version) not in self._same:
            _compare(fetch(pinned.sha256), pinned)
            with self._lock:
                if len(self._same) >= _MOST_BELIEVED:
                    self._same.clear()
                self._same.add((key, version))


def told(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """What the caller is told of models whose request has no sha256: the entry to copy."""
    return tuple(
        f"The model {one.path!r} has no sha256 in the request. It has the content {one.said}: to hold it to that from "
        f"now on, write {json.dumps(_entry(one))}"
        for one in wanted
        if one.model.sha256 is None
    )


def _entry(one: Wanted) -> dict[str, str]:
    name = {} if one.model.name is None else {"name": one.model.name}
    return {"url": show(one.url), "folder": one.model.folder, **name, "sha256": one.sha256}


def _compare(found: Pinned, pinned: Pinned) -> None:
    if found.sha256 != pinned.sha256:
        raise _changed(f"the SHA-256 {found.sha256}", pinned.sha256)


def _changed(now: str, before: str) -> Unusable:
    return Unusable(
        f"its address has another content now: {now}, not {before} as it had when it was first fetched. If that is "
        'right, say which content is meant, with "sha256" in its entry'
    )


def _unpinned(model: ModelRequest) -> MissingAsset:
    return MissingAsset(
        f"The model {model.path!r} from {show(model.url)} has no sha256, and its host does not say what it is, so it "
        'is not fetched: write "sha256" into its entry, or bring it to the stack, which prints the entry: '
        f"comfy-serverless models add URL --folder {shlex.quote(model.folder)} --stack NAME. Whoever runs the stack "
        "can allow such models (ALLOW_UNPINNED_MODELS=true): each is held to what it was first.",
        details={"model": model.path, "reason": "unpinned"},
    )


def _whole_checksum(text: str) -> str:
    """The SHA-256 in S3's own checksum; "" if it is one of the parts of an upload ("…-3"), or none."""
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return ""
    return digest.hex() if len(digest) == 32 else ""
