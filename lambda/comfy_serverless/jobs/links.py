"""Presigned links, by which outputs and assets are downloaded. While a link works, it gives access to its file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from comfy_serverless.aws.presign import LinkSigner
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.files import UNKNOWN_TYPE, bare_type, is_shown
from comfy_serverless.jobs.document import Job, Output

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_THUMB = "image/webp"
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
        return self._link(self._signer(address.bucket), address.key, name=name, content_type=content_type)

    def of_outputs(self, outputs: Iterable[Output]) -> tuple[Output, ...]:
        """Outputs with fresh links, those that are in S3."""
        signers: dict[str, LinkSigner] = {}
        linked: list[Output] = []
        for output in outputs:
            if output.s3_uri is None:
                linked.append(output)
                continue
            bucket, key = S3Address.parse(output.s3_uri)
            signer = signers.get(bucket) or signers.setdefault(bucket, self._signer(bucket))
            url, expires_at = self._link(signer, key, name=output.name, content_type=output.content_type)
            links: dict[str, object] = {"url": url, "url_expires_at": expires_at}
            if output.thumb_uri is not None and (thumb := S3Address.parse(output.thumb_uri)).bucket == bucket:
                links["thumb_url"] = self._link(signer, thumb.key, name=f"{output.name}.webp", content_type=_THUMB).url
            linked.append(output.model_copy(update=links))
        return tuple(linked)

    def of_job(self, job: Job) -> Job:
        """A job whose outputs have fresh links."""
        return job.model_copy(update={"outputs": self.of_outputs(job.outputs)})

    def _signer(self, bucket: str) -> LinkSigner:
        return LinkSigner(self.s3, bucket, expiry_s=self.expiry_s)

    def _link(self, signer: LinkSigner, key: str, *, name: str, content_type: str) -> Link:
        kind = bare_type(content_type)
        disposition = f"{'inline' if is_shown(kind) else 'attachment'}; filename*=UTF-8''{quote(name, safe='')}"
        url = signer.link(
            key,
            {
                "response-content-type": kind if _PLAIN_TYPE.fullmatch(kind) else UNKNOWN_TYPE,
                "response-content-disposition": disposition,
            },
        )
        return Link(url, datetime.now(UTC) + timedelta(seconds=self.expiry_s))
