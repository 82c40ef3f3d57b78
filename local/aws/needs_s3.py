"""What a request to S3 needs to be allowed: S3 names its operations by method, address and query. No IO."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from local.aws.needs import NotClassified, Request
from local.aws.permissions import Access
from local.aws.server import ACCOUNT

_BUCKET_ACTIONS: Final = {
    ("GET", ""): "ListBucket",
    ("HEAD", ""): "ListBucket",
    ("GET", "uploads"): "ListBucketMultipartUploads",
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "location"): "GetBucketLocation",
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
}
_OBJECT_ACTIONS: Final = {
    ("GET", ""): "GetObject",
    ("HEAD", ""): "GetObject",
    ("GET", "versionId"): "GetObjectVersion",
    ("HEAD", "versionId"): "GetObjectVersion",
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "acl"): "GetObjectAcl",
    ("GET", "uploadId"): "ListMultipartUploadParts",
    ("PUT", ""): "PutObject",
    ("PUT", "uploadId"): "PutObject",
    ("PUT", "tagging"): "PutObjectTagging",
    ("PUT", "acl"): "PutObjectAcl",
    ("POST", "uploads"): "PutObject",
    ("POST", "uploadId"): "PutObject",
    ("DELETE", ""): "DeleteObject",
    ("DELETE", "versionId"): "DeleteObjectVersion",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", "tagging"): "DeleteObjectTagging",
}
#: Parts of the query that say how, or who asks, not what.
_MANNER = re.compile(
    r"x-id|partNumber|response-.+|x-amz-.+|AWSAccessKeyId|Signature|Expires"
    r"|list-type|prefix|delimiter|max-keys|marker|continuation-token|start-after|encoding-type|fetch-owner"
    r"|max-uploads|key-marker|upload-id-marker|version-id-marker|max-parts|part-number-marker",
    re.IGNORECASE,
)


def needs_body(request: Request) -> bool:
    """Whether only the body says what the request is about."""
    return request.service != "s3" or (request.method == "POST" and "delete" in request.query)


def bucket_and_key(request: Request) -> tuple[str, str]:
    """Whose request it is; the key is empty for the bucket itself."""
    bucket, _, key = request.path.removeprefix("/").partition("/")
    return bucket, key


def needs_of_s3(request: Request) -> list[Access]:
    """All of what a request to S3 needs.

    Raises:
        NotClassified: it is not known.
    """
    bucket, key = bucket_and_key(request)
    if request.method == "OPTIONS":
        return []  # a browser asks what the bucket says of web pages, in nobody's name
    if not bucket:
        raise NotClassified(f"s3: {request.method} of all buckets is not known")
    what = [name for name in request.query if not _MANNER.fullmatch(name)]
    if (request.method, what, key) == ("POST", ["delete"], ""):
        return [_access("DeleteObject", bucket, name) for name in _keys_to_delete(request.body)]
    actions = _OBJECT_ACTIONS if key else _BUCKET_ACTIONS
    action = actions.get((request.method, what[0] if what else ""))
    if action is None or len(what) > 1:
        raise NotClassified(f"s3: {request.method} of {'an object' if key else 'a bucket'} with {what} is not known")
    return [_access(action, bucket, key), *_copied(request), *_given_along(request, bucket, key)]


def _access(action: str, bucket: str, key: str) -> Access:
    return Access(action=f"s3:{action}", resource=f"arn:aws:s3:::{bucket}{'/' if key else ''}{key}")


def _copied(request: Request) -> Iterator[Access]:
    """What is copied must be read, and so must tags that it has: they come along unless the request replaces them."""
    if source := request.headers.get("x-amz-copy-source"):
        name, _, query = source.partition("?")
        bucket, _, key = unquote(name).removeprefix("/").partition("/")
        yield _access("GetObjectVersion" if query.startswith("versionId=") else "GetObject", bucket, key)
        is_part = "uploadId" in request.query
        is_replaced = request.headers.get("x-amz-tagging-directive", "COPY").upper() == "REPLACE"
        if not is_part and not is_replaced and has_tags(bucket, key):
            yield _access("GetObjectTagging", bucket, key)
            yield _access("PutObjectTagging", *bucket_and_key(request))


def has_tags(bucket: str, key: str) -> bool:
    """Whether the local S3 has an object with tags there."""
    from moto.s3.models import s3_backends

    backend = s3_backends[ACCOUNT]["aws"]
    found = backend.head_object(bucket, key) if bucket in backend.buckets else None
    return found is not None and bool(backend.tagger.get_tag_dict_for_resource(found.arn))


def _given_along(request: Request, bucket: str, key: str) -> Iterator[Access]:
    """Tags and access lists that come with an object are asked for themselves."""
    if "x-amz-tagging" in request.headers:
        yield _access("PutObjectTagging", bucket, key)
    if any(name == "x-amz-acl" or name.startswith("x-amz-grant-") for name in request.headers):
        yield _access("PutObjectAcl", bucket, key)


def _keys_to_delete(body: bytes) -> list[str]:
    try:
        root = ET.fromstring(body)
    except ET.ParseError as error:
        raise NotClassified("s3: DeleteObjects has a body that is no XML") from error
    if root.findall("{*}Object/{*}VersionId"):
        raise NotClassified("s3: DeleteObjects of versions is not known")
    keys = [entry.text or "" for entry in root.findall("{*}Object/{*}Key")]
    if not keys:
        raise NotClassified("s3: DeleteObjects names no object")
    return keys
