"""Children that decode: their limits, their ends, and who waits for whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.sandbox import process
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S, QuietClock, wait_until
from tests.unit.embedded_files import WITH_BOTH
from tests.unit.picture_files import picture, tiff_of_tags, tiff_with_tiles
from tests.unit.sandbox import children

#: Endless work for the reader of a TIFF: pages of many tags.
SLOW = tiff_of_tags(pages=200, tags=20_000)
#: How long a check may wait that needs a moment.
LATER = 2 * PATIENCE_S


class Files:
    """A sandbox of its own, and files for it."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.good = folder / "good"
        self.good.write_bytes(picture("PNG"))
        self.slow = folder / "slow"
        self.slow.write_bytes(SLOW)

    def check(self, path: Path | None = None, *, turn: str = "", owner: str = "", within_s: float = LATER) -> str:
        return self.sandbox.check_image(
            path or self.good, max_pixels=1_000_000, deadline=time.monotonic() + within_s, turn=turn, owner=owner
        )

    @property
    def idle(self) -> list[int]:
        return list(children.idle(self.sandbox))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with closing(Sandbox()) as sandbox:
        yield Files(tmp_path, sandbox)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    yield
    if is_running(pid):
        os.kill(pid, signal.SIGCONT)


def test_a_child_is_warm_before_the_first_file_and_serves_many(files: Files) -> None:
    files.sandbox.warm(owner="")
    files.sandbox.warm(owner="")
    (pid,) = files.idle
    assert [files.check() for _ in range(3)] == [".png"] * 3
    assert files.idle == [pid]


