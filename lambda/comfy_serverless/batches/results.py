"""The report of a batch, as one reads it: the summary, a row for each line, and the lines that can be run again.

Everything is streamed. A report of a release that wrote no `.report.jsonl` is read from its table: without labels,
inputs and the addresses of outputs.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import S3Address, Trouble, trouble_of
from comfy_serverless.batches.cure import BAD, REPEATABLE, is_curable
from comfy_serverless.errors import NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.batches.batch import Batch

_SUMMARY = ".report.json"
#: The most characters of an input: data URIs hold the file itself.
MAX_INPUT_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a line.

    Attributes:
        line: its number in the file, from 1 on; blank lines count.
        status: of its job, once that has ended; or `cure.BAD`.
        code, message, retryable: of the job's error, or why the line is bad; empty if there is none.
        duplicate_of: the line that is the same job, if it comes before this one.
        result: the address of the job's `result.json`.
        inputs: the files of the request, by their places, named as in the line.
        outputs: the addresses of all files that the job has made.
        outputs_uri: where all of them are listed, if they are more than a job lists.
    """

    line: int
    job_id: str = ""
    status: str = ""
    code: str = ""
    message: str = ""
    retryable: bool = False
    duplicate_of: int | None = None
    result: str = ""
    created_at: str = ""
    completed_at: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str | list[str]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    outputs_uri: str = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Read a line of `.report.jsonl`; unknown fields are ignored."""
        error = document.get("error") or {}
        known = {name: document[name] for name in cls.__slots__ if document.get(name) is not None}
        known |= {"outputs": tuple(document.get("outputs") or ())}
        named = {name: error[name] for name in ("code", "message", "retryable") if name in error}
        return cls(**{**known, **named})

    def to_json(self) -> dict[str, Any]:
        """The row as a line of `.report.jsonl` has it."""
        error = {"code": self.code, "message": self.message, "retryable": self.retryable}
        return {
            "line": self.line,
            "job_id": self.job_id,
            "status": self.status,
            "error": error if self.code else None,
            "duplicate_of": self.duplicate_of,
            "result": self.result,
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "metadata": self.metadata,
            "inputs": self.inputs,
            "outputs": self.outputs,
            **({"outputs_uri": self.outputs_uri} if self.outputs_uri else {}),
        }

    @property
    def is_bad(self) -> bool:
        """Whether the line is no request."""
        return self.status == BAD

    @property
    def is_repeatable(self) -> bool:
        """Whether the line can be run again: it is in `.failed.jsonl` then."""
        return self.status in REPEATABLE and self.duplicate_of is None

    @property
    def is_curable(self) -> bool:
        """Whether another try may end well."""
        return self.is_repeatable and is_curable(self.status, self.code, retryable=self.retryable)


@dataclass(frozen=True, slots=True)
class Results:
    """The report at this address."""

    s3: S3Client
    address: S3Address

    @classmethod
    def of(cls, s3: S3Client, batch: Batch) -> Self:
        """The report of a batch. Raises NotFound if it has none yet."""
        if batch.report is None:
            raise NotFound(f"the batch {batch.id} has not ended ({batch.status.value}): its report comes at the end.")
        return cls(s3, S3Address.parse(batch.report))

    def summary(self) -> dict[str, Any]:
        """The counts, and the first failures."""
        answer = self.s3.get_object(Bucket=self.address.bucket, Key=self.address.key)
        return dict(json.loads(answer["Body"].read()))

    def rows(self) -> Iterator[Row]:
        """A row for each line, in the order of the file."""
        lines = self._lines(".report.jsonl")
        if lines is not None:
            for line in lines:
                yield Row.parse(json.loads(line))
            return
        for cells in csv.DictReader(self._text(".report.csv")):
            first = cells["duplicate_of"]
            yield Row.parse(
                {
                    **cells,
                    "line": int(cells["line"]),
                    "duplicate_of": int(first) if first else None,
                    "error": {"code": cells["code"], "message": cells["message"]} if cells["code"] else None,
                }
            )

    def again(self) -> Iterator[tuple[Row, bytes]]:
        """The rows that can be run again, each with its line as it is dropped then, under a new id."""
        repeatable = (row for row in self.rows() if row.is_repeatable)
        yield from zip(repeatable, self._lines(".failed.jsonl") or (), strict=True)

    def bad_lines(self) -> Iterator[bytes]:
        """The lines that are no requests, as they came."""
        yield from self._lines(".bad.jsonl") or ()

    def address_of(self, ending: str) -> S3Address:
        """Where a file of the report is, such as `.report.csv`."""
        return S3Address(self.address.bucket, self.address.key.removesuffix(_SUMMARY) + ending)

    def _lines(self, ending: str) -> Iterator[bytes] | None:
        """The lines of a file of the report; None if there is no such file."""
        address = self.address_of(ending)
        try:
            body = self.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"]
        except ClientError as error:
            if trouble_of(error) is Trouble.MISSING:
                return None
            raise
        return _cut(body)

    def _text(self, ending: str) -> Iterator[str]:
        """The text of a file, line by line with their ends, as the reader of CSV wants it."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for line in self._lines(ending) or ():
            yield decoder.decode(line) + "\n"


def shown_input(value: object) -> str | list[str]:
    """The value of an input: files by their addresses, other values as JSON."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [_shortened(text) for text in value]
    return _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_INPUT_CHARACTERS else f"{text[:100]}…"


def _cut(body: Any) -> Iterator[bytes]:  # noqa: ANN401  (botocore's stream)
    """Lines that end with `\\n` and with nothing else, one in memory at a time."""
    with closing(body):
        held = b""
        for chunk in body.iter_chunks(256 * 1024):
            *lines, held = (held + chunk).split(b"\n")
            yield from lines
        if held:
            yield held
