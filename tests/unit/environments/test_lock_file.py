"""The lock as a file: what is read is what was written, and what is damaged is told with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.environments.lock_file import (
    ComfyUI,
    InstallScript,
    Lock,
    LockedModel,
    LockedPack,
    LockedRequirement,
    inputs_sha256,
    release_version,
)  # fmt: skip
from comfy_serverless.errors import InvalidLock

LOCK = Lock(
    inputs_sha256="0" * 64,
    comfyui=ComfyUI("https://forge.example/ComfyUI.git", "v0.33.0", "1" * 40, "0.33.0"),
    torch={"torch": "2.14.1"},
    apt=("libgl1",),
    packs=(
        LockedPack(
            "pack", "pack-id", "git", None, "main", "https://forge.example/pack", "2" * 40, None, "3" * 64, 12,
            ("numpy>=1.25",), (InstallScript("install.py", ("https://host.example/weights",)),),
        ),
    ),
    requirements=(LockedRequirement("numpy", "2.4.6", ("sha256:" + "4" * 64,), 5, "wheel", None, ("pack: numpy>1",)),),
    build_requirements=(LockedRequirement("wheel", "1", ("sha256:" + "5" * 64,), None, "sdist", None, ()),),
    overrides=("numpy==2.4.6",),
    models=(LockedModel("a.safetensors", "loras", "6" * 64, 7, "https://host.example/a", None),),
    warnings=("ä remark",),
)  # fmt: skip


def test_what_is_written_is_read_and_ends_with_a_newline() -> None:
    text = LOCK.to_text()
    assert Lock.parse(text) == LOCK
    assert Lock.parse(text).to_text() == text
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == "comfy-serverless-lock/1"
    assert len(release_version(text)) == 12


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("inputs_sha256",), "abc", "inputs_sha256 is 'abc'"),
        (("comfyui", "commit"), "main", "comfyui.commit is 'main'"),
        (("packs",), {}, "packs is no list"),
        (("packs", 0, "name"), "../evil", "packs[0].name is '../evil', which is no folder's name"),
        (("packs", 0, "name"), "..", "packs[0].name is '..'"),
        (("packs", 0, "source"), "ftp", "packs[0].source is 'ftp' and none of registry, git, local"),
        (("packs", 0, "size"), -1, "packs[0].size is -1"),
        (("requirements", 0, "hashes"), [], "requirements[0] has no hash"),
        (("requirements", 0, "hashes"), ["md5:1"], "'md5:1', and not sha256:"),
        (("requirements", 0, "kind"), "egg", "requirements[0].kind is 'egg'"),
        (("models", 0, "sha256"), 5, "models[0].sha256 is 5"),
    ],
)
def test_a_damaged_lock_is_told_with_its_place(place: tuple[Any, ...], value: object, told: str) -> None:
    document = json.loads(LOCK.to_text())
    at = document
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(InvalidLock) as error:
        Lock.parse(json.dumps(document))
    assert told in error.value.message
    assert "comfy-serverless env lock" in error.value.message


def test_a_missing_key_another_schema_and_a_merge_are_told() -> None:
    document = json.loads(LOCK.to_text())
    del document["packs"][0]["commit"]
    with pytest.raises(InvalidLock, match="the key 'commit' is missing"):
        Lock.parse(json.dumps(document))
    with pytest.raises(InvalidLock, match="its schema is 'comfy-serverless-lock/9'"):
        Lock.parse(LOCK.to_text().replace("-lock/1", "-lock/9"))
    for text in ("", "[]", "null", "<<<<<<< HEAD\n{"):
        with pytest.raises(InvalidLock) as error:
            Lock.parse(text)
        assert ("marks of a merge" in error.value.message) == text.startswith("<")


def test_what_an_older_release_wrote_of_a_pack_and_nobody_read_is_left_out() -> None:
    document = json.loads(LOCK.to_text())
    document["packs"][0]["has_web"] = True
    older = Lock.parse(json.dumps(document))
    assert older == LOCK
    assert older.to_text() == LOCK.to_text()


def test_comments_and_order_are_no_inputs() -> None:
    def of(torch_in: str, apt_txt: str, asked: dict[str, Any] | None = None) -> str:
        return inputs_sha256(asked or {"a": 1, "b": 2}, torch_in=torch_in, apt_txt=apt_txt)

    first = of("torch==1\ntorchaudio==1\n", "libgl1\n")
    assert of("# more\ntorchaudio==1\n\ntorch==1  # pinned\n", "  libgl1\n# none\n", {"b": 2, "a": 1}) == first
    assert of("torch==2\ntorchaudio==1\n", "libgl1\n") != first
    assert of("torch==1\ntorchaudio==1\n", "ffmpeg\n") != first
