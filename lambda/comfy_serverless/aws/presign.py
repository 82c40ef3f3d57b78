"""Presigned links to many objects of one bucket.

`generate_presigned_url` judges the parameters, finds the endpoint and makes a request for each link: for a thousand
outputs that is most of what an answer of the API costs. Here it makes one for each bucket, whose address, date,
credentials and token the others take over: what is left is a hash of a text and its HMAC (AWS Signature Version 4, in
its form for queries). Our signature of that first link must be botocore's, else botocore's own signer signs all of them
(version 4A, say): a link of its costs seven times as much. A test compares the links with botocore's. All of botocore
that is used is public: what has signed the first link, its event `before-sign` tells.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
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
        signing = _Signing.of(s3)
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=expiry_s)
        sample = urlsplit(url)
        auth = signing.auth(sample, expiry_s=expiry_s)
        self._base = _base(sample)
        self._sign: Callable[[str, dict[str, str]], str] = _signed_here(auth, sample) or _signed_by_botocore(
            auth, signing.context
        )

    def link(self, key: str, parameters: dict[str, str]) -> str:
        """A link to an object. No request is made. `parameters` are those of GetObject in the query."""
        return self._sign(self._base + quote(key, safe="/~"), parameters)


class _Signing(threading.local):
    """How botocore has signed the last link of a client, in this thread: what its event `before-sign` tells.

    Attributes:
        told: the signer, and which of its ways it takes (version 4, 4A, with S3's clock).
        context: of the request, which has what else the way needs.
    """

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.context: dict[str, Any] = {}

    @classmethod
    def of(cls, s3: S3Client) -> _Signing:
        """That of a client; it listens from the first time on."""
        with _LOCK:
            found = _SIGNINGS.get(s3)
            if found is None:
                found = _SIGNINGS[s3] = cls()
                s3.meta.events.register(f"before-sign.s3.{_OPERATION}", found.keep)
        return found

    def keep(self, *, request: AWSRequest, **told: Any) -> None:  # noqa: ANN401  (as botocore tells it)
        """Remember how a request is signed."""
        self.told, self.context = told, dict(request.context)

    def auth(self, sample: SplitResult, *, expiry_s: int) -> Any:  # noqa: ANN401  (a signer of `botocore.auth`)
        """What has signed the sample, made anew. Its credentials may be others by now."""
        scope = parse_qs(sample.query)["X-Amz-Credential"][0].rsplit("/", 4)
        region, service = scope[2], scope[3]
        return self.told["request_signer"].get_auth_instance(
            service, region, self.told["signature_version"], expires=expiry_s
        )


_LOCK: Final = threading.Lock()
_SIGNINGS: Final[weakref.WeakKeyDictionary[Any, _Signing]] = weakref.WeakKeyDictionary()


def _base(sample: SplitResult) -> str:
    return f"{sample.scheme}://{sample.netloc}{sample.path.removesuffix('k')}"


def _signed_here(auth: Any, sample: SplitResult) -> Callable[[str, dict[str, str]], str] | None:  # noqa: ANN401
    """What signs an address with its parameters as the sample is signed; None if that cannot be done here."""
    query = dict(parse_qsl(sample.query, keep_blank_values=True))
    expected = query.pop(_SIGNATURE, "")
    secret = _secret(auth, of=query.get("X-Amz-Credential", ""))
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


def _secret(auth: Any, *, of: str) -> str | None:  # noqa: ANN401
    """The secret of the key that a link was signed with; None if there is another one by now."""
    credentials = auth.credentials
    return str(credentials.secret_key) if of.startswith(f"{credentials.access_key}/") else None


def _signed_by_botocore(auth: Any, context: dict[str, Any]) -> Callable[[str, dict[str, str]], str]:  # noqa: ANN401
    def signed(address: str, parameters: dict[str, str]) -> str:
        request = AWSRequest("GET", address, params=parameters)
        request.context.update(context)
        auth.add_auth(request)
        return str(request.url)

    return signed
