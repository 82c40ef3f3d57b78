"""Presigned links to many objects of one bucket.

`generate_presigned_url` judges the parameters, finds the endpoint and makes a request for each link: for a thousand
outputs that is most of what an answer of the API costs. Here it makes one for each bucket, whose address, date,
credentials and token the others take over: what is left is a hash of a text and its HMAC (AWS Signature Version 4, in
its form for queries). Our signature of that first link must be botocore's, else botocore's own signer signs all of them
(version 4A, say). A test compares the links with botocore's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, quote, urlsplit

from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OPERATION = "GetObject"
_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNATURE = "X-Amz-Signature"


def bucket_address(s3: S3Client, bucket: str) -> str:
    """Where links to objects of a bucket begin, with a slash at the end. No request is made."""
    return _base(urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})))


class LinkSigner:
    """Signs links with the client's credentials and clock of now; for one answer, not to be kept."""

    def __init__(self, s3: S3Client, bucket: str, *, expiry_s: int) -> None:
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=expiry_s)
        sample = urlsplit(url)
        self._base = _base(sample)
        self._sign: Callable[[str, dict[str, str]], str] = _signed_here(s3, sample) or _signed_by_botocore(
            s3, sample, expiry_s=expiry_s
        )

    def link(self, key: str, parameters: dict[str, str]) -> str:
        """A link to an object. No request is made. `parameters` are those of GetObject in the query."""
        return self._sign(self._base + quote(key, safe="/~"), parameters)


def _base(sample: SplitResult) -> str:
    return f"{sample.scheme}://{sample.netloc}{sample.path.removesuffix('k')}"


def _signed_here(s3: S3Client, sample: SplitResult) -> Callable[[str, dict[str, str]], str] | None:
    """What signs an address with its parameters as the sample is signed; None if that cannot be done here."""
    query = dict(parse_qsl(sample.query, keep_blank_values=True))
    expected = query.pop(_SIGNATURE, "")
    secret = _secret(s3, of=query.get("X-Amz-Credential", ""))
    if query.get("X-Amz-Algorithm") != _ALGORITHM or query.get("X-Amz-SignedHeaders") != "host" or secret is None:
        return None
    scope = query["X-Amz-Credential"].partition("/")[2]
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    begin = f"{_ALGORITHM}\n{query['X-Amz-Date']}\n{scope}\n"
    fixed = _pairs(query)
    origin = len(f"{sample.scheme}://{sample.netloc}")

    def signed(address: str, parameters: dict[str, str]) -> str:
        asked = "&".join(sorted([*fixed, *_pairs(parameters)]))
        request = f"GET\n{address[origin:]}\n{asked}\nhost:{sample.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        text = begin + hashlib.sha256(request.encode()).hexdigest()
        return f"{address}?{asked}&{_SIGNATURE}={hmac.digest(key, text.encode(), 'sha256').hex()}"

    ours = signed(f"{sample.scheme}://{sample.netloc}{sample.path}", {})
    return signed if hmac.compare_digest(ours.rpartition("=")[2], expected) else None


def _pairs(query: dict[str, str]) -> list[str]:
    return [f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items()]


def _secret(s3: S3Client, *, of: str) -> str | None:
    """The secret of the key that a link was signed with; None if there is another one by now, or none."""
    credentials: Any = s3._request_signer._credentials  # type: ignore[attr-defined]  # it has no public place
    frozen = credentials and credentials.get_frozen_credentials()
    return str(frozen.secret_key) if frozen and of.startswith(f"{frozen.access_key}/") else None


def _signed_by_botocore(s3: S3Client, sample: SplitResult, *, expiry_s: int) -> Callable[[str, dict[str, str]], str]:
    _id, _day, region, service, _ = parse_qs(sample.query)["X-Amz-Credential"][0].rsplit("/", 4)
    signer: Any = s3._request_signer  # type: ignore[attr-defined]  # it has no public place
    context: dict[str, Any] = {}
    version = signer._choose_signer(_OPERATION, "presign-url", context)  # it asks `ServerClock`
    auth = signer.get_auth_instance(service, region, version, expires=expiry_s)

    def signed(address: str, parameters: dict[str, str]) -> str:
        request = AWSRequest("GET", address, params=parameters)
        request.context.update(context)
        auth.add_auth(request)
        return str(request.url)

    return signed
