"""Routes of assets: upload, find by hash, describe, download, delete; and uploads that go to S3 itself."""

from __future__ import annotations

import base64
import io
import re
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, File, Form, Header, Path, Query, UploadFile
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, ErrorEnvelope, documented
from comfy_serverless.api.body_reader import BodyReader
from comfy_serverless.api.job_lists import DEFAULT_PAGE, MAX_PAGE
from comfy_serverless.api.paging import Cursor, page_of, read_cursor, write_cursor
from comfy_serverless.api.responses import NOT_KEPT, answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.aws.dynamodb import moment_of, now_s
from comfy_serverless.errors import BlobNotFound, IdempotencyKeyReuse, InvalidRequest, TooLarge
from comfy_serverless.files import UNKNOWN_TYPE, type_of_name
from comfy_serverless.moments import moment_text
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import (
    MAX_READ_BYTES,
    S3_HASH_PREFIX,
    check_hash,
    check_path,
    digest_in,
    digest_of,
    is_s3_hash,
)
from comfy_serverless.table.assets import Naming
from comfy_serverless.table.jobs import check_idempotency_key
from comfy_serverless.table.presigned_uploads import Upload

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

#: Lambda takes events of 6 MB; the file is in it as base64.
MAX_SENT_BYTES = 4_400_000
_MIN_EXPIRY_S, _MAX_EXPIRY_S = 60, 604_800
#: It is sent on as a header: ASCII only.
_CONTENT_TYPE = re.compile(
    r"(?P<kind>[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100})"
    r"(?P<parameters>( *; *[A-Za-z0-9-]{1,50}=[A-Za-z0-9!#$%&'*+.^_`|~:=/ -]{1,100})*)"
)
_MAX_CONTENT_TYPE_CHARACTERS = 255
_MAX_TAGS = 50


def _check_content_type(text: str) -> str:
    match = _CONTENT_TYPE.fullmatch(text)
    if match is None or len(text) > _MAX_CONTENT_TYPE_CHARACTERS:
        raise ValueError("must be a media type, like 'image/png'")
    # The name decides whether a browser may show it, and browsers ignore its case.
    return match["kind"].lower() + match["parameters"]


def _check_hash_form(text: str) -> str:
    if digest_in(text) is None:
        raise ValueError("must be 'blake3:' and 64 hexadecimal digits")
    return text


def _check_blake3(text: str) -> str:
    if is_s3_hash(text):
        raise ValueError("must be 'blake3:' and 64 hexadecimal digits")
    return _check_hash_form(text)


ContentType = Annotated[str, AfterValidator(_check_content_type)]
FilePath = Annotated[str, AfterValidator(check_path)]
Hash = Annotated[
    str,
    AfterValidator(_check_hash_form),
    Field(description="`blake3:<hex>`; of a file over 32 MB, which S3 hashes itself, `sha256:<hex>`."),
]
BlakeHash = Annotated[str, AfterValidator(_check_blake3)]
Tag = Annotated[str, Field(max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=_MAX_TAGS)]
ExpiresIn = Annotated[int, Field(ge=_MIN_EXPIRY_S, le=_MAX_EXPIRY_S)]
AssetId = Annotated[str, Path(description="The asset's id.")]


class AssetBody(BaseModel):
    """An asset."""

    id: str
    hash: str | None
    size_bytes: int
    content_type: str
    file_path: str | None = None
    created_new: bool | None = None
    created_at: str
    url: str
    url_expires_at: str
    expires_at: str | None = None
    job_id: str | None = None
    tags: list[str] | None = None
    sha256: str | None = None


class AssetList(BaseModel):
    """Uploads, newest first. `next_cursor` is absent on the last page."""

    assets: list[AssetBody]
    next_cursor: str | None = None


class FromHashBody(BaseModel):
    """The hash of some bytes, and a name for them."""

    model_config = ConfigDict(extra="forbid")

    hash: Hash
    file_path: FilePath | None = None
    tags: Tags = Field(default_factory=list)
    expires_in: ExpiresIn | None = None


