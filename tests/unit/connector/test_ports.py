"""Each process has an engine of its own; those of one program are told of each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from comfy_serverless.connector.ports import ReservedPort, find_available_port
from tests.patience import PATIENCE_S

HOLDER = """
import sys
from comfy_serverless.connector.ports import ReservedPort
held = ReservedPort("127.0.0.1", int(sys.argv[1]))
print(held.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.parametrize("is_of_this_program", [True, False])
def test_an_engine_of_another_process_of_this_program_is_seen(is_of_this_program: bool) -> None:
    first = find_available_port("127.0.0.1", 23_000)
    command = [sys.executable, "-c", HOLDER, str(first)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=not is_of_this_program
    ) as holder:
        assert holder.stdout is not None
        taken = int(holder.stdout.readline())
        held = ReservedPort("127.0.0.1", taken)
        assert held.port != taken
        assert held.of_siblings == ((taken,) if is_of_this_program else ())
        held.release()
        holder.communicate(timeout=PATIENCE_S)
    again = ReservedPort("127.0.0.1", taken)
    assert again.of_siblings == ()
    again.release()
