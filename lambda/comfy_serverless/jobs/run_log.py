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
#: A line of so many characters was cut (`connector.run_log`), perhaps amid a key; the next one may be its rest.
CUT_AT = 2000
#: So many characters of a key are a part of it that counts.
_PART_OF_KEY = 4


def log_address(result: S3Address) -> S3Address:
    """Where a job's log is."""
    return S3Address(result.bucket, result.key.removesuffix(RESULT_NAME) + LOG_NAME)


def log_content(lines: Sequence[str], *, extra_data: Mapping[str, Any] | None) -> bytes:
    """The file. What `extra_data` has of keys is not in it, nor the account and the worker's folders.

    Args:
        extra_data: what ComfyUI got beside the workflow: nodes may write it.
    """
    keys, is_rest, told = keys_in(extra_data), False, list[str]()
    for line in lines:
        is_cut = len(line) >= CUT_AT
        shown = without_keys(line, keys)
        for key in keys:
            shown = _without_first_part(shown, key) if is_cut else shown
            shown = _without_last_part(shown, key) if is_rest else shown
        told.append(f"{_told(shown)}\n")
        is_rest = is_cut
    return "".join(told).encode("utf-8", "replace")


def log_lines(content: bytes) -> list[str]:
    """The lines of a file, redacted as of today."""
    return [_told(line) for line in content.decode("utf-8", "replace").split("\n")[:-1]]


def _without_first_part(line: str, key: str) -> str:
    """A line without the beginning of a key at its end."""
    at = line.find(key[:_PART_OF_KEY], max(0, len(line) - len(key)))
    while at >= 0 and not key.startswith(line[at:]):
        at = line.find(key[:_PART_OF_KEY], at + 1)
    return line if at < 0 else f"{line[:at]}…"


def _without_last_part(line: str, key: str) -> str:
    """A line without the end of a key at its beginning."""
    at = line.rfind(key[-_PART_OF_KEY:], 0, len(key))
    while at >= 0 and not key.endswith(line[: at + _PART_OF_KEY]):
        at = line.rfind(key[-_PART_OF_KEY:], 0, at + _PART_OF_KEY - 1)
    return line if at < 0 else f"…{line[at + _PART_OF_KEY :]}"


def _told(line: str) -> str:
    shown = outward(redacted(redact_addresses(line)))
    return clean("".join(letter if letter.isprintable() or letter == "\t" else " " for letter in shown))
