"""What a dropped object is, by its key alone."""

from __future__ import annotations

import pytest

from comfy_serverless.jobs.drop_names import DropKind, kind_of_drop, plain_manifest, stem_of

REQUESTS = ["jobs/a.json", "jobs/A.JSON", "jobs/2026/a.Json", "jobs/a.json.gz", "jobs/Ü (1).json", "a.json"]
IMAGES = ["images/thumbnail/a.jpg", "images/thumbnail/A.PNG", "images/thumbnail/2026/a", "images/thumbnail/a.json"]
MADE = [
    *("jobs/a.png", "jobs/A.PNG", "jobs/2026/a.webp", "jobs/a.jpg", "jobs/a.jpeg", "jobs/a.avif", "jobs/a.svg"),
    *("jobs/a.mp4", "jobs/a.mov", "jobs/a.m4v", "jobs/a.webm", "jobs/a.mkv", "jobs/a.flac", "jobs/a.mp3", "jobs/a.ogg"),
    *("jobs/a.opus", "jobs/a.glb", "jobs/a.latent", "jobs/a.safetensors", "jobs/Ü (1).apng"),
]
MANIFESTS = [
    *("batches/a.jsonl", "batches/a.JSONL", "batches/a.ndjson", "batches/a.NDJSON", "batches/deep/er/a.jsonl"),
    *("batches/a.jsonl.gz", "batches/a.ndjson.gz", "batches/A.JSONL.GZ", "batches/Ü (1).jsonl"),
]
LEFT_ALONE = [
    *("jobs/", "jobs/folder/", "images/thumbnail/", "batches/2026/", "jobs/x_$folder$", "jobs/_SUCCESS"),
    *("jobs/.DS_Store", "images/thumbnail/.DS_Store", "images/thumbnail/._a.jpg", "batches/._a.jsonl"),
    *("images/thumbnail/Thumbs.db", "images/thumbnail/thumbs.db", "images/thumbnail/desktop.ini"),
    *("images/thumbnail/Thumbs.db:encryptable", "images/.hidden/a.jpg", "images/thumbnail/@eaDir/a.jpg"),
    *("images/thumbnail/__MACOSX/a.jpg", "images/$RECYCLE.BIN/a.jpg", "images/thumbnail/Icon\r"),
    *("jobs/a.json~", "jobs/a.json.tmp", "jobs/a.json.part", "jobs/~$a.json", "jobs/.a.json.swp", "jobs/.gitkeep"),
    *("images/thumbnail/a.jpg.crdownload", "jobs/System Volume Information/x"),
    # What requests name as their inputs may lie beside them.
    *("jobs/PHOTO.HEIC", "jobs/in/film.avi", "batches/photo.png", "batches/film.mp4", "jobs/lora.ckpt", "jobs/a.gif"),
]
UNKNOWN = [
    *("jobs/a", "jobs/a.txt", "jobs/a.yaml", "jobs/a.jsonl", "jobs/a.zip", "jobs/a.json.zip", "jobs/a.jsn"),
    *("batches/a.json", "batches/a.csv", "batches/a.jsonl.zip", "batches/a.jsonl.txt", "batches/a"),
    *("images/a.jpg", "photo.png", "a" * 900, "../..", ".", "+"),
]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *((key, DropKind.REQUEST) for key in REQUESTS),
        *((key, DropKind.MADE) for key in MADE),
        *((key, DropKind.IMAGE) for key in IMAGES),
        *((key, DropKind.MANIFEST) for key in MANIFESTS),
        *((key, DropKind.LEFT_ALONE) for key in LEFT_ALONE),
        *((key, DropKind.UNKNOWN) for key in UNKNOWN),
    ],
)
def test_a_key_says_what_an_object_is(key: str, kind: DropKind) -> None:
    assert kind_of_drop(key) is kind


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("batches/2026/Photos.jsonl.gz", "Photos"),
        ("batches/photos.NDJSON", "photos"),
        ("jobs/a.b.json", "a.b"),
        ("images/thumbnail/cat.final.jpg", "cat.final"),
        ("jobs/none", "none"),
    ],
)
def test_a_drop_is_called_by_its_name_without_the_ending(key: str, stem: str) -> None:
    assert stem_of(key) == stem


def test_a_manifest_has_one_name_however_it_is_packed_and_spelt() -> None:
    names = ["a.jsonl", "a.JSONL", "a.ndjson", "a.jsonl.gz", "a.ndjson.GZ"]
    assert {plain_manifest(f"s3://drops/batches/{name}") for name in names} == {"s3://drops/batches/a.jsonl"}
