"""Real processes: start, death, ports, log, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfy_serverless.connector.ports import ReservedPort, find_available_port
from comfy_serverless.connector.process import ComfyProcess, ProcessState, _stop_at_exit
from comfy_serverless.errors import EngineUnavailable
from tests.patience import PATIENCE_S, QuietClock, is_alive, wait_until

SERVER = """
    import socket, sys, time
    port = int(sys.argv[sys.argv.index("--port") + 1])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    print("listening", flush=True)
    while True:
        listener.accept()
"""


@contextmanager
def process(script: str, *arguments: str, first_port: int = 19188) -> Iterator[ComfyProcess]:
    comfy = ComfyProcess(
        lambda port: [sys.executable, "-c", textwrap.dedent(script), *arguments, "--port", str(port)],
        host="127.0.0.1",
        first_port=first_port,
        answers=lambda _port: True,
    )
    try:
        yield comfy
    finally:
        comfy.stop()


def test_it_is_ready_when_it_answers() -> None:
    with process(SERVER) as comfy:
        states = [comfy.state]
        comfy.start()
        states.append(comfy.state)
        assert comfy.wait_ready(PATIENCE_S)
        states.append(comfy.state)
        assert states == [ProcessState.STOPPED, ProcessState.STARTING, ProcessState.READY]
        assert comfy.starts == 1


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert find_available_port("127.0.0.1", taken) > taken


def test_two_that_start_at_once_get_ports_of_their_own() -> None:
    first = ReservedPort("127.0.0.1", 19288)
    second = ReservedPort("127.0.0.1", 19288)
    assert first.port != second.port, "nobody listens yet, and still it is taken"
    first.release()
    third = ReservedPort("127.0.0.1", 19288)
    assert third.port == first.port
    second.release()
    third.release()


def test_a_port_that_is_taken_in_the_last_moment_costs_one_more_start() -> None:
    late = f"""
import sys
if sys.argv[sys.argv.index("--port") + 1] == "19388":
    sys.exit("Port is already in use")
{textwrap.dedent(SERVER)}"""
    with process(late, first_port=19388) as comfy:
        comfy.start()
        assert comfy.wait_ready(PATIENCE_S)
        assert comfy.port != 19388
        assert comfy.starts == 2


def test_only_a_port_in_use_is_a_reason_to_try_another() -> None:
    with process("import sys; print('GPU memory in use: 3 GB'); sys.exit(1)") as comfy:
        comfy.start()
        with pytest.raises(EngineUnavailable, match="GPU memory"):
            comfy.wait_ready(PATIENCE_S)
        assert comfy.starts == 1


def test_nothing_is_started_after_the_stop() -> None:
    with process("import sys; sys.exit('Port is already in use')") as comfy:
        comfy.start()
        assert wait_until(lambda: not comfy.is_alive)
        comfy._is_stopped = True  # as `stop` does, in another thread, before it ends the process
        with pytest.raises(EngineUnavailable):
            comfy.wait_ready(PATIENCE_S)
        assert comfy.starts == 1


def test_a_command_that_cannot_be_one_is_named() -> None:
    comfy = ComfyProcess(lambda _port: ["py\0thon"], host="127.0.0.1", first_port=19188, answers=lambda _port: True)
    with pytest.raises(EngineUnavailable, match="null byte"):
        start_and_wait(comfy)


def test_a_death_at_the_start_is_seen_at_once_with_its_last_words() -> None:
    with process("import sys; print('no GPU found'); sys.exit(3)") as comfy:
        comfy.start()
        with QuietClock() as clock:
            started = clock()
            with pytest.raises(EngineUnavailable, match="exit code 3") as raised:
                comfy.wait_ready(PATIENCE_S)
            assert clock() - started < 10
        assert "no GPU found" in raised.value.details["log_tail"]
        assert comfy.state is ProcessState.DEAD


def test_a_command_that_does_not_exist_is_named() -> None:
    comfy = ComfyProcess(
        lambda _port: ["/no/such/python"], host="127.0.0.1", first_port=19188, answers=lambda _port: True
    )
    with pytest.raises(EngineUnavailable, match="/no/such/python"):
        start_and_wait(comfy)


def start_and_wait(comfy: ComfyProcess) -> None:
    comfy.start()
    comfy.wait_ready(PATIENCE_S)


def test_one_that_never_answers_is_waited_for_no_longer_than_told() -> None:
    with process("import time; time.sleep(600)") as comfy:
        comfy.start()
        assert not comfy.wait_ready(0.3)


def test_a_flood_of_output_does_not_stop_it() -> None:
    flood = "import sys\nfor _ in range(20000): print('x' * 100)\n" + textwrap.dedent(SERVER)
    with process(flood) as comfy:
        comfy.start()
        assert comfy.wait_ready(PATIENCE_S)
        assert len(comfy.log_tail) < 10_000


def test_stopping_ends_grandchildren_that_ignore_the_request() -> None:
    stubborn = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print('ok', flush=True); time.sleep(600)"],
            stdout=subprocess.PIPE)
        child.stdout.readline()
        print("child", child.pid, flush=True)
        time.sleep(600)
    """
    with process(stubborn) as comfy:
        comfy.start()
        assert wait_until(lambda: "child" in comfy.log_tail)
        child = int(comfy.log_tail.split("child ")[1].split()[0])
        leader = comfy.pid
        assert leader is not None
        comfy.stop()
        assert not is_alive(leader)
        assert wait_until(lambda: not is_alive(child))


