"""Presigned links to many objects of one bucket.

`generate_presigned_url` judges the parameters, finds the endpoint and makes a request for each link: four times the
work of the signature, and for a thousand outputs most of what an answer of the API costs. Here that is done once a
bucket, and botocore's own signer signs. A test compares the links with botocore's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OPERATION = "GetObject"


def bucket_address(s3: S3Client, bucket: str) -> str:
    """Where links to objects of a bucket begin, with a slash at the end. No request is made."""
    sample = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
    return f"{sample.scheme}://{sample.netloc}{sample.path.removesuffix('k')}"


class LinkSigner:
    """Signs links with the client's credentials and clock of now; for one answer, not to be kept."""

    def __init__(self, s3: S3Client, bucket: str, *, expiry_s: int) -> None:
        sample = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
        self._base = f"{sample.scheme}://{sample.netloc}{sample.path.removesuffix('k')}"
        _id, _day, region, service, _ = parse_qs(sample.query)["X-Amz-Credential"][0].rsplit("/", 4)
        signer: Any = s3._request_signer  # type: ignore[attr-defined]  # it has no public place
        self._context: dict[str, Any] = {}
        version = signer._choose_signer(_OPERATION, "presign-url", self._context)  # it asks `ServerClock`
        self._auth = signer.get_auth_instance(service, region, version, expires=expiry_s)

    def link(self, key: str, parameters: dict[str, str]) -> str:
        """A link to an object. No request is made. `parameters` are those of GetObject in the query."""
        request = AWSRequest("GET", self._base + quote(key, safe="/~"), params=parameters)
        request.context.update(self._context)
        self._auth.add_auth(request)
        return str(request.url)
