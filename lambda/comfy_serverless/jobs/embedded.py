"""The workflow inside of a picture, video, sound or model in S3: read by ranges, and in the sandbox.

    first megabytes ──► sandbox: the workflow, or "bytes 2,100,000,000 to … are wanted" ──► that range ──► sandbox …

The sandbox begins anew with each range, and goes through what is there already in no time. So a video of any size costs
one request or two, mostly. What was fetched lies in a temporary file with holes; at most `_MOST_BYTES` are fetched.

Each file has a sandbox of its own, whose child ends with it. To start one takes a tenth of a second; but its answer
goes to whoever sent the file, and a child that had files of several owners could answer one with what is another's.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from comfy_serverless.aws.s3 import UNPINNED, Pin, S3Address, error_code, etag_of, read_json, read_problem
from comfy_serverless.errors import AssetUnavailable, InvalidWorkflow, MissingAsset
from comfy_serverless.files import may_carry_workflow
from comfy_serverless.jobs.extra_data import MAX_EXTRA_DATA_BYTES
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

#: The first request: pictures are smaller, mostly. Those that follow bring at least a sixteenth of it, and each time
#: twice as much: chunks that stand one behind the other are not worth a request each.
_FIRST_BYTES = 4 << 20
_LEAST_BYTES, _LARGEST_BYTES = 1 << 18, 16 << 20
_MOST_BYTES, _MOST_REQUESTS = 96 << 20, 48
#: The API has less than half a minute for an answer.
_DEADLINE_S = 20.0
#: For what stands around the editor's workflow in `extra_data`.
_ROOM_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Embedded:
    """What is inside of a file.

    Attributes:
        document: `{"prompt": …, "workflow": …}`, as ComfyUI writes it; one of them may be missing.
        warnings: what was left out, for people.
    """

    document: dict[str, Any]
    warnings: tuple[str, ...] = ()


def workflow_document(s3: S3Client, address: S3Address, *, what: str, pin: Pin = UNPINNED) -> Embedded:
    """The JSON in an object, or in the picture, video, sound or model that it is, by its name.

    Raises as `aws.s3.read_json`, and InvalidWorkflow if the file carries no workflow.
    """
    if may_carry_workflow(address.key):
        return embedded_in(s3, address, what=what, pin=pin)
    return Embedded(read_json(s3, address, what=what, pin=pin))


def embedded_in(s3: S3Client, address: S3Address, *, what: str, pin: Pin = UNPINNED) -> Embedded:
    """The prompt and the workflow in one version of an object; `what` describes it for people.

    Raises:
        MissingAsset: it is not there, or may not be read.
        InvalidWorkflow: it carries no workflow, or not where one would be found.
        AssetUnavailable: S3 itself failed, or no process could be started.
    """
    deadline = time.monotonic() + _DEADLINE_S
    with tempfile.TemporaryFile() as file, closing(Sandbox()) as sandbox:
        ranges = _Ranges(s3, address, pin, file, what=what)
        ranges.fetch(0, _FIRST_BYTES, deadline=deadline)
        try:
            while "missing" in (answer := _asked(sandbox, ranges, deadline=deadline)):
                ranges.fetch(*answer["missing"], deadline=deadline)
        except Refused as refused:
            raise _refusal(refused, f"{what} {address}") from refused
    return _kept(answer["document"], answer["warnings"])


def embedded_in_bytes(content: bytes, *, what: str) -> Embedded:
    """The prompt and the workflow in a whole file that is in memory. Raises InvalidWorkflow, AssetUnavailable."""
    deadline = time.monotonic() + _DEADLINE_S
    with tempfile.TemporaryFile() as file, closing(Sandbox()) as sandbox:
        file.write(content)
        file.flush()
        whole, size = [(0, len(content))], len(content)
        try:
            answer = sandbox.read_embedded(file.fileno(), size=size, known=whole, deadline=deadline, turn="", owner="")
        except Refused as refused:
            raise _refusal(refused, what) from refused
    return _kept(answer["document"], answer["warnings"])


def _refusal(refused: Refused, what: str) -> AssetUnavailable | InvalidWorkflow:
    kind = AssetUnavailable if refused.transient or refused.timed_out else InvalidWorkflow
    return kind(f"{what} {refused}")


def _kept(document: dict[str, Any], warnings: list[str]) -> Embedded:
    """Without the editor's workflow, if that is more than is kept with a request, and not needed."""
    beside = document.get("workflow") if "prompt" in document else None
    if beside is not None and (size_bytes := len(json.dumps(beside))) > MAX_EXTRA_DATA_BYTES - _ROOM_BYTES:
        much = f"it has {size_bytes:,} bytes; at most {MAX_EXTRA_DATA_BYTES:,} are passed on"
        return Embedded({"prompt": document["prompt"]}, (*warnings, f"left out: the workflow of the editor: {much}"))
    return Embedded(document, tuple(warnings))


def _asked(sandbox: Sandbox, ranges: _Ranges, *, deadline: float) -> Mapping[str, Any]:
    return sandbox.read_embedded(
        ranges.file.fileno(), size=ranges.size, known=ranges.known, deadline=deadline, turn="", owner=""
    )


class _Ranges:
    """What was fetched of an object, in a file with holes. All of it is of the version that the first request found."""

    def __init__(self, s3: S3Client, address: S3Address, pin: Pin, file: IO[bytes], *, what: str) -> None:
        self.file = file
        self.size = 0
        self.known: list[tuple[int, int]] = []
        self._s3, self._address, self._pin, self._what = s3, address, pin, what
        self._next_bytes = _LEAST_BYTES
        self._fetched = 0

    def fetch(self, offset: int, size: int, *, deadline: float) -> None:
        """Fetch a range, and more behind it. Raises as `embedded_in`, Refused if it is too much, or too late."""
        if time.monotonic() >= deadline:
            raise Refused(f"could not be looked through for a workflow in {_DEADLINE_S:g} s", timed_out=True)
        if self.known:
            size = max(size, self._next_bytes)
            self._next_bytes = min(2 * self._next_bytes, _LARGEST_BYTES)
        self._fetched += size
        if self._fetched > _MOST_BYTES or len(self.known) == _MOST_REQUESTS:
            raise Refused(
                f"has more to look through for a workflow than the {_MOST_BYTES:,} bytes, in {_MOST_REQUESTS} pieces, "
                "that are fetched. Give the workflow itself: the JSON that the editor saves or exports."
            )
        content = self._read(offset, size)
        self.file.seek(offset)
        self.file.write(content)
        self.file.flush()
        self.known.append((offset, offset + len(content)))

    def _read(self, offset: int, size: int) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        wanted = f"bytes={offset}-{offset + size - 1}"
        source = self._address
        try:
            answer = self._s3.get_object(Bucket=source.bucket, Key=source.key, Range=wanted, **self._pin.conditions)
            content = answer["Body"].read()
        except (ClientError, BotoCoreError) as error:
            if error_code(error) == "InvalidRange" and not self.known:  # it has no bytes
                return b""
            reason, is_transient = read_problem(error, source)
            raise (AssetUnavailable if is_transient else MissingAsset)(f"{self._what} {source} {reason}.") from error
        if not self.known:
            self.size = int(answer.get("ContentRange", "").rpartition("/")[2] or len(content))
            if not self._pin.version_id:
                self._pin = Pin(etag=etag_of(answer["ETag"]))
        return content
