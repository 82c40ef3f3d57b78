"""Where a line of a batch's manifest is: `s3://bucket/requests/batches/{batch}.jsonl#{offset}-{length}`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from comfy_serverless.aws.s3 import S3Address

_KEY = re.compile(r"requests/batches/(?P<batch>[A-Za-z0-9_-]{1,64})\.jsonl#(?P<offset>\d{1,15})-(?P<length>\d{1,8})")


def manifest_address(bucket: str, batch_id: str) -> S3Address:
    """Where our copy of a batch's manifest is."""
    return S3Address(bucket, f"requests/batches/{batch_id}.jsonl")


@dataclass(frozen=True, slots=True)
class LineAddress:
    """The address of a line, in bytes of the manifest."""

    bucket: str
    batch_id: str
    offset: int
    length: int

    def to_text(self) -> str:
        """The address as a message has it."""
        return f"{self.manifest}#{self.offset}-{self.length}"

    @classmethod
    def parse(cls, address: S3Address) -> Self | None:
        """Read an address; None for that of anything else."""
        match = _KEY.fullmatch(address.key)
        return cls(address.bucket, match["batch"], int(match["offset"]), int(match["length"])) if match else None

    @property
    def manifest(self) -> S3Address:
        """The manifest it is a line of."""
        return manifest_address(self.bucket, self.batch_id)