def test_a_child_has_an_empty_environment_and_no_file_of_ours(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with files.good.open("rb") as held:
        os.set_inheritable(held.fileno(), True)
        files.check()
        (pid,) = files.idle
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert wait_until(lambda: len(files_of(pid)) == 3)
        opened = files_of(pid)
    assert {name.partition(":")[0] for name in opened} == {"socket", "/dev/null", f"/proc/{pid}/statm"}
    assert "/dev/shm" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_file_that_needs_too_much_processor_time_is_refused_with_the_limit(files: Files) -> None:
    with QuietClock() as clock:
        begun = clock()
        with pytest.raises(Refused, match=r"more processor time .*: 3 s, and 0\.2 s for each million pixels"):
            files.check(files.slow)
        assert clock() - begun < 10
    assert files.idle == []
    assert files.check() == ".png"


def test_a_file_that_needs_too_much_memory_is_refused_with_the_limit(files: Files, tmp_path: Path) -> None:
    header = b'{"__metadata__":{"x":[' + b"[]," * 8_000_000 + b"[]]}}"
    path = tmp_path / "model"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("rb") as model, pytest.raises(Refused, match=r"needs more memory .*: 416 MB"):
        files.sandbox.check_model_header(model.fileno(), deadline=time.monotonic() + LATER, turn="")
    assert files.check() == ".png"


def test_a_header_longer_than_any_real_one_is_not_read(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "model"
    with path.open("wb") as made:
        made.write((99_000_000).to_bytes(8, "little"))
        made.truncate(99_000_008)
    with path.open("rb") as model, pytest.raises(Refused, match=r"header of 99000000 bytes; the limit .* is 25000000"):
        files.sandbox.check_model_header(model.fileno(), deadline=time.monotonic() + LATER, turn="")


def test_at_the_deadline_the_child_is_killed(files: Files) -> None:
    files.check()
    (pid,) = files.idle
    with stopped(pid), pytest.raises(Refused, match="before its time was over") as caught:
        files.check(within_s=0.2)
    assert caught.value.timed_out
    assert not is_running(pid)
    assert files.check() == ".png"


def test_time_in_which_everything_was_frozen_does_not_count(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.check()
    jumps = iter([0.0, 0.0, 3600.0])

    class Clock:
        def monotonic(self) -> float:
            return time.monotonic() + next(jumps, 3600.0)

    monkeypatch.setattr(process, "time", Clock())
    assert files.check(within_s=60) == ".png"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_has_died_while_it_was_idle_is_replaced(files: Files, number: signal.Signals) -> None:
    files.check()
    (pid,) = files.idle
    os.kill(pid, number)
    assert files.check() == ".png"
    assert files.idle != [pid]


@contextmanager
def amid_a_file(files: Files) -> Iterator[tuple[int, Future[str]]]:
    """A child that stands still with a file in hand, and what comes of the check."""
    files.check()
    (pid,) = files.idle
    with ThreadPoolExecutor() as threads:
        os.kill(pid, signal.SIGSTOP)
        checked = threads.submit(files.check)
        assert wait_until(lambda: not files.idle)
        yield pid, checked


def test_a_child_that_is_killed_amid_a_file_is_replaced_and_the_file_checked_again(files: Files) -> None:
    with amid_a_file(files) as (pid, checked):
        os.kill(pid, signal.SIGKILL)
        assert checked.result(PATIENCE_S) == ".png"


def test_a_machine_on_which_no_process_can_be_started_may_recover(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    files.sandbox.warm(owner="")
    with pytest.raises(Refused, match="no process can be started: No such file") as caught:
        files.check()
    assert caught.value.transient
    monkeypatch.undo()
    assert files.check() == ".png"


def test_a_decoder_that_crashes_is_the_files_fault(files: Files) -> None:
    with amid_a_file(files) as (pid, checked):
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(Refused, match=r"crash \(SIGSEGV\)") as caught:
            checked.result(PATIENCE_S)
    assert not caught.value.transient


def test_a_slow_file_of_one_job_delays_no_other_job(files: Files) -> None:
    with ThreadPoolExecutor() as threads:
        slow = [threads.submit(files.check, files.slow, turn="attacker") for _ in range(5)]
        assert wait_until(lambda: len(files.sandbox._waiting) == 4)
        assert [files.check(turn=name) for name in ("a", "b", "a")] == [".png"] * 3
        assert not any(check.done() for check in slow[1:]), "one at a time"
        os.truncate(files.slow, 10)
        for check in slow:
            assert isinstance(check.exception(PATIENCE_S), Refused)


def test_who_was_served_longest_ago_goes_first() -> None:
    order: list[str] = []
    with closing(Sandbox()) as sandbox, ThreadPoolExecutor(8) as threads:
        go_on = {name: threading.Event() for name in "xyz"}

        def take(name: str, *, hold: bool) -> None:
            with sandbox._turn_of(name, deadline=time.monotonic() + PATIENCE_S):
                order.append(name)
                if hold:
                    go_on[name].wait(PATIENCE_S)

        running: list[Any] = []
        for name in "xyz":
            running.append(threads.submit(take, name, hold=True))
            assert wait_until(lambda: len(order) == len(running))
        for name in ("x", "x", "x", "late"):
            running.append(threads.submit(take, name, hold=False))
            assert wait_until(lambda: len(sandbox._waiting) == len(running) - 3)
        for name in "xyz":
            go_on[name].set()
            assert wait_until(lambda: len(order) == 7)
        for turn in running:
            turn.result(PATIENCE_S)
        assert (sandbox._served, sandbox._waiting, sandbox._busy) == ({}, [], set())
    assert order == ["x", "y", "z", "late", "x", "x", "x"]


def test_who_waits_too_long_is_told(files: Files) -> None:
    with (
        files.sandbox._turn_of("mine", deadline=time.monotonic() + PATIENCE_S),
        pytest.raises(Refused, match="others were") as caught,
    ):
        files.check(turn="mine", within_s=0.05)
    assert caught.value.timed_out


def test_closing_ends_the_children(files: Files) -> None:
    files.check()
    (pid,) = files.idle
    files.sandbox.close()
    assert not is_running(pid)


def test_a_mask_that_cannot_be_written_is_no_fault_of_the_image(files: Files) -> None:
    deadline = time.monotonic() + LATER
    with pytest.raises(OSError, match="No space left"):
        files.sandbox.combine_mask(files.good, files.good, Path("/dev/full"), deadline=deadline, turn="", owner="")
    assert files.check() == ".png"


@pytest.mark.parametrize("is_busy", [False, True])
def test_children_end_with_the_program_that_started_them(tmp_path: Path, is_busy: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(SLOW)
    program = f"""
import pathlib, threading, time
from comfy_serverless.sandbox.sandbox import Sandbox
sandbox = Sandbox()
sandbox.warm(owner="")
print(sandbox._pool._unused[0].pid, flush=True)
if {is_busy}:
    path, until = pathlib.Path({str(path)!r}), time.monotonic() + 600
    sandbox.check_image(path, max_pixels=10**12, deadline=until, turn="", owner="")
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": "lambda"}
    started = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert started.stdout is not None
    with started.stdout:
        pid = int(started.stdout.readline())
        assert is_running(pid)
        if is_busy:
            assert wait_until(lambda: str(path) in files_of(pid))
        started.kill()
        started.wait(PATIENCE_S)
    with QuietClock() as clock:
        begun = clock()
        assert wait_until(lambda: not is_running(pid))
        assert clock() - begun < 1.5, "sooner than by the limit of its time"


def files_of(pid: int) -> set[str]:
    names: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.add(str(link.readlink()))
    return names


def test_what_a_small_image_may_take_is_little(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "tiles"
    path.write_bytes(tiff_with_tiles(512))
    files.check(path)
    (pid,) = files.idle
    peak_kb = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert peak_kb < 100_000


def test_where_there_is_no_pillow_a_child_reads_what_is_embedded(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    content = WITH_BOTH["png tEXt"]
    path = tmp_path / "made.png"
    path.write_bytes(content)
    known = [(0, len(content))]
    with path.open("rb") as file:
        found = files.sandbox.read_embedded(
            file.fileno(), size=len(content), known=known, deadline=time.monotonic() + LATER, turn="", owner=""
        )
    assert set(found["document"]) == {"prompt", "workflow"}
