"""The API's image knows what the worker's image of the same sources is built from, whoever builds and deploys them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from comfy_serverless.environments.lock_file import release_version
from comfy_serverless.settings import Settings
from tests.unit.image.test_dockerfile import STAGES, script


def release_of(tmp_path: Path, lock: str | None) -> str:
    """What the setting is in an API built beside such a lock."""
    build, release = tmp_path / "build", tmp_path / "release"
    build.mkdir()
    if lock is not None:
        (build / "comfy-build.lock").write_text(lock, encoding="utf-8")
    command = script("release", "release_version").replace("/build/", f"{build}/").replace("/opt/release", str(release))
    subprocess.run(["sh", "-ec", command], check=True)
    return Settings.from_environment({"RELEASE_FILE": str(release / "release.json")}).release_version


@pytest.mark.parametrize("lock", ["{}\n", '{"schema": "comfy-serverless-lock/1", "name": "ü"}\n'])
def test_it_is_the_hash_of_the_lock_as_everybody_takes_it(tmp_path: Path, lock: str) -> None:
    assert release_of(tmp_path, lock) == release_version(lock)


def test_without_a_lock_there_is_none(tmp_path: Path) -> None:
    assert release_of(tmp_path, None) == ""


def test_it_lies_where_the_setting_looks_for_it() -> None:
    assert "COPY --from=release /opt/release/ /opt/" in STAGES["api"]
    assert str(Settings().release_file) == "/opt/release.json"
