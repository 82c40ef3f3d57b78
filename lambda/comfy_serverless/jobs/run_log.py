"""`log.txt` beside a result: the last lines that ComfyUI wrote during the job, as key holders may read them. No IO.

It is beside `result.json`; outputs are a folder further down, so none can have its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.document import clean
from comfy_serverless.jobs.extra_data import keys_in, without_keys
from comfy_serverless.jobs.keys import LOG_NAME, RESULT_NAME
from comfy_serverless.jobs.outward import outward
from comfy_serverless.redaction import redact_addresses, redacted

#: The most of it that is read: 200 lines of 2,000 characters have less.
MAX_LOG_BYTES = 2_000_000
#: How the line begins that says how many came before.
LEFT_OUT = "… "


def log_address(result: S3Address) -> S3Address:
    """Where a job's log is."""
    return S3Address(result.bucket, result.key.removesuffix(RESULT_NAME) + LOG_NAME)


def log_content(lines: Sequence[str], *, extra_data: Mapping[str, Any] | None) -> bytes:
    """The file. What `extra_data` has of keys is not in it, nor the account and the worker's folders.

    Args:
        extra_data: what ComfyUI got beside the workflow: nodes may write it.
    """
    keys = keys_in(extra_data)
    return "".join(f"{_told(line, keys)}\n" for line in lines).encode("utf-8", "replace")


def log_lines(content: bytes) -> list[str]:
    """The lines of a file, redacted as of today."""
    return [_told(line, ()) for line in content.decode("utf-8", "replace").split("\n")[:-1]]


def _told(line: str, keys: Sequence[str]) -> str:
    shown = outward(redacted(redact_addresses(without_keys(line, keys))))
    return clean("".join(letter if letter.isprintable() or letter == "\t" else " " for letter in shown))
