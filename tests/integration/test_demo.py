"""The demo from end to end, as `make demo` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.patience import PATIENCE_S

ROOT = Path(__file__).parent.parent.parent


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "demo", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    """An environment that marks every process the demo starts."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}


def left_over(home: Path) -> Iterator[int]:
    """Processes that were started with this home and still run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            continue


def run_demo(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home: Path) -> subprocess.CompletedProcess[str]:
    return run_demo(home, "--out", home / "out")


class TestThatSucceeds:
    def test_it_exits_with_0_and_says_what_came_back(self, finished: subprocess.CompletedProcess[str]) -> None:
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "10 events, 11 jobs, 12 files" in finished.stdout
        assert finished.stderr == ""

    def test_it_fits_a_screen_of_80_columns(self, finished: subprocess.CompletedProcess[str], home: Path) -> None:
        lines = [line for line in finished.stdout.splitlines() if str(home) not in line]
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in finished.stdout

    def test_the_bad_request_failed_alone(self, finished: subprocess.CompletedProcess[str]) -> None:
        assert finished.stdout.count("failed (meant)") == 1
        assert "sample-typing-error failed, as it should: invalid_workflow" in finished.stdout
        assert finished.stdout.count(" succeeded ") == 10

    def test_the_files_are_there_and_open(self, finished: subprocess.CompletedProcess[str], home: Path) -> None:
        files = [path for path in (home / "out" / "jobs").rglob("*") if path.is_file()]
        assert len(files) == 12
        for path in files:
            with Image.open(path) as picture:
                picture.load()

    def test_the_contact_sheet_shows_them(self, finished: subprocess.CompletedProcess[str], home: Path) -> None:
        with Image.open(home / "out" / "demo.png") as sheet:
            assert sheet.width == 1600
            assert sheet.height > 1600
            assert len(sheet.convert("RGB").getcolors(2**24) or ()) > 10_000

    def test_one_engine_served_all_events(self, finished: subprocess.CompletedProcess[str], home: Path) -> None:
        log = (home / "out" / "worker.log").read_text().splitlines()
        metrics = [json.loads(line) for line in log if line.startswith('{"_aws"')]
        starts = [sum(entry["EngineStarts"]) for entry in metrics if "EngineStarts" in entry]
        assert len(starts) == 10
        assert sum(starts) == 1

    def test_nothing_is_left_running(self, finished: subprocess.CompletedProcess[str], home: Path) -> None:
        assert list(left_over(home)) == []


def test_an_engine_that_does_not_start_fails_the_demo(tmp_path: Path) -> None:
    failed = run_demo(tmp_path, "--out", tmp_path / "out", "--engine", "sh -c 'echo no engine today; exit 3'")
    assert failed.returncode == 1
    assert "engine_unavailable" in failed.stdout
    assert "no engine today" in failed.stdout
    assert "worker.log" in failed.stdout.replace("\n", "")  # the line may be broken anywhere
    assert list(left_over(tmp_path)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_demo_stops_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    engine = f"{sys.executable} -c 'import time; time.sleep(600)'"
    demo = subprocess.Popen(
        command("--out", tmp_path / "out", "--engine", engine),
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while len(list(left_over(tmp_path))) < 5:  # demo, S3, emulator, worker, engine
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.send_signal(number)
        assert demo.wait(PATIENCE_S) == 128 + number
        assert list(left_over(tmp_path)) == []
    finally:
        demo.kill()


def test_help_says_what_can_be_asked_for() -> None:
    shown = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--out" in shown
    assert "--engine" in shown
