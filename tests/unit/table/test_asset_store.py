"""The store of assets: counts of references, races between requests, keys, and uploads that go to S3 itself."""

from __future__ import annotations

import io
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.errors import AssetInUse, BlobNotFound, HashMismatch, NotFound
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import check_hash, check_path, digest_in, digest_of, is_path, suffix_of
from comfy_serverless.table.assets import AssetStore, Naming
from comfy_serverless.table.presigned_uploads import Upload, UploadStore
from tests.unit.jobs_table import REGION, aws, create_table
from tests.unit.table_clock import TableClock

BUCKET = "assets-bucket"
CONTENT = b"some bytes"
DIGEST = blake3(CONTENT).hexdigest()
PHOTO = Naming(file_path="photo.png", content_type="image/png")


class World:
    """A store over moto, and an owner of its own."""

    def __init__(self, table: Table, calls: Counter[str], s3: Any) -> None:
        self.table, self.calls, self.s3 = table, calls, s3
        self.assets = AssetStore(table, s3, bucket=BUCKET)
        self.uploads = UploadStore(self.assets)
        self.owner = f"team-{uuid.uuid4().hex[:8]}"

    def store(self, naming: Naming = PHOTO, content: bytes = CONTENT) -> Asset:
        return self.assets.store(self.owner, io.BytesIO(content), digest_of(io.BytesIO(content)), naming)

    def upload(self, content: bytes = CONTENT, **facts: Any) -> Upload:
        """An upload whose bytes have come."""
        begun = self.uploads.begin(
            self.owner, facts.pop("naming", PHOTO), size_bytes=len(content), expected=facts.pop("expected", None)
        )
        address = self.uploads.address(begun)
        self.s3.put_object(Bucket=address.bucket, Key=address.key, Body=content)
        return begun

    def blob(self) -> dict[str, Any] | None:
        return self.table.get(f"blob#{self.owner}#{DIGEST}", "blob")

    def objects(self, folder: str = "blobs") -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/{self.owner}/")
        return [entry["Key"] for entry in found.get("Contents", [])]


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Table, Counter[str], Any]]:
    with aws() as session:
        table, calls = create_table(session)
        s3 = session.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield table, calls, s3