def test_it_can_be_started_again_after_it_died() -> None:
    with process(SERVER) as comfy:
        comfy.start()
        comfy.wait_ready(PATIENCE_S)
        assert comfy.pid is not None
        os.kill(comfy.pid, signal.SIGKILL)
        assert wait_until(lambda: not comfy.is_alive)
        assert comfy.state is ProcessState.DEAD
        comfy.start()
        assert comfy.wait_ready(PATIENCE_S)
        assert comfy.starts == 2


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_outlives_its_interpreter(ending: str) -> None:
    parent = f"""
        import os, signal, sys
        from comfy_serverless.connector.process import ComfyProcess
        import time
        comfy = ComfyProcess(lambda _: [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"],
                             host="127.0.0.1", first_port=19588, answers=lambda _: True)
        comfy.start()
        while "up" not in comfy.log_tail:
            time.sleep(0.01)
        print(comfy.pid, flush=True)
        {ending}
    """
    environment = {**os.environ, "PYTHONPATH": "lambda"}
    command = [sys.executable, "-c", textwrap.dedent(parent)]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE_S)
    pid = int(answer.stdout)
    assert wait_until(lambda: not is_alive(pid))


def test_a_fork_that_ends_leaves_the_process_alone() -> None:
    with process(SERVER) as comfy:
        comfy.start()
        assert comfy.wait_ready(PATIENCE_S)
        program = os.fork()
        if program == 0:
            _stop_at_exit(weakref.ref(comfy))
            os._exit(0)
        os.waitpid(program, 0)
        assert comfy.is_alive


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    with process("import sys; sys.stdout.write('\\r50 %' * 1_000_000 + '\\rlast words'); sys.exit(3)") as comfy:
        comfy.start()
        with pytest.raises(EngineUnavailable, match="last words"):
            comfy.wait_ready(PATIENCE_S)
        assert len(comfy.log_tail) < 200_000


WORKING = """
    import subprocess, sys, threading, time
    work = "import time\\nend = time.process_time() + 2\\nwhile time.process_time() < end: pass"
    {started}
    time.sleep(30)
"""


@pytest.mark.parametrize(
    "started",
    [
        "threading.Thread(target=exec, args=(work, {})).start()",
        "subprocess.Popen([sys.executable, '-c', work])",
        "threading.Thread(target=subprocess.run, args=([sys.executable, '-c', work],)).start()",
    ],
)
def test_work_is_seen_in_whatever_process_it_is_done(started: str) -> None:
    with process(WORKING.format(started=started)) as comfy:
        comfy.start()
        assert wait_until(lambda: comfy.cpu_seconds() > 0.5)


def test_answering_is_not_work() -> None:
    script = "import threading, time; threading.Thread(target=time.sleep, args=(30,)).start()\nwhile True: pass"
    with process(script) as comfy:
        comfy.start()
        time.sleep(1.0)
        assert comfy.cpu_seconds() < 0.2


@pytest.mark.parametrize("host", ["http://127.0.0.1", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    with pytest.raises(EngineUnavailable, match="API_URL"):
        find_available_port(host, 8188)


def test_a_lock_that_somebody_made_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"comfy-serverless-{os.getuid()}-19388.lock").symlink_to(precious)
    reserved = ReservedPort("127.0.0.1", 19388)
    assert reserved.port != 19388
    assert precious.read_text() == "kept"
    reserved.release()
