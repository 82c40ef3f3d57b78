"""Routes of assets: uploads in one call and past it, deduplication, links, deletion, and everything that is refused."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from blake3 import blake3
from comfy_low._multipart import build_multipart
from comfy_low.models import Asset as ContractAsset

from comfy_serverless.api.app import create_app
from comfy_serverless.api.assets import MAX_SENT_BYTES
from tests.unit.api_world import ASSETS, Answer, ApiWorld, api_world
from tests.unit.fakes import png
from tests.unit.table_clock import TableClock

PICTURE = png(8, 8)
HASH = f"blake3:{blake3(PICTURE).hexdigest()}"
OTHER_HASH = f"blake3:{'0' * 64}"
BOUNDARY = "comfy-4f1b"


@pytest.fixture(scope="module")
def world() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch, api_world(patch) as world:
        yield world


@pytest.fixture
def api(world: ApiWorld) -> Iterator[ApiWorld]:
    """Empty again after each test: to make one costs half a second."""
    yield world
    for key in stored(world):
        world.s3.delete_object(Bucket=ASSETS, Key=key)
    client, name = world.services.table._client, world.services.table.name
    for item in client.scan(TableName=name)["Items"]:
        client.delete_item(TableName=name, Key={"pk": item["pk"], "sk": item["sk"]})


def form(fields: Sequence[tuple[str, str]], content: bytes, *, file_name: str = "photo.png") -> bytes:
    chunks, _ = build_multipart(
        BOUNDARY,
        fields=list(fields),
        file_name=file_name,
        file_obj=io.BytesIO(content),
        file_content_type="image/png",
        file_size=len(content),
    )
    return b"".join(chunks)


def send(
    api: ApiWorld,
    body: bytes,
    *,
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
    headers: Mapping[str, str] | None = None,
    owner: str = "team",
) -> Answer:
    return api.request(
        "POST", "/api/v2/assets", body=body, headers={"content-type": content_type, **(headers or {})}, owner=owner
    )


def upload(
    api: ApiWorld,
    content: bytes = PICTURE,
    *,
    owner: str = "team",
    headers: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    **fields: str,
) -> Answer:
    given = {"content_type": "image/png", "file_path": "photo.png", **fields}
    pairs = [*given.items(), *(("tags", tag) for tag in tags)]
    return send(api, form(pairs, content, file_name=given["file_path"]), owner=owner, headers=headers)


def from_hash(api: ApiWorld, owner: str = "team", **fields: Any) -> Answer:
    return api.request("POST", "/api/v2/assets/from-hash", body={"hash": HASH, **fields}, owner=owner)


def stored(api: ApiWorld, prefix: str = "") -> list[str]:
    return [entry["Key"] for entry in api.s3.list_objects_v2(Bucket=ASSETS, Prefix=prefix).get("Contents", [])]


def bytes_behind(api: ApiWorld, url: str) -> bytes:
    key = unquote(urlsplit(url).path).removeprefix("/")
    return api.s3.get_object(Bucket=ASSETS, Key=key.removeprefix(f"{ASSETS}/"))["Body"].read()


# One call.


def test_an_upload_is_answered_as_the_contract_has_it_and_can_be_downloaded(api: ApiWorld) -> None:
    answer = upload(api, expected_hash=HASH)
    assert answer.status == 201
    asset = answer.json
    ContractAsset.model_validate(asset)
    assert (asset["hash"], asset["size_bytes"], asset["content_type"]) == (HASH, len(PICTURE), "image/png")
    assert (asset["file_path"], asset["created_new"], asset["expires_at"]) == ("photo.png", True, None)
    assert "job_id" not in asset
    assert bytes_behind(api, asset["url"]) == PICTURE
    again = api.request("GET", f"/api/v2/assets/{asset['id']}").json
    unlinked = {name: value for name, value in again.items() if not name.startswith("url")}
    assert unlinked == {name: asset[name] for name in unlinked}
    assert "created_new" not in again


def test_bytes_the_owner_has_are_kept_once(api: ApiWorld) -> None:
    first, second = upload(api), upload(api, file_path="other.png")
    assert (second.status, second.json["created_new"]) == (200, False)
    assert first.json["id"] != second.json["id"]
    assert len(stored(api, "blobs/")) == 1


def test_nothing_is_shared_between_owners(api: ApiWorld) -> None:
    first, second = upload(api), upload(api, owner="rival")
    assert (second.status, second.json["created_new"]) == (201, True)
    assert len(stored(api)) == 2
    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        answer = api.request(method, f"/api/v2/assets/{first.json['id']}{path}", owner="rival")
        assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n--",
        f"--{BOUNDARY}x\r\n -{BOUNDARY}\n--{BOUNDARY}".encode(),
        bytes(range(256)) * 9,
        os.urandom(70_000),
    ],
    ids=["nothing", "a line break", "like an end", "the boundary within lines", "every byte", "noise"],
)
def test_every_byte_arrives_as_it_was_sent(api: ApiWorld, content: bytes) -> None:
    if content.startswith(b"--"):
        content = b"x" + content + b"y"
    asset = upload(api, content, content_type="application/octet-stream").json
    assert asset["hash"] == f"blake3:{blake3(content).hexdigest()}"
    assert bytes_behind(api, asset["url"]) == content


@pytest.mark.parametrize("tags", [("a",), ("a", "b", "a")])
def test_tags_may_be_given_once_or_more_often(api: ApiWorld, tags: tuple[str, ...]) -> None:
    asset = upload(api, tags=tags).json
    assert asset["tags"] == list(tags)
    item = api.services.table.get(f"asset#{asset['id']}", "asset")
    assert item is not None
    assert item["tags"] == list(tags)


@pytest.mark.parametrize("name", ['in "quotes".png', "Bildschirmfoto\u202f10.00.png", "画像/猫 🐈‍⬛.png", "a;b=c.png"])
def test_file_names_of_this_world_are_taken_and_handed_out_safely(api: ApiWorld, name: str) -> None:
    asset = upload(api, file_path=name).json
    assert asset["file_path"] == name
    (disposition,) = parse_qs(urlsplit(asset["url"]).query)["response-content-disposition"]
    assert disposition == f"inline; filename*=UTF-8''{quote(name.rpartition('/')[2], safe='')}"
    assert stored(api)[0].endswith(".png")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../../x",
        "a/../x",
        "/etc/passwd",
        "..\\x",
        "C:\\x.png",
        "c:x.png",
        "a//b",
        "./a",
        "a/.",
        "a\nb.png",
        "a\x00b.png",
        "a\x7f.png",
        "photo\u202egnp.exe",
        "x" * 513,
        "🐈" * 300,
    ],
)
def test_a_file_path_that_leads_elsewhere_is_refused(api: ApiWorld, path: str) -> None:
    for answer in (
        upload(api, file_path=path),
        from_hash(api, file_path=path),
        api.request("POST", "/api/v2/uploads", body={"file_path": path, "size_bytes": 1}),
    ):
        assert (answer.status, answer.code) == (422, "invalid_request")
        assert "file_path" in answer.json["error"]["message"]
    assert stored(api) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expected_hash", "blake3:xyz"),
        ("expected_hash", f"sha256:{'0' * 64}"),
        ("expected_hash", "0" * 64),
        ("expires_in", "59"),
        ("expires_in", "604801"),
        ("expires_in", "soon"),
        ("content_type", "png"),
        ("content_type", "image/png\r\nx-evil: 1"),
        ("content_type", "text/plain; charset=ü"),
        ("content_type", ""),
    ],
)
def test_a_field_that_cannot_be_is_named_in_the_refusal(api: ApiWorld, field: str, value: Any) -> None:
    answer = upload(api, **{field: value})
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert field in answer.json["error"]["message"]


@pytest.mark.parametrize("tags", [["x" * 101], ["a"] * 51])
def test_tags_beyond_the_limits_are_refused(api: ApiWorld, tags: list[str]) -> None:
    answer = upload(api, tags=tags)
    assert (answer.status, answer.code) == (422, "invalid_request")


@pytest.mark.parametrize("missing", ["file", "content_type", "file_path"])
def test_a_form_without_a_part_is_refused(api: ApiWorld, missing: str) -> None:
    body = form([("content_type", "image/png"), ("file_path", "photo.png")], PICTURE)
    answer = send(api, body.replace(f'name="{missing}"'.encode(), b'name="other"').replace(PICTURE, b"text"))
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert missing in answer.json["error"]["message"]


WHOLE = form([("content_type", "image/png"), ("file_path", "photo.png")], PICTURE)


def test_a_picture_in_another_field_is_told_which_field_takes_it(api: ApiWorld) -> None:
    answer = send(api, WHOLE.replace(b'name="file"', b'name="image"'))
    assert answer.status == 422
    assert "'image' that is no text in UTF-8 (a file goes into 'file')" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (WHOLE, "multipart/form-data"),
        (WHOLE, "multipart/form-data; boundary=another"),
        (WHOLE, "multipart/form-data; boundary="),
        (WHOLE, "multipart/form-data; boundary=ü"),
        (WHOLE, f"multipart/form-data; boundary={'x' * 71}"),
        (WHOLE[:-8], f"multipart/form-data; boundary={BOUNDARY}"),
        (WHOLE[:60], f"multipart/form-data; boundary={BOUNDARY}"),
        (b"", f"multipart/form-data; boundary={BOUNDARY}"),
        (WHOLE.replace(b"image/png\r\n--", b"\xff\xfe\r\n--"), f"multipart/form-data; boundary={BOUNDARY}"),
        (WHOLE.replace(b'name="file_path"', b'name="content_type"'), f"multipart/form-data; boundary={BOUNDARY}"),
        (WHOLE.replace(b'name="content_type"', b"nothing"), f"multipart/form-data; boundary={BOUNDARY}"),
        (WHOLE.replace(PICTURE, f"x\r\n--{BOUNDARY}y".encode()), f"multipart/form-data; boundary={BOUNDARY}"),
        (
            WHOLE.replace(f"--{BOUNDARY}\r\n".encode(), f"--{BOUNDARY} \r\n".encode()),
            f"multipart/form-data; boundary={BOUNDARY}",
        ),
        (WHOLE.replace(b"\r\n", b"\n"), f"multipart/form-data; boundary={BOUNDARY}"),
        (
            WHOLE.replace(b"\r\nContent-Type", b'\r\nContent-Disposition: form-data; name="file_path"\r\nContent-Type'),
            f"multipart/form-data; boundary={BOUNDARY}",
        ),
        (b'{"file": "x", "content_type": "image/png", "file_path": "a.png"}', "application/json"),
        (b"file=x&content_type=image/png&file_path=a.png", "application/x-www-form-urlencoded"),
        (PICTURE, "image/png"),
    ],
    ids=[
        "no boundary",
        "another boundary",
        "an empty boundary",
        "a boundary that is not ASCII",
        "a boundary too long",
        "without the end",
        "cut off within a head",
        "no body",
        "a text that is not UTF-8",
        "a field twice",
        "a part without a name",
        "a line of the file that begins with the boundary",
        "a space after the boundary",
        "lines that end as on Unix",
        "a header twice",
        "JSON",
        "another form",
        "the picture alone",
    ],
)
def test_a_body_that_is_no_proper_form_is_refused_and_never_a_failure(
    api: ApiWorld, body: bytes, content_type: str
) -> None:
    answer = send(api, body, content_type=content_type)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert stored(api) == []


def test_forms_of_other_clients_are_understood(api: ApiWorld) -> None:
    body = (
        b'preamble\r\n--b\r\ncontent-disposition: form-data; filename="x.png"; NAME=file\r\n\r\nbytes\r\n'
        b"--b\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=content_type\r\n\r\nIMAGE/PNG\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file_path"\r\n\r\na.png\r\n--b--\r\nepilogue'
    )
    answer = send(api, body, content_type='Multipart/Form-Data; Boundary="b"')
    assert answer.status == 201
    assert answer.json["content_type"] == "image/png"
    assert bytes_behind(api, answer.json["url"]) == b"bytes"


def test_other_bytes_than_announced_are_a_conflict_and_nothing_is_kept(api: ApiWorld) -> None:
    answer = upload(api, expected_hash=OTHER_HASH)
    assert (answer.status, answer.code) == (409, "hash_mismatch")
    assert stored(api) == []
    assert from_hash(api).code == "blob_not_found"


def test_a_file_too_large_for_one_call_is_told_the_way_that_works(api: ApiWorld) -> None:
    answer = upload(api, bytes(MAX_SENT_BYTES + 1))
    assert (answer.status, answer.code) == (413, "payload_too_large")
    assert "POST /api/v2/uploads" in answer.json["error"]["message"]
    assert "comfy-serverless upload" in answer.json["error"]["message"]


def test_an_idempotency_key_is_good_once_for_each_owner(api: ApiWorld) -> None:
    headers = {"Idempotency-Key": "once"}
    assert upload(api, headers=headers).status == 201
    again = upload(api, headers=headers)
    assert (again.status, again.code) == (422, "idempotency_key_reuse")
    assert upload(api, headers=headers, owner="rival").status == 201


def test_a_request_that_came_to_nothing_leaves_its_idempotency_key(api: ApiWorld) -> None:
    headers = {"Idempotency-Key": "once"}
    assert upload(api, headers=headers, expected_hash=OTHER_HASH).status == 409
    assert upload(api, headers=headers, file_path="../x").status == 422
    assert upload(api, headers=headers).status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
def test_an_idempotency_key_that_cannot_be_is_refused(api: ApiWorld, key: str) -> None:
    answer = upload(api, headers={"Idempotency-Key": key})
    assert (answer.status, answer.code) == (422, "invalid_request")


# By hash.


def test_an_asset_is_made_of_bytes_that_are_there(api: ApiWorld) -> None:
    upload(api, file_path="first.bin")
    answer = from_hash(api, file_path="photo.png", tags=["input"])
    assert (answer.status, answer.json["created_new"]) == (201, False)
    ContractAsset.model_validate(answer.json)
    assert (answer.json["file_path"], answer.json["content_type"]) == ("photo.png", "image/png")
    assert bytes_behind(api, answer.json["url"]) == PICTURE


def test_an_asset_without_a_name_has_the_type_of_its_bytes(api: ApiWorld) -> None:
    upload(api)
    answer = from_hash(api)
    assert (answer.status, answer.json["file_path"], answer.json["content_type"]) == (201, None, "image/png")


def test_an_identical_reference_is_the_asset_that_is_there(api: ApiWorld) -> None:
    asset = upload(api).json
    answer = from_hash(api, file_path="photo.png")
    assert (answer.status, answer.json["id"], answer.json["created_new"]) == (200, asset["id"], False)


def test_a_second_reference_makes_an_asset_live_longer_and_never_shorter(api: ApiWorld) -> None:
    short = upload(api, expires_in="60").json["expires_at"]
    long = from_hash(api, file_path="photo.png", expires_in=3600).json["expires_at"]
    assert long > short
    assert from_hash(api, file_path="photo.png", expires_in=60).json["expires_at"] == long
    assert from_hash(api, file_path="photo.png").json["expires_at"] is None
    assert from_hash(api, file_path="photo.png", expires_in=60).json["expires_at"] is None


def test_bytes_of_others_cannot_be_told_from_none(api: ApiWorld) -> None:
    nothing = from_hash(api, owner="rival")
    upload(api)
    foreign = from_hash(api, owner="rival")
    assert (foreign.status, foreign.code) == (404, "blob_not_found")
    assert foreign.text == nothing.text
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{HASH}", owner="rival").status == 404


@pytest.mark.parametrize(
    ("hash", "status"),
    [(HASH, 200), (HASH.replace(":", "%3A"), 200), (OTHER_HASH, 404), ("blake3:zz", 404), ("x", 404)],
)
def test_whether_bytes_are_there_is_told_without_a_body(api: ApiWorld, hash: str, status: int) -> None:  # noqa: A002
    upload(api)
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{hash}").status == status


@pytest.mark.parametrize(
    "fields",
    [
        {"hash": "blake3:12"},
        {"hash": None},
        {"hash": 7},
        {"surprise": 1},
        {"expires_in": 59},
        {"expires_in": 604_801},
        {"expires_in": 10**400},
        {"tags": "a"},
        {"tags": ["a"] * 51},
        {"tags": ["\ud800"]},
        {"file_path": "\ud800.png"},
        {"file_path": 1},
    ],
)
def test_a_reference_that_cannot_be_is_refused(api: ApiWorld, fields: dict[str, Any]) -> None:
    upload(api)
    answer = from_hash(api, **fields)
    assert (answer.status, answer.code) == (422, "invalid_request")


@pytest.mark.parametrize("body", ["", "null", "[]", '"x"', "{", "{}"])
def test_a_reference_that_is_no_object_is_refused(api: ApiWorld, body: str) -> None:
    answer = api.request("POST", "/api/v2/assets/from-hash", body=body)
    assert (answer.status, answer.code) == (422, "invalid_request")


# Records.


@pytest.mark.parametrize("id", ["x", "1", str(uuid.UUID(int=7)), "0" * 3000, "%00", "..", "blake3:0"])
def test_an_id_of_nothing_is_not_found(api: ApiWorld, id: str) -> None:  # noqa: A002
    for method, path in [
        ("GET", f"/api/v2/assets/{id}"),
        ("GET", f"/api/v2/assets/{id}/content"),
        ("DELETE", f"/api/v2/assets/{id}"),
        ("POST", f"/api/v2/uploads/{id}/complete"),
    ]:
        answer = api.request(method, path)
        assert (answer.status, answer.code) == (404, "not_found")


def test_an_asset_that_has_expired_is_not_found(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = upload(api, expires_in="60").json
    later = api.services.table.get(f"asset#{asset['id']}", "asset")
    assert later is not None
    TableClock(monkeypatch, later["lease_until"])
    assert api.request("GET", f"/api/v2/assets/{asset['id']}").status == 404
    assert from_hash(api, file_path="photo.png").status == 201


def test_the_bytes_go_with_their_last_record(api: ApiWorld) -> None:
    first, second = upload(api).json["id"], upload(api, file_path="b.png").json["id"]
    assert api.request("DELETE", f"/api/v2/assets/{first}").status == 204
    assert bytes_behind(api, api.request("GET", f"/api/v2/assets/{second}").json["url"]) == PICTURE
    answer = api.request("DELETE", f"/api/v2/assets/{second}")
    assert (answer.status, answer.text) == (204, "")
    assert stored(api) == []
    assert from_hash(api).code == "blob_not_found"


def test_a_second_delete_is_not_found(api: ApiWorld) -> None:
    asset_id = upload(api).json["id"]
    api.request("DELETE", f"/api/v2/assets/{asset_id}")
    answer = api.request("DELETE", f"/api/v2/assets/{asset_id}")
    assert (answer.status, answer.code) == (404, "not_found")


def test_content_is_a_redirect_to_a_fresh_link(api: ApiWorld) -> None:
    asset_id = upload(api).json["id"]
    answer = api.request("GET", f"/api/v2/assets/{asset_id}/content", headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.text) == (302, "")
    link = urlsplit(answer.headers["location"])
    assert bytes_behind(api, answer.headers["location"]) == PICTURE
    query = parse_qs(link.query)
    assert query["response-content-type"] == ["image/png"]
    assert query["X-Amz-SignedHeaders"] == ["host"]  # so that a client may add a Range


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "IMAGE/SVG+XML", "image/Svg+xml", "text/xml"])
def test_what_can_run_scripts_is_saved_and_never_shown(api: ApiWorld, content_type: str) -> None:
    asset = upload(api, content_type=content_type, file_path="page.html").json
    (disposition,) = parse_qs(urlsplit(asset["url"]).query)["response-content-disposition"]
    assert disposition.startswith("attachment;")


# Uploads that go to S3 itself.


def begin(api: ApiWorld, content: bytes = PICTURE, *, owner: str = "team", **fields: Any) -> Answer:
    body = {"file_path": "big.png", "content_type": "image/png", "size_bytes": len(content), **fields}
    return api.request("POST", "/api/v2/uploads", body=body, owner=owner)


def put(api: ApiWorld, target: dict[str, Any], content: bytes = PICTURE, *, owner: str = "team") -> None:
    api.s3.put_object(Bucket=ASSETS, Key=f"uploads/{owner}/{target['id']}", Body=content)


def complete(api: ApiWorld, target: dict[str, Any], *, owner: str = "team") -> Answer:
    return api.request("POST", target["complete_url"], owner=owner)


def test_a_large_file_goes_to_s3_and_becomes_an_asset(api: ApiWorld) -> None:
    answer = begin(api, hash=HASH, tags=["input"], expires_in=3600)
    assert answer.status == 201
    target = answer.json
    assert set(target) == {"id", "method", "url", "headers", "expires_at", "complete_url"}
    assert target["method"] == "PUT"
    assert f"/uploads/team/{target['id']}?" in target["url"]
    put(api, target)
    done = complete(api, target)
    assert (done.status, done.json["created_new"], done.json["hash"]) == (201, True, HASH)
    ContractAsset.model_validate(done.json)
    assert (done.json["file_path"], done.json["content_type"]) == ("big.png", "image/png")
    assert done.json["expires_at"] is not None
    assert bytes_behind(api, done.json["url"]) == PICTURE
    assert stored(api, "uploads/") == []
    assert api.request("HEAD", f"/api/v2/assets/by-hash/{HASH}").status == 200


def test_the_link_is_for_that_many_bytes_of_that_type_only(api: ApiWorld) -> None:
    target = begin(api).json
    query = parse_qs(urlsplit(target["url"]).query)
    assert query["X-Amz-SignedHeaders"] == ["content-length;content-type;host"]
    assert target["headers"] == {"Content-Type": "image/png", "Content-Length": str(len(PICTURE))}
    assert not [name for name in query if "checksum" in name.lower()]


def test_an_upload_completed_twice_is_one_asset(api: ApiWorld) -> None:
    target = begin(api).json
    put(api, target)
    first, second = complete(api, target), complete(api, target)
    assert (first.status, second.status) == (201, 200)
    assert first.json["id"] == second.json["id"]
    api.request("DELETE", f"/api/v2/assets/{first.json['id']}")
    assert complete(api, target).status == 404


def test_what_comes_by_the_link_after_the_completion_is_read_by_nobody(api: ApiWorld) -> None:
    target = begin(api).json
    put(api, target)
    asset = complete(api, target).json
    put(api, target, b"other bytes")  # the link works for its hour; template.yaml deletes what is left in uploads/
    assert complete(api, target).json["hash"] == asset["hash"] == HASH
    [key] = [key for key in stored(api) if key.startswith("blobs/")]
    assert api.s3.get_object(Bucket=ASSETS, Key=key)["Body"].read() == PICTURE


def test_an_uploaded_file_the_owner_has_already_is_kept_once(api: ApiWorld) -> None:
    upload(api)
    target = begin(api).json
    put(api, target)
    done = complete(api, target)
    assert (done.status, done.json["created_new"]) == (200, False)
    assert len(stored(api)) == 1


def test_an_upload_that_is_something_else_is_a_conflict_and_removed(api: ApiWorld) -> None:
    target = begin(api, hash=OTHER_HASH).json
    put(api, target)
    answer = complete(api, target)
    assert (answer.status, answer.code) == (409, "hash_mismatch")
    assert stored(api) == []
    assert complete(api, target).status == 404


def test_an_upload_that_has_not_come_or_not_whole_is_told_to_come(api: ApiWorld) -> None:
    target = begin(api).json
    nothing = complete(api, target)
    assert (nothing.status, nothing.code) == (422, "invalid_request")
    put(api, target, PICTURE[:-1])
    partial = complete(api, target)
    assert (partial.status, partial.code) == (422, "invalid_request")
    put(api, target)
    assert complete(api, target).status == 201


def test_an_upload_is_completed_by_its_owner_only(api: ApiWorld) -> None:
    target = begin(api).json
    put(api, target)
    assert complete(api, target, owner="rival").status == 404
    assert complete(api, target).status == 201


def test_an_upload_beyond_the_limit_is_refused_at_its_beginning(api: ApiWorld) -> None:
    answer = begin(api, size_bytes=api.services.settings.max_upload_bytes + 1)
    assert (answer.status, answer.code) == (413, "payload_too_large")


@pytest.mark.parametrize(
    "fields",
    [
        {"size_bytes": 0},
        {"size_bytes": -1},
        {"size_bytes": "many"},
        {"size_bytes": None},
        {"hash": "blake3:1"},
        {"content_type": "png"},
        {"expires_in": 1},
        {"surprise": 1},
    ],
)
def test_an_upload_that_cannot_be_is_refused(api: ApiWorld, fields: dict[str, Any]) -> None:
    answer = begin(api, **fields)
    assert (answer.status, answer.code) == (422, "invalid_request")


# Bodies of other requests.


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("[" * 50_000, "application/json", 422),
        (b'"\xff"', "application/json", 422),
        (b"\xff", "", 422),
        ("{}", "text/plain", 415),
        ("a=1", "application/x-www-form-urlencoded", 415),
        (WHOLE, f"multipart/form-data; boundary={BOUNDARY}", 415),
    ],
    ids=["too deep", "not UTF-8", "bytes", "text", "a form", "a form with a file"],
)
def test_a_body_that_is_no_json_is_refused_and_never_a_failure(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch, body: str | bytes, content_type: str, status: int
) -> None:
    app = create_app(lambda: api.services)
    monkeypatch.setattr(api, "app", app)
    answer = api.request("POST", "/api/v2/uploads", body=body, headers={"content-type": content_type})
    assert answer.status == status
    assert answer.code in {"invalid_request", "unsupported_media_type"}


def test_the_form_is_documented(api: ApiWorld) -> None:
    document = api.request("GET", "/openapi.json").json
    (media_type, body), *others = document["paths"]["/api/v2/assets"]["post"]["requestBody"]["content"].items()
    assert (media_type, others) == ("multipart/form-data", [])
    schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    assert sorted(schema["required"]) == ["content_type", "file", "file_path"]
    assert schema["properties"]["file"]["format"] == "binary"