class UploadBody(BaseModel):
    """A file that the caller will upload to S3 itself."""

    model_config = ConfigDict(extra="forbid")

    file_path: FilePath
    content_type: ContentType = UNKNOWN_TYPE
    size_bytes: Annotated[int, Field(ge=1)]
    hash: Hash | None = None
    tags: Tags = Field(default_factory=list)
    expires_in: ExpiresIn | None = None


class UploadTarget(BaseModel):
    """Where and how to upload: send the bytes with `method` and `headers` to `url`, then POST to `complete_url`.

    The URL is good until `expires_at`; what was uploaded can be completed within a day.
    """

    id: str
    method: str
    url: str
    headers: dict[str, str]
    expires_at: str
    complete_url: str


_CREATED: dict[int, Any] = {
    200: documented("The bytes were there already.", AssetBody),
    201: documented("The bytes are new.", AssetBody),
    409: documented("`hash_mismatch`: other bytes than announced.", ErrorEnvelope),
    **INVALID,
    **REFUSALS,
}


@router.post(
    "/api/v2/assets",
    summary="Upload an asset (single-call multipart)",
    tags=["assets"],
    responses={**_CREATED, 413: documented("`payload_too_large`: use /api/v2/uploads.", ErrorEnvelope)},
    enable_validation=False,  # by Powertools; ours differs only in how it reads forms
    middlewares=[BodyReader(files=frozenset({"file"}), lists=frozenset({"tags"}))],
)
def post_asset(
    file: Annotated[UploadFile, File(description="The raw bytes.")],
    content_type: Annotated[ContentType, Form()],
    file_path: Annotated[FilePath, Form()],
    expected_hash: Annotated[BlakeHash | None, Form()] = None,
    tags: Annotated[list[Tag] | None, Form(max_length=_MAX_TAGS)] = None,
    expires_in: Annotated[ExpiresIn | None, Form()] = None,
    idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> Response[str]:
    """Take a file of some megabytes."""
    owner, assets = caller(router).owner, services(router).assets
    check_idempotency_key(idempotency_key)
    if len(file.content) > MAX_SENT_BYTES:
        raise TooLarge(
            f"the file has {len(file.content):,} bytes, and at most {MAX_SENT_BYTES:,} can be sent this way: "
            "POST /api/v2/uploads answers an address for larger ones, and `comfy-serverless upload FILE` does it all."
        )
    if idempotency_key is not None and not assets.claim_key(owner, idempotency_key):
        raise IdempotencyKeyReuse("this Idempotency-Key has been used within the last 24 hours: send another.")
    try:
        digest = digest_of(io.BytesIO(file.content))
        check_hash(expected_hash, digest)
        naming = Naming(file_path=file_path, content_type=content_type, tags=tuple(tags or ()), expires_in_s=expires_in)
        asset = assets.store(owner, io.BytesIO(file.content), digest, naming)
    except Exception:
        if idempotency_key is not None:
            assets.release_key(owner, idempotency_key)
        raise
    return _created(asset)


@router.get(
    "/api/v2/assets",
    summary="Uploads, newest first (ours)",
    tags=["assets"],
    description="Files that were uploaded, with fresh links; outputs of jobs are in `GET /api/v2/outputs`. A page may "
    "have fewer than `limit`: the list goes on as long as there is a `next_cursor`.",
    responses={200: documented("A page of assets.", AssetList), **INVALID, **REFUSALS},
)
def list_assets(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: Cursor = None,
) -> Response[str]:
    """Return a page of the caller's uploads: one query, and one read of all of them."""
    assets, end = services(router).assets.page(caller(router).owner, limit=limit, before=read_cursor(cursor))
    return answer(HTTPStatus.OK, page_of("assets", [_document(asset) for asset in assets], end and write_cursor(end)))


@router.post(
    "/api/v2/assets/from-hash",
    summary="Mint an asset over existing bytes (dedup fast-path)",
    tags=["assets"],
    responses={**_CREATED, 404: documented("`blob_not_found`: upload the bytes.", ErrorEnvelope)},
)
def asset_from_hash(body: Annotated[FromHashBody, Body()]) -> Response[str]:
    """Make a record over bytes that the caller has uploaded before."""
    naming = _naming(body, content_type=type_of_name(body.file_path or ""))
    asset, is_same = services(router).assets.mint_from_hash(caller(router).owner, digest_in(body.hash) or "", naming)
    return answer(HTTPStatus.OK if is_same else HTTPStatus.CREATED, _document(asset))


@router.head(
    "/api/v2/assets/by-hash/<hash>",
    summary="Existence check for a blob by blake3 hash",
    tags=["assets"],
    responses={200: {"description": "The caller has such bytes."}, **NOT_FOUND, **REFUSALS},
)
def head_by_hash(hash: Annotated[str, Path()]) -> Response[str]:  # noqa: A002  (the contract's name)
    """Whether the caller has uploaded bytes with this hash."""
    owner, digest = caller(router).owner, digest_in(unquote(hash))
    if digest is None or not services(router).assets.has_blob(owner, digest):
        raise BlobNotFound("you have uploaded no file with this hash.")
    return answer(HTTPStatus.OK, None)


@router.get(
    "/api/v2/assets/<id>",
    summary="Asset metadata",
    tags=["assets"],
    responses={200: documented("The asset.", AssetBody), **NOT_FOUND, **REFUSALS},
)
def get_asset(id: AssetId) -> Response[str]:  # noqa: A002
    """Return a record, with a fresh link."""
    return answer(HTTPStatus.OK, _document(_find(id)))


@router.delete(
    "/api/v2/assets/<id>",
    summary="Delete an asset record",
    tags=["assets"],
    responses={
        204: {"description": "Deleted."},
        409: documented("`asset_in_use`: a job's output.", ErrorEnvelope),
        **NOT_FOUND,
        **REFUSALS,
    },
)
def delete_asset(id: AssetId) -> Response[str]:  # noqa: A002
    """Delete a record, and the bytes with the last one."""
    services(router).assets.delete(caller(router).owner, id.lower())
    return answer(HTTPStatus.NO_CONTENT, None)


@router.get(
    "/api/v2/assets/<id>/content",
    summary="Asset bytes: a redirect to a fresh link",
    tags=["assets"],
    responses={302: {"description": "`Location` has the bytes, whole or in ranges."}, **NOT_FOUND, **REFUSALS},
)
def get_content(id: AssetId) -> Response[str]:  # noqa: A002
    """Redirect to the bytes."""
    url, _ = _link(_find(id))
    return Response(status_code=HTTPStatus.FOUND, body="", headers={**NOT_KEPT, "location": url})


@router.post(
    "/api/v2/uploads",
    summary="Begin an upload that goes to S3 itself",
    description="For files larger than a request may be. Ours.",
    tags=["uploads"],
    responses={201: documented("Where to put the bytes.", UploadTarget), **INVALID, **REFUSALS},
)
def post_upload(body: Annotated[UploadBody, Body()]) -> Response[str]:
    """Return a presigned address for one file of exactly the announced size."""
    behind = services(router)
    most = behind.settings.max_upload_bytes
    if body.size_bytes > most:
        raise TooLarge(f"the file has {body.size_bytes:,} bytes; at most {most:,} may be uploaded (MAX_UPLOAD_BYTES).")
    if body.size_bytes > MAX_READ_BYTES and body.hash is not None and not is_s3_hash(body.hash):
        raise InvalidRequest(
            f"the hash of a file over {MAX_READ_BYTES:,} bytes must be 'sha256:' and 64 hexadecimal digits: S3 checks "
            "that one, and knows no blake3. Without a hash S3 computes it too."
        )
    naming = _naming(body, content_type=body.content_type)
    upload = behind.uploads.begin(caller(router).owner, naming, size_bytes=body.size_bytes, expected=body.hash)
    return answer(HTTPStatus.CREATED, target_of(upload, behind).model_dump())


@router.post(
    "/api/v2/uploads/<id>/complete",
    summary="Make an uploaded file an asset",
    description="Checks what was uploaded, and registers it. S3 itself copies and hashes (SHA-256) a file over 32 MB: "
    "`hash` is null then, and `sha256` is there. Done twice, it answers the same. Ours.",
    tags=["uploads"],
    responses={**_CREATED, **NOT_FOUND},
)
def complete_upload(id: Annotated[str, Path(description="The upload's id.")]) -> Response[str]:  # noqa: A002
    """Verify and register an upload."""
    uploads = services(router).uploads
    return _created(uploads.complete(uploads.get(caller(router).owner, id.lower())))


def _naming(body: FromHashBody | UploadBody, *, content_type: str | None) -> Naming:
    return Naming(
        file_path=body.file_path, content_type=content_type, tags=tuple(body.tags), expires_in_s=body.expires_in
    )


def _find(asset_id: str) -> Asset:
    return services(router).assets.get(caller(router).owner, asset_id.lower())


def _created(asset: Asset) -> Response[str]:
    return answer(HTTPStatus.CREATED if asset.created_new else HTTPStatus.OK, _document(asset))


def _document(asset: Asset) -> dict[str, Any]:
    url, url_expires_at = _link(asset)
    by_s3 = is_s3_hash(asset.hash)  # the contract knows blake3 only, and allows that it is not there
    body = AssetBody(
        id=asset.id,
        hash=None if by_s3 else asset.hash,
        size_bytes=asset.size_bytes,
        content_type=asset.content_type,
        file_path=asset.file_path,
        created_new=asset.created_new,
        created_at=asset.created_at,
        url=url,
        url_expires_at=url_expires_at,
        expires_at=moment_text(asset.expires_at) if asset.expires_at else None,
        job_id=asset.job_id,
        tags=list(asset.tags) or None,
        sha256=str(asset.hash).removeprefix(S3_HASH_PREFIX) if by_s3 else None,
    )
    return {
        name: value
        for name, value in body.model_dump().items()
        if value is not None or name not in {"created_new", "job_id", "tags", "sha256"}
    }


def _link(asset: Asset) -> tuple[str, str]:
    behind = services(router)
    name = (asset.file_path or asset.id).rpartition("/")[2]
    link = behind.links.of(asset.address, name=name, content_type=asset.content_type)
    return link.url, moment_text(link.expires_at)


def target_of(upload: Upload, behind: Services) -> UploadTarget:
    """Where the bytes of an upload are put, by a presigned link."""
    address = behind.uploads.address(upload)
    content_type = upload.naming.content_type or UNKNOWN_TYPE
    headers = {"Content-Type": content_type, "Content-Length": str(upload.size_bytes)}
    parameters: dict[str, Any] = {
        "Bucket": address.bucket,
        "Key": address.key,
        "ContentType": content_type,
        "ContentLength": upload.size_bytes,
    }
    if is_s3_hash(upload.hash):  # S3 refuses other bytes
        checksum = base64.b64encode(bytes.fromhex(str(upload.hash).removeprefix(S3_HASH_PREFIX))).decode()
        headers["x-amz-checksum-sha256"] = parameters["ChecksumSHA256"] = checksum
    url = behind.s3.generate_presigned_url(
        "put_object",
        Params=parameters,
        ExpiresIn=behind.settings.link_expiry_s,
    )
    return UploadTarget(
        id=upload.id,
        method="PUT",
        url=url,
        headers=headers,
        expires_at=moment_text(moment_of(now_s() + behind.settings.link_expiry_s)),
        complete_url=f"/api/v2/uploads/{upload.id}/complete",
    )
