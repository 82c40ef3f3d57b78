"""The engine does not start, starts late, or starts in the wrong place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector
from comfy_serverless.connector.ports import find_available_port
from comfy_serverless.errors import EngineUnavailable
from tests.contract.faults.rows import row
from tests.contract.faults.world import FIRST_PORT, World, in_background, lite_only, picture

pytestmark = lite_only


class Stranger(BaseHTTPRequestHandler):
    """An HTTP server that is not ComfyUI."""

    def do_GET(self) -> None:
        body = b'{"status": "ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def stranger_on(port: int) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", port), Stranger)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def starting_fails(world: World, **options: Any) -> EngineUnavailable:
    started = world.clock()
    with pytest.raises(EngineUnavailable) as raised:
        world.connect(**options)
    world.check(raised.value, world.clock() - started)
    assert ComfyConnector._instance is None
    return raised.value


@row("the command cannot be run", code="engine_unavailable", so="names the command", within_s=3)
def test_the_command_cannot_be_run(world: World) -> None:
    starting_fails(world, api_command_line=f"/nowhere/python main.py --base-directory {world.folder}")


@row("it exits at the start", code="engine_unavailable", so="with exit code and log", within_s=5)
def test_it_exits_at_the_start(world: World) -> None:
    script = world.folder / "main.py"
    script.write_text("print('no module named torch')\nraise SystemExit(1)\n")
    error = starting_fails(world, api_command_line=f"{sys.executable} {script}")
    assert error.details["exit_code"] == 1
    assert "no module named torch" in error.message


@row("it starts slowly (1.5 s)", so="succeeds", within_s=10)
def test_it_starts_slowly(world: World) -> None:
    world.connect("--start-delay-ms", "1500", wait=False)
    assert world.succeeds(picture()).outputs


@row("it starts too slowly (limit 0.5 s)", code="engine_unavailable", so="says the limit", within_s=6)
def test_it_starts_too_slowly(world: World) -> None:
    limits = {"max_start_attempts": 2, "start_attempts_sleep_s": 0.25}
    command = world.command("--start-delay-ms", "20000")
    error = starting_fails(world, api_command_line=command, **limits)
    assert "0.5 s" in error.message


@row("it accepts connections and never answers (limit 1 s)", code="engine_unavailable", so="says the limit", within_s=8)
def test_it_accepts_and_never_answers(world: World) -> None:
    script = world.folder / "main.py"
    script.write_text(
        "import socket, sys, time\nlistener = socket.create_server(('127.0.0.1', int(sys.argv[-1])))\ntime.sleep(60)\n"
    )
    limits = {"max_start_attempts": 4, "start_attempts_sleep_s": 0.25}
    starting_fails(world, api_command_line=f"{sys.executable} {script}", **limits)


@row("a stranger's server answers on its port", so="the next port is taken", within_s=10)
def test_a_stranger_listens_on_its_port(world: World) -> None:
    port = find_available_port("127.0.0.1", FIRST_PORT)
    with stranger_on(port):
        world.connect(initial_port=port)
        assert world.connector.urlport != port
        assert world.succeeds(picture()).outputs


@row("its port is taken while it starts", so="the next port is taken", within_s=20)
def test_its_port_is_taken_while_it_starts(world: World) -> None:
    port = find_available_port("127.0.0.1", FIRST_PORT)
    connector = world.connect(initial_port=port)
    connector._engine.process.kill()  # type: ignore[union-attr]
    take_port: list[Callable[[], object]] = []
    command = world.process._command

    def taken(chosen: int) -> Sequence[str]:
        if not take_port:
            holder = stranger_on(chosen)
            holder.__enter__()
            take_port.append(lambda: holder.__exit__(None, None, None))
        return command(chosen)

    world.process._command = taken
    try:
        execution = world.succeeds(picture())
        assert execution.outputs
        assert connector.urlport != port
    finally:
        take_port[0]()
        world.process._command = command


@row("a second start while the first still runs", so="each has its own port", within_s=10)
def test_a_second_start_while_the_first_still_runs(world: World) -> None:
    """Lambda does this after an init of more than 10 s: in another process, on the same port."""
    program = """
        import sys
        from comfy_serverless import ComfyConnector, Settings
        connector = ComfyConnector(settings=Settings(api_command_line=sys.argv[1], initial_port=int(sys.argv[2])))
        print(connector.urlport, flush=True)
        sys.stdin.read()
    """
    slow = world.command("--start-delay-ms", "700")
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), slow, str(FIRST_PORT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    time.sleep(0.4)
    other = world.folder / "second"
    other.mkdir()
    try:
        command = f"{sys.executable} -m comfy_lite --base-directory {other} --enable-faults"
        world.connect(api_command_line=command)
        assert world.succeeds(picture()).outputs
        assert first.stdout is not None
        assert int(first.stdout.readline()) != world.connector.urlport
    finally:
        first.communicate()


@row("it is closed while it starts", code="engine_unavailable", so="says kill_api", within_s=6)
def test_closing_while_it_starts(world: World) -> None:
    world.connect("--start-delay-ms", "2000", wait=False)
    waiting = in_background(lambda: world.connector.run(picture()))
    time.sleep(0.2)
    started = world.clock()
    world.connector.kill_api()
    error = waiting.exception()
    world.check(error, world.clock() - started)
    assert "kill_api" in str(error)


@row("/tmp holds locks, links and files of a previous life", so="succeeds, nothing of others is touched", within_s=10)
def test_temporary_files_of_a_previous_life(world: World) -> None:
    """Locks of ports: one that no process holds, one that is a link, one that cannot be read; folders in the way."""
    temporary = Path(tempfile.gettempdir())
    lock = f"comfy-serverless-{os.getuid()}-{{}}.lock"
    (temporary / lock.format(FIRST_PORT)).touch(0o000)
    target = temporary / "somebody-elses.lock"
    target.write_text("untouched")
    (temporary / lock.format(FIRST_PORT + 1)).symlink_to(target)
    (temporary / lock.format(FIRST_PORT + 2)).mkdir()
    for name in ("output", "temp", "input"):
        (world.folder / name).mkdir()
        (world.folder / name / "old.png").write_text("old")
    world.connect(initial_port=FIRST_PORT)
    assert world.succeeds(picture()).outputs
    assert target.read_text() == "untouched"
    assert (world.folder / "output" / "old.png").read_text() == "old"


@row("COMFYUI_URL leads to a server that never answers", code="engine_unavailable", so="names the address", within_s=8)
def test_its_port_is_open_and_nobody_accepts(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        port = listener.getsockname()[1]
        started = world.clock()
        with pytest.raises(EngineUnavailable) as raised:
            world.connect(comfyui_url=f"http://127.0.0.1:{port}", api_command_line=None)
        world.check(raised.value, world.clock() - started)
