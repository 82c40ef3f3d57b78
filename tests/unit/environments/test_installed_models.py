"""Which files below models/ are models, and how they are hashed: all at once, and only once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from comfy_serverless.environments import model_hashes
from comfy_serverless.environments.model_hashes import HashCache, hash_files
from comfy_serverless.environments.scan.install import scan
from comfy_serverless.environments.scan.installed_models import find_models
from tests.environments import packs as kit


def paths(folder: Path) -> list[str]:
    return [model.path for model, _ in find_models(folder).models]


def safetensors(size_bytes: int) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, size_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header


def test_models_of_all_folders_are_found_and_nothing_else(tmp_path: Path) -> None:
    kit.unpack(
        {
            "checkpoints/a.safetensors": b"a",
            "loras/deep/er/b.pt": b"b",
            "configs/v1.yaml": b"c",
            "configs/d.pt": b"d",
            "loras/put_loras_here": b"",
            "loras/preview.png": b"p",
            "loras/notes.json": b"{}",
            "loras/.cache/x.safetensors": b"x",
            "LLM/qwen/config.json": b"{}",
            "LLM/qwen/tokenizer.json": b"{}",
            "LLM/qwen/sub/vocab.txt": b"v",
            "LLM/qwen/model-1.safetensors": b"m",
        },
        tmp_path,
    )

    assert paths(tmp_path) == [
        "LLM/qwen/config.json",
        "LLM/qwen/model-1.safetensors",
        "LLM/qwen/sub/vocab.txt",
        "LLM/qwen/tokenizer.json",
        "checkpoints/a.safetensors",
        "loras/deep/er/b.pt",
    ]
    assert find_models(tmp_path).left_out == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("loras/a.safetensors.part", b"x", "a download that has not ended"),
        ("loras/a.crdownload", b"x", "a download that has not ended"),
        ("loras/a.safetensors", b"", "it is empty"),
        ("a.safetensors", b"x", "it is in no folder of models/"),
        ("loras/a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git LFS"),
        ("loras/a.safetensors", b"<!DOCTYPE html><html>", "a web page"),
        ("loras/a.safetensors", safetensors(100), "the download has broken off"),
        ("loras/a.safetensors", (500).to_bytes(8, "little") + b'{"w": ', "the download has broken off"),
        ("my loras/a.safetensors", b"x", "is no folder below models/"),
        ("Loras/a.safetensors", b"x", "on Linux capital letters count"),
    ],
)
def test_a_file_that_is_no_model_is_left_out_and_told(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    kit.unpack({name: content}, tmp_path)

    found = find_models(tmp_path)

    assert found.models == []
    assert words in found.left_out[0]


def test_a_whole_file_and_one_that_is_no_safetensors_at_all_are_taken(tmp_path: Path) -> None:
    kit.unpack({"loras/a.safetensors": safetensors(4) + b"1234", "loras/b.safetensors": b"\xff" * 40}, tmp_path)

    assert paths(tmp_path) == ["loras/a.safetensors", "loras/b.safetensors"]


def test_a_file_beside_the_notes_of_its_download_is_unfinished(tmp_path: Path) -> None:
    kit.unpack({"loras/a.safetensors": b"x", "loras/a.safetensors.aria2": b"y"}, tmp_path)

    assert paths(tmp_path) == []


def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    kit.unpack({"disk/a.safetensors": b"a", "models/loras/b.safetensors": b"b"}, tmp_path)
    loras = tmp_path / "models/loras"
    (loras / "linked").symlink_to(tmp_path / "disk")
    (loras / "circle").symlink_to(loras)
    (loras / "gone.safetensors").symlink_to(tmp_path / "nowhere")

    found = find_models(tmp_path / "models")

    assert [model.path for model, _ in found.models] == ["loras/b.safetensors", "loras/linked/a.safetensors"]
    assert found.left_out == [
        "circle: it is a link to a folder that it is in",
        "models/loras/gone.safetensors: it is a link to a file that is not there",
    ]


def test_every_file_is_hashed_and_a_second_run_reads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1000)
    counted: list[int] = []

    first, _ = hash_files(files, HashCache(tmp_path / "cache.json"), progress=counted.append)
    monkeypatch.setattr(model_hashes, "_sha256", _never)
    second, failed = hash_files(files, HashCache(tmp_path / "cache.json"), progress=counted.append)

    assert first == second == {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert sum(counted) == 5000
    assert failed == {}


def _never(*_: object) -> str:
    raise AssertionError("it was hashed again")


def test_a_file_that_changed_is_hashed_again(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.bin", tmp_path / "cache.json"
    file.write_bytes(b"one")
    hash_files([file], HashCache(cache), progress=lambda _: None)
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    hashes, _ = hash_files([file], HashCache(cache), progress=lambda _: None)

    assert hashes[file] == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")

    hashes, failed = hash_files([tmp_path / "a", tmp_path / "gone"], HashCache(tmp_path / "c"), progress=lambda _: None)

    assert list(hashes) == [tmp_path / "a"]
    assert isinstance(failed[tmp_path / "gone"], FileNotFoundError)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"a": 1, "b": "short"}'])
def test_a_broken_cache_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    (tmp_path / "a").write_bytes(b"a")

    assert HashCache(tmp_path / "c").get(tmp_path / "a") is None


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "file").write_bytes(b"")

    hashes, _ = hash_files([tmp_path / "a"], HashCache(tmp_path / "file" / "c"), progress=lambda _: None)

    assert hashes[tmp_path / "a"] == hashlib.sha256(b"a").hexdigest()


def test_an_install_shows_how_far_hashing_is(tmp_path: Path) -> None:
    kit.unpack({"models/loras/a.pt": b"x" * 70, "models/vae/b.pt": b"y" * 30, "custom_nodes/x": b""}, tmp_path)
    shown: list[tuple[int, int]] = []

    found = scan(tmp_path, HashCache(tmp_path / "c"), python=None, with_models=True, show=lambda *at: shown.append(at))

    assert [(model.path, model.size_bytes) for model in found.models] == [("loras/a.pt", 70), ("vae/b.pt", 30)]
    assert shown[-1] == (100, 100)
