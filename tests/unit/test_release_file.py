"""An image's own word on what it was built from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_serverless.errors import InvalidSetting
from comfy_serverless.release_file import version_in
from comfy_serverless.settings import Settings


def _image(folder: Path, told: object) -> Path:
    path = folder / "release.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


def test_a_laptop_has_no_release(tmp_path: Path) -> None:
    assert version_in(tmp_path / "release.json") == ""
    assert Settings.from_environment({"RELEASE_FILE": str(tmp_path / "release.json")}).release_version == ""


def test_an_image_tells_its_own(tmp_path: Path) -> None:
    path = _image(tmp_path, {"release_version": "3f2a91c07b5e", "comfyui": "0.33.0", "packs": {"a": "1.0"}, "new": 1})
    assert Settings.from_environment({"RELEASE_FILE": str(path)}).release_version == "3f2a91c07b5e"


def test_a_variable_counts_before_the_image(tmp_path: Path) -> None:
    path = _image(tmp_path, {"release_version": "3f2a91c07b5e"})
    settings = Settings.from_environment({"RELEASE_FILE": str(path), "RELEASE_VERSION": "mine-2"})
    assert settings.release_version == "mine-2"


@pytest.mark.parametrize(
    ("told", "reason"),
    [([], "no \"release_version\""), ({"release_version": 7}, "no \"release_version\""),
     ({"release_version": ""}, "64 letters"), ({"release_version": "a\nb"}, "64 letters")],
)  # fmt: skip
def test_a_file_that_tells_none_is_named(tmp_path: Path, told: object, reason: str) -> None:
    path = _image(tmp_path, told)
    with pytest.raises(InvalidSetting, match=reason) as raised:
        Settings.from_environment({"RELEASE_FILE": str(path)})
    assert raised.value.message.startswith(f"RELEASE_FILE={str(path)!r}")


def test_one_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_bytes(b"\xff{")
    with pytest.raises(InvalidSetting, match="no JSON"):
        Settings.from_environment({"RELEASE_FILE": str(tmp_path / "release.json")})