@pytest.fixture
def world(parts: tuple[Table, Counter[str], Any]) -> World:
    return World(*parts)


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """What the actions answer or raise, begun together."""
    answers: list[Any] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def act(index: int, action: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            answers[index] = action()
        except Exception as error:
            answers[index] = error

    threads = [threading.Thread(target=act, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# Blobs and their counts.


def test_a_blob_counts_its_records_and_goes_with_the_last(world: World) -> None:
    made = [world.store(Naming(file_path=name)) for name in ("a.png", "b.png", "c.png")]
    assert (world.blob() or {})["references"] == 3
    for asset in made[:-1]:
        world.assets.delete(world.owner, asset.id)
    assert (world.blob() or {})["references"] == 1
    assert len(world.objects()) == 1
    world.assets.delete(world.owner, made[-1].id)
    assert (world.blob(), world.objects()) == (None, [])


def test_a_new_upload_is_one_transaction_and_one_read(world: World) -> None:
    before = Counter(world.calls)
    world.store()
    assert Counter(world.calls) - before == {"GetItem": 1, "TransactWriteItems": 1}


def test_a_blob_lies_in_its_owners_folder_under_a_key_nobody_guesses(world: World) -> None:
    key = world.store().address.key
    assert re.fullmatch(rf"blobs/{world.owner}/{DIGEST}/[0-9a-f]{{32}}\.png", key)
    assert world.s3.head_object(Bucket=BUCKET, Key=key)["ContentType"] == "image/png"


def test_the_same_bytes_uploaded_by_many_at_once_are_kept_once_and_counted_right(world: World) -> None:
    made = at_once(*(lambda: world.store() for _ in range(6)))
    assert all(isinstance(asset, Asset) for asset in made), made
    assert [asset.created_new for asset in made].count(True) == 1
    assert {asset.address.key for asset in made} == set(world.objects())
    assert (world.blob() or {})["references"] == 6


def test_a_record_deleted_by_many_at_once_is_deleted_once(world: World) -> None:
    first, second = world.store(), world.store(Naming(file_path="b.png"))
    answers = at_once(*(lambda: world.assets.delete(world.owner, first.id) for _ in range(5)))
    assert answers.count(None) == 1
    assert all(isinstance(answer, NotFound) for answer in answers if answer is not None)
    assert (world.blob() or {})["references"] == 1
    assert world.objects() == [second.address.key]


def test_bytes_deleted_and_uploaded_anew_at_the_same_moment_are_there_for_whoever_has_a_record(world: World) -> None:
    for _ in range(5):
        asset = world.store()
        answers = at_once(lambda: world.assets.delete(world.owner, asset.id), world.store)  # noqa: B023
        assert answers[0] is None
        assert world.objects() == [answers[1].address.key]
        world.assets.delete(world.owner, answers[1].id)


def test_a_record_is_never_made_over_bytes_that_were_replaced_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.store()
    get = world.table.get

    def get_and_replace(pk: str, sk: str, **options: Any) -> Any:
        found = get(pk, sk, **options)
        if sk == "blob" and world.objects() == [old.address.key]:
            monkeypatch.setattr(world.table, "get", get)
            world.assets.delete(world.owner, old.id)
            world.store()
        return found

    monkeypatch.setattr(world.table, "get", get_and_replace)
    assert [world.store().address.key] == world.objects()


def test_the_newest_upload_has_the_name_and_another_record_keeps_it_when_an_older_one_goes(world: World) -> None:
    older, newer = world.store(), world.store(PHOTO, b"other bytes")
    assert world.assets.by_paths(world.owner, ["photo.png", "no.png"]) == {"photo.png": without_news(newer)}
    world.assets.delete(world.owner, older.id)
    assert "photo.png" in world.assets.by_paths(world.owner, ["photo.png"])
    world.assets.delete(world.owner, newer.id)
    assert world.assets.by_paths(world.owner, ["photo.png"]) == {}


def without_news(asset: Asset) -> Asset:
    return replace(asset, created_new=None)


def test_an_output_of_a_job_is_found_and_not_deleted(world: World) -> None:
    asset_id = str(uuid.uuid4())
    world.table.put(
        {
            "pk": f"asset#{asset_id}",
            "sk": "asset",
            "id": asset_id,
            "owner": world.owner,
            "bucket": "results",
            "key": "owners/x.png",
            "file_path": "x.png",
            "content_type": "image/png",
            "size_bytes": 1,
            "created_at": "2026-01-01T00:00:00.000Z",
            "job_id": "job",
        }
    )
    assert world.assets.get(world.owner, asset_id).job_id == "job"
    with pytest.raises(AssetInUse) as refusal:
        world.assets.delete(world.owner, asset_id)
    assert "job" not in refusal.value.message  # the contract: nobody is told which hold it is


def test_from_hash_needs_bytes_of_the_same_owner(world: World) -> None:
    world.store()
    with pytest.raises(BlobNotFound):
        world.assets.mint_from_hash("rival", DIGEST, PHOTO)


def test_a_life_is_never_made_shorter_by_two_at_once(world: World) -> None:
    first = world.store(Naming(file_path="photo.png", expires_in_s=60))
    lives = [3600, 7200, 120]

    def extend(life_s: int) -> Callable[[], Any]:
        return lambda: world.assets.mint_from_hash(
            world.owner, DIGEST, Naming(file_path="photo.png", expires_in_s=life_s)
        )

    at_once(*map(extend, lives))
    kept = world.assets.get(world.owner, first.id)
    assert kept.expires is not None
    assert first.expires is not None
    assert kept.expires - first.expires >= 7200 - 60


def test_what_has_expired_is_removed_with_its_bytes_and_what_was_prolonged_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TableClock(monkeypatch)
    short = world.store(Naming(file_path="short.png", expires_in_s=60))
    long = world.store(Naming(file_path="long.png", expires_in_s=3600))
    forever = world.store(Naming(file_path="other.png"), content=b"something else")
    assert world.assets.remove_expired(limit=10) == 0
    clock.later(61)
    assert world.assets.remove_expired(limit=10) == 1
    with pytest.raises(NotFound):
        world.assets.get(world.owner, short.id)
    assert world.assets.get(world.owner, long.id).expires == long.expires
    assert len(world.objects()) == 2
    clock.later(3600)
    assert world.assets.remove_expired(limit=10) == 1
    assert len(world.objects()) == 1, "with the last record the bytes go too"
    assert world.assets.get(world.owner, forever.id).file_path == "other.png"
    assert world.assets.remove_expired(limit=10) == 0


# Keys.


def test_a_key_is_claimed_by_one_of_many(world: World) -> None:
    answers = at_once(*(lambda: world.assets.claim_key(world.owner, "once") for _ in range(5)))
    assert answers.count(True) == 1
    world.assets.release_key(world.owner, "once")
    assert world.assets.claim_key(world.owner, "once")


def test_a_key_is_free_again_after_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.assets.claim_key(world.owner, "once")
    TableClock(monkeypatch).later(24 * 3600 + 1)
    assert world.assets.claim_key(world.owner, "once")


def test_keys_of_assets_and_of_jobs_are_different_things(world: World) -> None:
    world.assets.claim_key(world.owner, "once")
    for key in ("once", "assets#once"):
        assert world.table.get(f"idempotency#{world.owner}#{key}", "idempotency") is None


# Uploads that go to S3 itself.


def test_an_upload_completed_by_many_at_once_is_one_record(world: World) -> None:
    begun = world.upload()
    answers = at_once(*(lambda: world.uploads.complete(begun) for _ in range(4)))
    assert {answer.id for answer in answers} == {begun.id}, answers
    assert (world.blob() or {})["references"] == 1
    assert len(world.objects()) == 1
    assert world.objects("uploads") == []


def test_what_was_hashed_is_what_is_copied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, asked = world.upload(), list[dict[str, Any]]()
    address = world.uploads.address(begun)
    version = world.s3.head_object(Bucket=address.bucket, Key=address.key)["ETag"]
    copy = world.s3.copy_object

    def noted(**request: Any) -> Any:
        asked.append(request)
        return copy(**request)

    monkeypatch.setattr(world.s3, "copy_object", noted)
    world.uploads.complete(begun)
    assert [request["CopySourceIfMatch"] for request in asked] == [version]  # S3 refuses it for any other bytes


def test_an_upload_of_other_bytes_leaves_nothing(world: World) -> None:
    begun = world.upload(expected=f"blake3:{'0' * 64}")
    with pytest.raises(HashMismatch):
        world.uploads.complete(begun)
    assert (world.objects(), world.objects("uploads"), world.blob()) == ([], [], None)


def test_an_upload_is_forgotten_after_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = world.upload()
    TableClock(monkeypatch, begun.expires)
    with pytest.raises(NotFound, match="kept for a day"):
        world.uploads.get(world.owner, begun.id)


# Names and hashes.


def test_the_hash_is_computed_as_bytes_come() -> None:
    content = bytes(3_000_001)
    assert digest_of(io.BytesIO(content)) == blake3(content).hexdigest()


@pytest.mark.parametrize("text", ["", "blake3:", DIGEST, f"blake3:{DIGEST.upper()}", f"blake3:{DIGEST}\n", "sha256:1"])
def test_a_hash_is_written_in_one_way(text: str) -> None:
    assert digest_in(text) is None
    with pytest.raises(HashMismatch):
        check_hash(text, DIGEST)


@pytest.mark.parametrize(
    ("path", "suffix"), [("a.PNG", ".png"), ("a", ""), (None, ""), ("a.b/c", ""), ("a.p?g", ""), ("a.tar.gz", ".gz")]
)
def test_a_blob_has_the_ending_of_its_name_if_it_is_harmless(path: str | None, suffix: str) -> None:
    assert suffix_of(path) == suffix


def test_a_path_is_answered_as_it_was_given_or_refused() -> None:
    assert check_path("team/ä b.png") == "team/ä b.png"
    assert not is_path("..")
