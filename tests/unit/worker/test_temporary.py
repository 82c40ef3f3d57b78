"""Temporary files: none is left of a process that was killed, and none is taken from one that lives."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_serverless import Settings
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.temporary import remove_left, temporary_file
from tests.patience import PATIENCE_S

PROGRAM = """
import time
from comfy_serverless.worker.temporary import temporary_file
with temporary_file() as file:
    file.write(b"private")
    file.flush()
    print(file.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(path: Path) -> Path:
    long_ago = time.time() - 1000
    os.utime(path, (long_ago, long_ago))
    return path


def start_fetcher() -> None:
    InputFetcher(settings=Settings(), s3=None, connector=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("remove", [remove_left, start_fetcher])
def test_what_a_killed_process_has_left_is_removed_and_what_a_live_one_has_stays(
    folder: Path, remove: Callable[[], None]
) -> None:
    environment = {**os.environ, "PYTHONPATH": "lambda", "TMPDIR": str(folder)}
    started = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, env=environment)
    assert started.stdout is not None
    with started.stdout, temporary_file() as own:
        path = aged(Path(started.stdout.readline().decode().strip()))
        mine = aged(Path(own.name))
        remove()
        assert sorted(folder.iterdir()) == sorted([path, mine])
        started.kill()
        started.wait(PATIENCE_S)
        remove()
        assert list(folder.iterdir()) == [mine]
    assert list(folder.iterdir()) == []


def test_a_file_that_has_just_been_made_stays_and_so_does_what_is_no_file_of_ours(folder: Path) -> None:
    young = folder / "comfy-input-young"
    young.write_bytes(b"")
    other = folder / "other"
    other.write_bytes(b"")
    aged(other)
    os.mkfifo(folder / "comfy-input-pipe")
    aged(folder / "comfy-input-pipe")
    (folder / "comfy-input-link").symlink_to(other)
    remove_left()
    assert {young, other} <= set(folder.iterdir())
