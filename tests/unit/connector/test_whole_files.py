"""Files are whole when nothing has them open for writing, as far as that comes in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.connector import whole_files
from comfy_serverless.connector.whole_files import being_written, when_whole
from tests.patience import PATIENCE_S, wait_until

#: Starts another program, which opens its files; ends when it is told to.
ENGINE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""
CHILD = """
import sys
written, read = open({written!r}, "w"), open({read!r})
print("half", end="", file=written, flush=True)
open({begun!r}, "w").close()
sys.stdin.read()
print(" and half", end="", file=written)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started one which writes `film.mp4` and reads `photo.png`, until its input is closed."""
    (tmp_path / "photo.png").touch()
    files = {"written": "film.mp4", "read": "photo.png", "begun": "begun"}
    child = CHILD.format(**{what: str(tmp_path / name) for what, name in files.items()})
    with subprocess.Popen([sys.executable, "-c", ENGINE, child], stdin=subprocess.PIPE) as process:
        assert wait_until(lambda: (tmp_path / "begun").exists())
        yield process
        if process.stdin is not None:
            process.stdin.close()


def calm(path: Path) -> tuple[str, os.stat_result]:
    """A file that has not changed for long, as far as its times tell."""
    os.utime(path, (0, 0))
    return str(path), path.lstat()


def test_what_an_engine_or_a_program_of_it_may_write_to(engine: subprocess.Popen[bytes], tmp_path: Path) -> None:
    written, read = (
        (path.stat().st_dev, path.stat().st_ino) for path in (tmp_path / "film.mp4", tmp_path / "photo.png")
    )
    found = being_written(engine.pid)
    assert written in found
    assert read not in found
    assert being_written(None) == frozenset()
    assert being_written(2**22 + 1) == frozenset(), "there is no such process"


def test_a_file_with_a_pause_in_it_is_waited_for(
    engine: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "_AT_REST_WITHIN_S", PATIENCE_S)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if engine.stdin is not None:
            engine.stdin.close()

    monkeypatch.setattr(time, "sleep", pause)
    films = [calm(tmp_path / "film.mp4")]
    [(path, state)] = when_whole(films, pid=engine.pid)
    assert Path(path).read_text() == "half and half"
    assert state.st_size == len("half and half")
    assert pauses


def test_what_stays_open_is_waited_for_once(
    engine: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(whole_files, "_AT_REST_WITHIN_S", 0.1)
    log, kept_open = calm(tmp_path / "film.mp4"), set[str]()
    assert [path for path, _ in when_whole([log], pid=engine.pid, kept_open=kept_open)] == [log[0]]
    assert kept_open == {log[0]}
    assert "is still being written" in caplog.text
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it is known not to end"))
    assert when_whole([log], pid=engine.pid, kept_open=kept_open) == [log]
