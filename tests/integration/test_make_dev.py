"""`make dev` as a person meets it: one line when it is ready, an end with Ctrl-C, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from local.aws.processes import LOOPBACK, MARK, clean_environment, free_port
from tests.patience import PATIENCE_S, QuietClock

pytestmark = pytest.mark.timeout(1200)


def begin(port: int, folder: Path, mark: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local", "--port", str(port), "--log-dir", str(folder)],
        env={**clean_environment(), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def left_over(mark: str) -> list[str]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_when_asked(tmp_path: Path, number: signal.Signals) -> None:
    mark, port = f"make-dev-{number}-{os.getpid()}", free_port()
    process = begin(port, tmp_path, mark)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"comfy-serverless is ready at http://{LOOPBACK}:{port}  key: ")
    assert process.stdout.readline() == f"Console: http://{LOOPBACK}:{port}/\n"
    assert requests.get(f"http://{LOOPBACK}:{port}/api/v2/health", timeout=PATIENCE_S).json()["status"] == "ok"
    with QuietClock() as clock:
        process.send_signal(number)
        begun = clock()
        rest, told = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, rest) == (0, "")
        assert "stopping …" in told
        assert "Traceback" not in told
        assert clock() - begun < 20
    assert left_over(mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_it_ends_quietly_while_it_starts(tmp_path: Path, number: signal.Signals, after_s: float) -> None:
    mark = f"early-{number}-{after_s}-{os.getpid()}"
    process = begin(free_port(), tmp_path, mark, start_new_session=True)
    time.sleep(after_s)  # wherever it is by then: on no machine may it be wrong
    os.killpg(process.pid, number)  # a terminal's Ctrl-C goes to all that were started there
    _, told = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in told
    assert "Error" not in told
    # It may have been ready, and the signal may have ended a function's process before the stack knew of it.
    said = re.compile(r"(stopping …|In another terminal: source .*|.*was terminated abruptly.*)?")
    assert [line for line in told.split("\n") if not said.fullmatch(line)] == []
    assert left_over(mark) == []


def test_another_terminal_has_everything_and_a_batch_goes_through(tmp_path: Path) -> None:
    process = begin(free_port(), tmp_path, "batch")
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        script = (
            f"source {tmp_path}/env.sh && comfy-serverless batch submit events/manifest.jsonl --watch && "
            "comfy-serverless batch status manifest --json && "
            f"comfy-serverless batch sheet manifest --out {tmp_path}/pictures && comfy-serverless keys list && "
            'python -c "import comfy_sdk; print(list(comfy_sdk.Comfy().list_jobs()))"'
        )
        ended = subprocess.run(
            ["bash", "-c", script],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "6 succeeded" in ended.stdout
        assert '"ended": 6' in ended.stdout
        assert "6/6" in ended.stderr
        pictures = [path for path in (tmp_path / "pictures").glob("*.png") if path.name != "contact-sheet.png"]
        assert len(pictures) == 6
        assert (tmp_path / "pictures" / "gallery.html").is_file()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        process = begin(port, tmp_path, "taken")
        out, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (1, "")
    assert f"port {port} cannot be used" in " ".join(error.split())
    assert "PORT=" in error
