"""Uploads too large to be read in a function: S3 copies and hashes them, and no hash of a caller is believed."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import pytest
from blake3 import blake3
from botocore.exceptions import ClientError, ReadTimeoutError
from comfy_low.models import Asset as ContractAsset

from comfy_serverless.api import assets as routes
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.settings import Settings
from comfy_serverless.table import presigned_uploads
from comfy_serverless.table.asset_names import MAX_READ_BYTES
from tests.unit.api_world import ASSETS, Answer, ApiWorld, api_world

FILM = os.urandom(100_000)
SHA256 = f"sha256:{hashlib.sha256(FILM).hexdigest()}"
BLAKE3 = f"blake3:{blake3(FILM).hexdigest()}"
OTHER = f"sha256:{'0' * 64}"


class S3Calls(Counter[str]):
    """What S3 was asked, by operation."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    """Here a file is large that has more than 10,000 bytes."""
    for module in (presigned_uploads, routes):
        monkeypatch.setattr(module, "MAX_READ_BYTES", 10_000)
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def calls(api: ApiWorld) -> S3Calls:
    counted = S3Calls()
    api.services.s3.meta.events.register("before-call.s3", lambda model, **_: counted.update([model.name]))
    return counted


def begin(api: ApiWorld, content: bytes = FILM, **fields: Any) -> Answer:
    body = {"file_path": "film.mp4", "content_type": "video/mp4", "size_bytes": len(content), **fields}
    return api.request("POST", "/api/v2/uploads", body=body)


def put(api: ApiWorld, target: dict[str, Any], content: bytes = FILM) -> None:
    api.s3.put_object(Bucket=ASSETS, Key=f"uploads/team/{target['id']}", Body=content)


def complete(api: ApiWorld, target: dict[str, Any]) -> Answer:
    return api.request("POST", target["complete_url"])


def uploaded(api: ApiWorld, **fields: Any) -> Answer:
    target = begin(api, **fields).json
    put(api, target)
    return complete(api, target)


def stored(api: ApiWorld) -> list[str]:
    return [entry["Key"] for entry in api.s3.list_objects_v2(Bucket=ASSETS).get("Contents", [])]


def test_no_byte_of_a_large_upload_comes_into_the_function(api: ApiWorld, calls: S3Calls) -> None:
    target = begin(api, tags=["input"], expires_in=3600).json
    put(api, target)
    calls.clear()
    answer = complete(api, target)
    assert (answer.status, answer.json["created_new"]) == (201, True)
    assert calls == {"HeadObject": 2, "CopyObject": 1, "DeleteObject": 1}
    assert (answer.json["hash"], answer.json["sha256"]) == (None, SHA256.removeprefix("sha256:"))
    asset = ContractAsset.model_validate(answer.json)
    assert (asset.size_bytes, asset.content_type, asset.file_path) == (len(FILM), "video/mp4", "film.mp4")
    [key] = stored(api)
    assert key.startswith("blobs/team/")
    assert key.endswith(".mp4")
    assert api.s3.get_object(Bucket=ASSETS, Key=key)["Body"].read() == FILM
    assert urlsplit(answer.json["url"]).path.endswith(key)


def test_an_announced_sha256_is_signed_into_the_link_so_that_s3_takes_no_other_bytes(api: ApiWorld) -> None:
    target = begin(api, hash=SHA256).json
    checksum = base64.b64encode(hashlib.sha256(FILM).digest()).decode()
    assert target["headers"]["x-amz-checksum-sha256"] == checksum
    signed = parse_qs(urlsplit(target["url"]).query)["X-Amz-SignedHeaders"]
    assert signed == ["content-length;content-type;host;x-amz-checksum-sha256"]
    put(api, target)
    assert complete(api, target).status == 201


def test_where_s3_has_taken_other_bytes_all_the_same_nothing_is_kept(api: ApiWorld) -> None:
    target = begin(api, hash=OTHER).json
    put(api, target)
    answer = complete(api, target)
    assert (answer.status, answer.code) == (409, "hash_mismatch")
    assert answer.json["error"]["details"]["hash"] == SHA256
    assert stored(api) == []
    assert complete(api, target).status == 404


def test_a_blake3_which_s3_cannot_check_is_refused_at_the_door(api: ApiWorld) -> None:
    answer = begin(api, hash=BLAKE3)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "sha256:" in answer.json["error"]["message"]


def test_a_blake3_that_the_last_release_has_taken_is_not_told_as_the_files(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(routes, "MAX_READ_BYTES", 10**9)
        target = begin(api, hash=f"blake3:{'0' * 64}").json
    put(api, target)
    answer = complete(api, target)
    assert (answer.status, answer.json["hash"]) == (201, None)


def test_the_same_content_is_kept_once_and_found_by_its_sha256(api: ApiWorld) -> None:
    first, second = uploaded(api, hash=SHA256), uploaded(api)
    assert (first.status, second.status, second.json["created_new"]) == (201, 200, False)
    assert first.json["id"] != second.json["id"]
    assert len(stored(api)) == 1
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{SHA256}").status == 200
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{OTHER}").status == 404
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{SHA256}", owner="rival").status == 404
    third = api.request("POST", "/api/v2/assets/from-hash", body={"hash": SHA256, "file_path": "again.mp4"})
    assert third.status == 201
    assert third.json["sha256"] == first.json["sha256"]
    for number, asset in enumerate((first, second, third), start=1):
        assert api.request("DELETE", f"/api/v2/assets/{asset.json['id']}").status == 204
        assert bool(stored(api)) is (number < 3), "the bytes go with their last record"


def test_a_completion_that_was_cut_off_while_s3_copied_does_not_begin_anew(api: ApiWorld, calls: S3Calls) -> None:
    target = begin(api).json
    put(api, target)
    real = api.services.s3.copy_object

    def copy_and_vanish(**arguments: Any) -> Any:
        real(**arguments)
        raise ReadTimeoutError(endpoint_url="https://s3")

    with patch.object(api.services.s3, "copy_object", copy_and_vanish):
        assert complete(api, target).status >= 500
    calls.clear()
    assert complete(api, target).status == 201
    assert calls["CopyObject"] == 0
    assert len(stored(api)) == 1


@pytest.mark.parametrize("turn", ["after the copy", "after the record"])
def test_two_completions_at_once_are_one_asset_and_lose_no_bytes(api: ApiWorld, turn: str) -> None:
    target = begin(api).json
    put(api, target)
    uploads = api.services.uploads
    upload = uploads.get("team", target["id"])
    store: Any = uploads._assets
    mint, adopt, others = store._mint, store.adopt, []

    def adopting(*arguments: Any, **fields: Any) -> Any:
        store.adopt = adopt
        if turn == "after the copy":
            others.append(uploads.complete(upload))
        return adopt(*arguments, **fields)

    def minting(*arguments: Any, **fields: Any) -> Any:
        store._mint = mint
        asset = mint(*arguments, **fields)
        if turn == "after the record":
            others.append(uploads.complete(upload))
        return asset

    store.adopt, store._mint = adopting, minting
    mine = uploads.complete(upload)
    [other] = others
    assert (mine.id, mine.address) == (other.id, other.address)
    assert {mine.created_new, other.created_new} == {True, False}
    assert stored(api) == [mine.address.key]
    assert api.s3.get_object(Bucket=ASSETS, Key=mine.address.key)["Body"].read() == FILM


def test_bytes_that_are_exchanged_while_they_are_checked_are_not_taken(api: ApiWorld) -> None:
    target = begin(api).json
    put(api, target)
    head = api.services.s3.head_object

    def exchange(**arguments: Any) -> Any:
        answer = head(**arguments)
        put(api, target, bytes(len(FILM)))
        return answer

    def refuse(**_arguments: Any) -> Any:  # as S3 does, and moto does not
        raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "CopyObject")

    s3: Any = api.services.s3
    copy = s3.copy_object
    s3.head_object, s3.copy_object = exchange, refuse
    try:
        answer = complete(api, target)
    finally:
        s3.head_object, s3.copy_object = head, copy
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert complete(api, target).json["sha256"] == hashlib.sha256(bytes(len(FILM))).hexdigest()


def test_an_upload_that_is_forgotten_while_it_is_completed_stays_so(api: ApiWorld) -> None:
    """DynamoDB deletes it in that moment; or another completion does, which has found other bytes."""
    target = begin(api).json
    put(api, target)
    uploads = api.services.uploads
    upload = uploads.get("team", target["id"])
    store: Any = uploads._assets
    mint = store._mint

    def minting(*arguments: Any, **fields: Any) -> Any:
        uploads._table.delete(f"upload#{upload.id}", "upload")
        return mint(*arguments, **fields)

    store._mint = minting
    try:
        asset = uploads.complete(upload)
    finally:
        store._mint = mint
    assert api.request("GET", f"/api/v2/assets/{asset.id}").status == 200
    assert (complete(api, target).status, complete(api, target).code) == (404, "not_found")


def test_a_small_file_may_be_announced_by_its_sha256_too(api: ApiWorld) -> None:
    small = FILM[:9_000]
    digest = hashlib.sha256(small).hexdigest()
    for announced, status in ((f"sha256:{digest}", 201), (OTHER, 409)):
        target = begin(api, small, hash=announced).json
        put(api, target, small)
        answer = complete(api, target)
        assert answer.status == status
    assert api.request("HEAD", f"/api/v2/assets/by-hash/blake3:{blake3(small).hexdigest()}").status == 200


def test_a_limit_that_s3_does_not_allow_is_named_at_the_start() -> None:
    assert Settings.from_environment({"MAX_UPLOAD_BYTES": "5000000000"}).max_upload_bytes > MAX_READ_BYTES
    with pytest.raises(InvalidSetting, match="5000000000"):
        Settings.from_environment({"MAX_UPLOAD_BYTES": "5000000001"})
