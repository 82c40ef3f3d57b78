"""Presigned links, by which outputs and assets are downloaded. While a link works, it gives access to its file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.files import UNKNOWN_TYPE, bare_type, is_shown
from comfy_serverless.jobs.document import Job, Output

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: A media type alone. Its parameters could hide a list of types, of which browsers take the last.
_PLAIN_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")


class Link(NamedTuple):
    """A link, and the moment it stops working."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Links:
    """Makes links that work for `expiry_s` seconds."""

    s3: S3Client
    expiry_s: int

    def of(self, address: S3Address, *, name: str, content_type: str) -> Link:
        """A link to an object, with the name under which a browser saves it. No request is made."""
        kind = bare_type(content_type)
        url = self.s3.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": address.bucket,
                "Key": address.key,
                "ResponseContentType": kind if _PLAIN_TYPE.fullmatch(kind) else UNKNOWN_TYPE,
                "ResponseContentDisposition": (
                    f"{'inline' if is_shown(kind) else 'attachment'}; filename*=UTF-8''{quote(name, safe='')}"
                ),
            },
            ExpiresIn=self.expiry_s,
        )
        return Link(url, datetime.now(UTC) + timedelta(seconds=self.expiry_s))

    def of_output(self, output: Output) -> Output:
        """An output with a fresh link, if it is in S3."""
        if output.s3_uri is None:
            return output
        url, expires_at = self.of(S3Address.parse(output.s3_uri), name=output.name, content_type=output.content_type)
        return output.model_copy(update={"url": url, "url_expires_at": expires_at})

    def of_job(self, job: Job) -> Job:
        """A job whose outputs have fresh links."""
        return job.model_copy(update={"outputs": tuple(map(self.of_output, job.outputs))})
