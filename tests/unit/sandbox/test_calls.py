"""What a child can still do that a file has taken over: it tries, with the kernel of this machine."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.sandbox import sandbox as sandboxes
from comfy_serverless.sandbox.calls import _MACHINES, _filter_of
from comfy_serverless.sandbox.process import Child
from tests.patience import PATIENCE_S
from tests.unit.sandbox.attempts import ATTEMPTS

HOSTILE = """
    import ctypes, errno, fcntl, json, os, resource, socket, sys
    from comfy_serverless.sandbox.child import confine
    lacking = confine()
    parent, listening = os.getppid(), int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    def call(*arguments):
        if libc.syscall(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
    attempt("internet", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", listening)))
    attempt("internet 6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    attempt("names of this machine", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    attempt("a pair", socket.socketpair)
    attempt("a signal to us", lambda: os.kill(parent, 0))
    attempt("a signal to a thread of ours", lambda: call(numbers["tgkill"], parent, parent, 0))
    attempt("our limits", lambda: resource.prlimit(parent, resource.RLIMIT_CORE))
    attempt("its own limits", lambda: resource.getrlimit(resource.RLIMIT_AS))
    attempt("a signal to itself", lambda: call(numbers["tgkill"], os.getpid(), os.getpid(), 0))
    attempt("a signal by a descriptor", lambda: fcntl.fcntl(0, fcntl.F_SETOWN, parent))
    attempt("another signal", lambda: fcntl.fcntl(0, 10, 9))
    attempt("whom it goes to", lambda: fcntl.fcntl(0, 15, bytes(8)))
    attempt("a signal by a socket", lambda: fcntl.ioctl(0, 0x8901, parent.to_bytes(4, sys.byteorder)))
    attempt("a signal by a group", lambda: fcntl.ioctl(0, 0x8902, parent.to_bytes(4, sys.byteorder)))
    attempt("other questions", lambda: fcntl.fcntl(0, fcntl.F_GETFL))
    attempt("our processors", lambda: os.sched_setaffinity(parent, {0}))
    attempt("its own processors", lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
    attempt("our niceness", lambda: os.setpriority(os.PRIO_PROCESS, parent, 19))
    attempt("everybody's niceness", lambda: os.setpriority(os.PRIO_USER, 0, 19))
    attempt("its own niceness", lambda: os.setpriority(os.PRIO_PROCESS, 0, 19))
    attempt("our turn at the disk", lambda: call(numbers["ioprio_set"], 1, parent, 0))
    attempt("our memory", lambda: call(numbers["process_vm_readv"], parent, None, 0, None, 0, 0))
    attempt("tracing us", lambda: call(numbers["ptrace"], 16, parent, 0, 0))
    attempt("rings", lambda: call(425, 1, ctypes.create_string_buffer(256)))
    attempt("a new name space", lambda: call(numbers["unshare"], 0x10000000))
    attempt("memory of no process", lambda: call(numbers["shmget"], 0x5EED, 4096, 0o1600))
    attempt("all memory of no process", lambda: call(numbers["shmctl"], 0, 14, ctypes.create_string_buffer(256)))
    attempt("messages", lambda: call(numbers["msgget"], 0x5EED, 0o1600))
    attempt("named messages", lambda: call(numbers["mq_open"], b"seed", os.O_RDONLY, 0, None))
    attempt("semaphores", lambda: call(numbers["semget"], 0x5EED, 1, 0o1600))
    attempt("a process", lambda: os.fork() or os._exit(0))
    attempt("a thread, the old way", lambda: call(numbers["clone"], 0, 0, 0, 0, 0) or os._exit(0))
    attempt("a thread, the new way", lambda: call(435, None, 0))
    attempt("a program", lambda: os.execv("/bin/true", ["true"]))
    print(json.dumps([lacking, tried]))
"""
ALLOWED = {"its own limits", "a signal to itself", "other questions", "its own processors", "its own niceness"}


@pytest.fixture
def listening() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def hostile(listening: int) -> tuple[dict[str, int], dict[str, int]]:
    machine = _MACHINES[platform.machine()]
    numbers = {**machine.refused, **machine.on_itself}
    program = f"numbers = {numbers}\n" + ATTEMPTS + textwrap.dedent(HOSTILE)
    done = subprocess.run(
        [sys.executable, "-c", program, str(listening)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "lambda"},
        check=True,
    )
    lacking, tried = json.loads(done.stdout)
    return lacking, tried


#: A kernel that has filters tells of each process whether it has one.
has_filters = pytest.mark.skipif(
    platform.machine() not in _MACHINES or "Seccomp:" not in Path("/proc/self/status").read_text(),
    reason="no filters on this machine",
)


@has_filters
def test_a_child_reaches_no_network_no_program_and_no_other_process(listening: int) -> None:
    lacking, tried = hostile(listening)
    assert "calls" not in lacking, os.strerror(lacking["calls"])
    assert {name for name, code in tried.items() if code == 0} == ALLOWED
    assert {code for name, code in tried.items() if name not in ALLOWED} == {errno.EPERM}


def test_each_machine_refuses_the_same_calls() -> None:
    first, *others = _MACHINES.values()
    for other in others:
        assert other.refused.keys() == first.refused.keys()
        assert other.on_itself.keys() == first.on_itself.keys()
        assert other.asking.keys() == first.asking.keys()
        assert other.opening.keys() <= first.opening.keys()
        assert other.older.keys() <= first.older.keys()
    for machine in _MACHINES.values():
        numbers = [
            *(*machine.refused.values(), *machine.older.values(), *machine.opening.values()),
            *(*machine.on_itself.values(), *machine.asking.values()),
        ]
        assert len(set(numbers)) == len(numbers)
        assert len(_filter_of(machine)) % 8 == 0


@has_filters
def test_a_program_that_is_translated_for_another_machine_goes_on_without_a_filter() -> None:
    # The kernel then sees another machine's calls: of all that are refused the child could not even answer.
    (another,) = {name for name in _MACHINES if name != platform.machine()}
    program = textwrap.dedent(f"""
        import platform
        from comfy_serverless.sandbox import calls
        from comfy_serverless.sandbox.rights import give_up_rights
        give_up_rights()
        platform.machine = lambda: {another!r}
        print(calls.give_up_calls(), open("/proc/self/comm").read())
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "lambda"},
        check=True,
        timeout=PATIENCE_S,
    )
    assert int(done.stdout.split()[0]) == errno.ENOSYS


@pytest.mark.parametrize(
    ("lacking", "words"), [("calls", "filters no system calls"), ("files", "keeps no process from its user's files")]
)
def test_where_the_kernel_confines_less_that_is_said_once_and_files_are_checked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacking: str, words: str
) -> None:
    def ask(_child: Child, *_: object, **__: object) -> object:
        return {"result": "png", "lacking": {lacking: errno.ENOSYS, "sense": 1}}

    monkeypatch.setattr(Child, "ask", ask)
    sandboxes._say_lacking.cache_clear()
    sandbox = sandboxes.Sandbox()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            kind = sandbox.check_image(Path(__file__), max_pixels=1, deadline=time.monotonic() + 60, turn="", owner="")
            assert kind == "png"
    sandbox.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert words in said
    assert "Function not implemented" in said


def test_no_process_of_our_user_looks_into_a_child() -> None:
    # A process that decodes the picture of an owner, beside ComfyUI with the job of another.
    looks = "import json, sys; from tests.prying_engine import *; pid = int(sys.argv[1]); "
    looks += "print(json.dumps([ways_into(pid), links_of(Path(f'/proc/{pid}'))]))"
    prefix = (
        ["setpriv", "--bounding-set", "-sys_ptrace,-sys_admin,-perfmon", "--inh-caps", "-all"]
        if os.geteuid() == 0
        else []
    )

    def looked_into(pid: int) -> list[list[str]]:
        command = [*prefix, sys.executable, "-c", looks, str(pid)]
        found: list[list[str]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return found

    child = Child()
    try:
        with tempfile.TemporaryFile() as nothing:  # it answers: so it is confined by now
            task = {"check": "image", "max_pixels": 1}
            assert "refused" in child.ask(task, [nothing.fileno()], deadline=time.monotonic() + PATIENCE_S)
        assert looked_into(child.pid) == [[], []]
    finally:
        child.kill()
    with subprocess.Popen([*prefix, sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as open_one:
        assert "ptrace" in looked_into(open_one.pid)[0], "the test's own test"
        open_one.kill()


@has_filters
def test_a_child_that_decodes_is_filtered() -> None:
    child = Child()
    try:
        for _ in range(200):
            status = Path(f"/proc/{child.pid}/status").read_text()
            if "Seccomp:\t2" in status:
                break
            time.sleep(0.05)
        assert "Seccomp:\t2" in status
    finally:
        child.kill()
    assert child._process.returncode == -signal.SIGKILL
