"""The sources of an input: an object in S3, a web address, the bytes themselves, or a file of this machine.

Each kind is a class that opens itself, and `parse` finds it by the scheme of an address. Another kind of address is one
more class, and its scheme in `_KINDS`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from comfy_serverless.aws.s3 import UNPINNED, Pin, PinnedAddress, S3Address, read_problem
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.file_inputs import missing_in, scheme_of
from comfy_serverless.redaction import redact_url, redacted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES = 1 << 18
ACCEPTED = "an s3://bucket/key, https:// or data:…;base64,… address, or base64 text"
_MAX_KEY_BYTES = 1024
#: Base64 of fewer characters than this cannot be a picture; a short text is a name that the caller expected to work.
_MIN_BASE64_LENGTH = 32


class Unusable(Exception):
    """The reason why an input cannot be used, and what to do about it.

    `transient`: the same fetch may succeed when tried again. `timed_out`: time ran out, perhaps through our own fault.
    `is_guarded`: its host hands it out, and not to us.
    """

    def __init__(
        self, reason: str, *, transient: bool = False, timed_out: bool = False, is_guarded: bool = False
    ) -> None:
        super().__init__(reason)
        self.transient = transient
        self.timed_out = timed_out
        self.is_guarded = is_guarded


class UnusableMask(Unusable):
    """The mask cannot be used; its image can."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An input being read: its bytes in pieces, its size if the sender gives one, and its type.

    For a web address also the part of the file (Content-Range; "" for the whole), and its version (ETag).
    """

    chunks: Iterator[bytes]
    size_bytes: int | None
    content_type: str
    content_range: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """The means to open sources, and their limits.

    Attributes:
        open_web: `open_web_address` in the network of this worker.
        allowed_buckets: the buckets that may be read; empty for all.
        max_bytes: the size of the largest input.
    """

    s3: S3Client | None
    open_web: Callable[[str, float], AbstractContextManager[Stream]]
    allowed_buckets: Sequence[str]
    max_bytes: int


class Source(Protocol):
    """A source of an input. As a text it is for people: short, and without secrets."""

    @property
    def name(self) -> str:
        """A path whose ending may be the file's; "" if there is none."""

    def open(self, access: Access, *, deadline: float) -> AbstractContextManager[Stream]:
        """Read it as a stream. Raises Unusable if it is not available, or not allowed."""


@dataclass(frozen=True, slots=True)
class S3Source:
    """An object in S3, or one version of it."""

    address: S3Address
    pin: Pin = UNPINNED

    def __str__(self) -> str:
        return str(PinnedAddress(self.address, self.pin))

    @property
    def name(self) -> str:
        return self.address.key

    def check_allowed(self, buckets: Sequence[str]) -> None:
        """Raise Unusable unless the object is in one of the buckets; none given allow all."""
        if buckets and self.address.bucket not in buckets:
            raise Unusable(f"its bucket is not allowed; ALLOWED_INPUT_BUCKETS has {', '.join(buckets)}")

    @contextmanager
    def open(self, access: Access, *, deadline: float) -> Iterator[Stream]:  # noqa: ARG002  (the client has limits)
        """See `Source`."""
        from botocore.exceptions import BotoCoreError, ClientError  # only an object in S3 needs AWS's libraries

        self.check_allowed(access.allowed_buckets)
        if access.s3 is None:
            raise Unusable("is in S3, which is not read here")
        try:
            answer = access.s3.get_object(Bucket=self.address.bucket, Key=self.address.key, **self.pin.conditions)
        except (ClientError, BotoCoreError) as error:
            reason, is_transient = read_problem(error, self.address)
            raise Unusable(reason, transient=is_transient) from error
        body = answer["Body"]
        try:
            yield Stream(body.iter_chunks(CHUNK_BYTES), answer["ContentLength"], answer.get("ContentType", ""))
        except BotoCoreError as error:  # raised while the caller reads
            raise Unusable(f"the connection to S3 broke off: {redacted(error)}", transient=True) from error
        finally:
            body.close()


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http:// or https:// address. Shown without its query and credentials: both can be secrets."""

    url: str

    def __str__(self) -> str:
        return redact_url(self.url)

    @property
    def name(self) -> str:
        return urlsplit(self.url).path

    def open(self, access: Access, *, deadline: float) -> AbstractContextManager[Stream]:
        """See `Source`."""
        return access.open_web(self.url, deadline)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Base64 in the request itself, with its media type if it came as a data: address."""

    text: str
    content_type: str = ""
    name: str = ""

    def __str__(self) -> str:
        start = f"data:{self.content_type};base64,…" if self.content_type else "base64 text"
        return f"{start} ({len(self.text)} characters)"

    @contextmanager
    def open(self, access: Access, *, deadline: float) -> Iterator[Stream]:  # noqa: ARG002  (it is here already)
        """See `Source`."""
        text, max_bytes = self.text, access.max_bytes
        if len(text) > max_bytes * 2 + 1024:  # a limit for the work; the exact size is checked later
            raise Unusable(f"has more than {max_bytes} bytes, the limit (MAX_INPUT_BYTES)")
        raw = unquote_to_bytes(text) if "%" in text else text.encode("ascii", "replace")
        if b" " in raw and len(raw) % 4 == 0 and not set(raw) & set(b"+-\r\n\t"):
            raw = raw.replace(b" ", b"+")  # a form or an address on the way has read them as spaces
        raw = raw.translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n").rstrip(b"=")
        try:
            content = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
        except binascii.Error as error:
            raise Unusable(f"is not valid base64: {error}. Send {ACCEPTED}") from error
        yield Stream(iter((content,)), len(content), self.content_type)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that the owner of this machine gives."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @contextmanager
    def open(self, access: Access, *, deadline: float) -> Iterator[Stream]:  # noqa: ARG002  (as all sources)
        """See `Source`."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror}") from error
        with file:
            yield Stream(iter(lambda: file.read(CHUNK_BYTES), b""), self.path.stat().st_size, "")


def parse(text: str) -> Source:
    """Understand the text of an input.

    Raises:
        Unusable: it is none of the accepted kinds, or a malformed one.
    """
    scheme = scheme_of(text)
    if kind := _KINDS.get(scheme):
        return kind(text)
    if len(scheme) > 1:
        raise Unusable(f"{scheme}: addresses are not accepted; send {ACCEPTED}")
    if scheme or "." in text or "\\" in text or len(text) < _MIN_BASE64_LENGTH:
        raise Unusable(
            f"this is a file name or a word, and no upload of yours has this name; send {ACCEPTED}. A file that is in "
            'the input folder of ComfyUI already belongs in the workflow or in "set"'
        )
    return Embedded(text)


def show(text: str) -> str:
    """A text of unknown kind for a message: short, printable, without secrets."""
    try:
        return str(parse(text))
    except Unusable:
        shown = text if text.isprintable() else ascii(text)[1:-1]
        return repr(redact_url(shown) if "://" in shown else shown[:60] + ("…" if len(shown) > 60 else ""))


def _s3_source(text: str) -> S3Source:
    """The object an address names, or the version of it. Its key is used as written: nothing in it is decoded."""
    try:
        address, pin = PinnedAddress.parse("s3" + text[2:])
        key_bytes = len(address.key.encode())
    except (InvalidRequest, UnicodeEncodeError):
        raise Unusable(missing_in(text) or "is not of the form s3://bucket/key") from None
    if address.key.endswith("/"):
        raise Unusable("names a folder, not an object")
    if key_bytes > _MAX_KEY_BYTES:
        raise Unusable(f"has a key of more than {_MAX_KEY_BYTES} bytes")
    return S3Source(address, pin)


def _data_address(text: str) -> Embedded:
    header, comma, content = text[len("data:") :].partition(",")
    content_type, *parameters = (part.strip().lower() for part in header.split(";"))
    if not comma or "base64" not in parameters:
        raise Unusable("data: addresses must be base64: data:image/png;base64,…")
    return Embedded(content, content_type if re.fullmatch(r"[\w.+-]{1,40}/[\w.+-]{1,80}", content_type) else "")


_KINDS: Mapping[str, Callable[[str], Source]] = {
    "s3": _s3_source,
    "https": WebAddress,
    "http": WebAddress,
    "data": _data_address,
}
