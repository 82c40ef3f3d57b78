"""The local S3 and the Lambda emulator, with small functions of our own."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import local.aws.server
from demo.seed import INPUT_BUCKET, OBJECTS, OUTPUT_BUCKET, main, seed
from local.aws.lambda_emulator import (
    EmulatorNotFound,
    LambdaEmulator,
    LambdaFailed,
    emulator_binary,
    read_answer,
)
from local.aws.processes import LocalProcess, NotListening, OutputLog, ProcessDied, free_port
from local.aws.server import LocalAws
from tests.patience import PATIENCE_S, QuietClock, is_alive

FUNCTION = """
import json, os, subprocess, sys, time

print("loading")
calls = 0

def handler(event, context):
    global calls
    calls += 1
    print(json.dumps({"_aws": {}, "call": calls}))
    action = event.get("do")
    if action == "raise":
        raise ValueError("no such thing")
    if action == "exit":
        os._exit(3)
    if action == "sleep":
        time.sleep(event["s"])
    if action == "orphan":
        subprocess.Popen(["sleep", "300"], start_new_session=True)
    if action == "orphan of an orphan":
        subprocess.run(["sh", "-c", "setsid sleep 300 & setsid sh -c 'trap : TERM; sleep 300; sleep 300' &"])
    if action == "environment":
        return dict(os.environ)
    return {"event": event, "call": calls, "left_ms": context.get_remaining_time_in_millis(), "cwd": os.getcwd()}
"""

Function = Callable[..., LambdaEmulator]


@pytest.fixture
def function(tmp_path: Path) -> Iterator[Function]:
    (tmp_path / "function.py").write_text(FUNCTION)
    emulators: list[LambdaEmulator] = []

    def start(**options: Any) -> LambdaEmulator:
        emulator = LambdaEmulator("function.handler", source_root=tmp_path, **{"timeout_s": 120, **options})
        emulators.append(emulator.start())
        return emulator

    yield start
    for emulator in emulators:
        emulator.stop()


def members_once(emulator: LambdaEmulator, *, at_least: int) -> list[int]:
    """The emulator's processes. One that is just being started has no environment to be known by for a moment."""
    give_up_at = time.monotonic() + PATIENCE_S
    while len(members := list(emulator.members())) < at_least:
        assert time.monotonic() < give_up_at, members
        time.sleep(0.02)
    return members


class TestInvoke:
    def test_answers_what_the_function_returns(self, function: Function, tmp_path: Path) -> None:
        answer = function(timeout_s=300).invoke({"text": "häh 漢字", "number": 1.5, "nothing": None})
        assert answer["event"] == {"text": "häh 漢字", "number": 1.5, "nothing": None}
        assert answer["cwd"] == str(tmp_path)
        assert 0 < answer["left_ms"] <= 300_000

    def test_a_second_invocation_finds_the_same_process(self, function: Function) -> None:
        emulator = function()
        assert [emulator.invoke({})["call"] for _ in range(3)] == [1, 2, 3]

    def test_threads_take_turns(self, function: Function) -> None:
        emulator, calls = function(), []
        threads = [threading.Thread(target=lambda: calls.append(emulator.invoke({})["call"])) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(calls) == [1, 2, 3, 4, 5, 6]

    def test_an_exception_comes_with_class_message_and_traceback(self, function: Function) -> None:
        with pytest.raises(LambdaFailed, match="ValueError: no such thing") as failure:
            function().invoke({"do": "raise"})
        assert failure.value.error_type == "ValueError"
        assert failure.value.error_message == "no such thing"
        assert "function.py" in "".join(failure.value.stack_trace)

    def test_a_function_that_cannot_be_loaded_is_reported(self, function: Function, tmp_path: Path) -> None:
        (tmp_path / "function.py").write_text("import nothing_of_that_name")
        with pytest.raises(LambdaFailed, match="nothing_of_that_name"):
            function().invoke({})

    def test_after_its_process_has_ended_the_next_invocation_gets_a_new_one(self, function: Function) -> None:
        emulator = function()
        with pytest.raises(LambdaFailed) as failure:
            emulator.invoke({"do": "exit"})
        assert failure.value.error_type == "Runtime.ExitError"
        assert emulator.invoke({})["call"] == 1

    def test_a_timeout_is_reported_and_the_next_invocation_gets_a_new_process(self, function: Function) -> None:
        emulator = function(timeout_s=1)
        with pytest.raises(LambdaFailed, match=r"timed out after 1\.00 seconds") as failure:
            emulator.invoke({"do": "sleep", "s": 60})
        assert failure.value.error_type == "Sandbox.Timedout"
        assert emulator.invoke({})["call"] == 1

    def test_the_death_of_the_emulator_is_noticed(self, function: Function) -> None:
        emulator = function()
        emulator.invoke({})
        os.kill(emulator.pid, signal.SIGKILL)
        with pytest.raises(ProcessDied, match=r"the Lambda emulator ended with exit code -9:[\s\S]*loading"):
            emulator.invoke({})

    def test_its_death_during_an_invocation_is_noticed_too(self, function: Function) -> None:
        emulator = function()
        threading.Timer(0.3, os.kill, (emulator.pid, signal.SIGKILL)).start()
        with pytest.raises(ProcessDied, match="exit code -9"):
            emulator.invoke({"do": "sleep", "s": 60})

    def test_without_a_start_it_says_so(self) -> None:
        with pytest.raises(RuntimeError, match="has not been started"):
            LambdaEmulator().invoke({})


class TestSurroundings:
    def test_credentials_proxies_and_settings_of_ours_do_not_leak(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "http_proxy", "COMFYUI_DIR", "PYTHONHOME"):
            monkeypatch.setenv(name, "mine")
        environment = function(environment={"OUTPUT_BUCKET": "results"}).invoke({"do": "environment"})
        assert "mine" not in environment.values()
        assert environment["OUTPUT_BUCKET"] == "results"
        assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "GenerateFunction"

    def test_what_it_prints_can_be_waited_for_and_is_kept(self, function: Function, tmp_path: Path) -> None:
        emulator = function(log_path=tmp_path / "out" / "worker.log")
        emulator.invoke({})
        assert emulator.log.wait_for(lambda line: '"_aws"' in line) == '{"_aws": {}, "call": 1}'
        emulator.stop()
        assert '{"_aws": {}, "call": 1}' in (tmp_path / "out" / "worker.log").read_text()

    def test_its_temporary_files_go_with_it(self, function: Function) -> None:
        emulator = function()
        folder = Path(emulator.invoke({"do": "environment"})["TMPDIR"])
        assert folder.is_dir()
        emulator.stop()
        assert not folder.exists()


class TestStop:
    @pytest.mark.parametrize("action", ["orphan", "orphan of an orphan"])
    def test_nothing_the_function_started_is_left(self, function: Function, action: str) -> None:
        emulator = function()
        emulator.invoke({"do": action})
        members = members_once(emulator, at_least=3)
        with QuietClock() as clock:
            started = clock()
            emulator.stop()
            assert [pid for pid in members if is_alive(pid)] == []
            assert clock() - started < 8

    def test_orphans_of_a_process_that_was_killed_are_found_too(self, function: Function) -> None:
        emulator = function()
        emulator.invoke({"do": "orphan"})
        members = members_once(emulator, at_least=3)
        orphans = [pid for pid in members if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")]
        assert len(orphans) == 1
        with pytest.raises(LambdaFailed):
            emulator.invoke({"do": "exit"})
        os.kill(emulator.pid, signal.SIGKILL)
        assert all(is_alive(pid) for pid in orphans)
        emulator.stop()
        assert not any(is_alive(pid) for pid in orphans)

    def test_twice_is_once(self, function: Function) -> None:
        emulator = function()
        emulator.stop()
        emulator.stop()

    def test_starting_twice_is_once_and_after_a_stop_it_starts_anew(self, function: Function) -> None:
        emulator = function()
        first = emulator.pid
        with emulator.start() as same:
            assert same.pid == first
        with emulator:
            assert emulator.pid != first
            assert emulator.invoke({})["call"] == 1

    def test_a_start_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = tmp_path / "emulator"
        broken.write_text("#!/bin/sh\necho out of order; exit 7\n")
        broken.chmod(0o755)
        monkeypatch.setattr("local.aws.lambda_emulator.emulator_binary", lambda: broken)
        with pytest.raises(ProcessDied, match=r"exit code 7:\nout of order"):
            LambdaEmulator("function.handler", source_root=tmp_path).start()

    def test_a_port_taken_meanwhile_is_replaced(self, function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            other.close()
            with socket.create_server(("127.0.0.1", taken)):
                ports = iter([free_port(), taken])  # the second is the runtime's
                monkeypatch.setattr("local.aws.lambda_emulator.free_port", lambda: next(ports, None) or free_port())
                assert function().invoke({})["call"] == 1


class TestBinary:
    def test_is_there_for_this_machine(self) -> None:
        assert os.access(emulator_binary(), os.X_OK)

    def test_another_system_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        with pytest.raises(EmulatorNotFound, match="make sam-demo"):
            emulator_binary()

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(EmulatorNotFound, match="aws-sam-cli"):
            emulator_binary()


@pytest.mark.parametrize("value", [None, True, 1, "text", [], {}, {"errorType": "mine alone"}])
def test_any_json_value_is_an_answer(value: object) -> None:
    assert read_answer(json.dumps(value)) == value


class TestLocalAws:
    def test_keeps_what_it_is_given(self, local_s3: LocalAws) -> None:
        bucket = local_s3.bucket("some-bucket")
        local_s3.client().put_object(Bucket=bucket, Key="a b+ü", Body=b"bytes")
        assert local_s3.client().get_object(Bucket=bucket, Key="a b+ü")["Body"].read() == b"bytes"
        assert local_s3.bucket("some-bucket") == "some-bucket"

    def test_its_environment_is_all_that_an_aws_library_needs(self, local_s3: LocalAws) -> None:
        script = "import boto3; print([b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']])"
        answer = subprocess.run(
            [sys.executable, "-c", script], env=local_s3.environment, capture_output=True, text=True, check=True
        )
        assert OUTPUT_BUCKET in answer.stdout

    def test_proxies_of_the_environment_are_not_used(self, local_s3: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert local_s3.client().list_buckets()["Buckets"]

    def test_is_gone_afterwards(self) -> None:
        with LocalAws() as s3:
            port = s3.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)

    def test_takes_another_port_when_the_first_is_taken_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            ports = iter([taken, free_port()])
            monkeypatch.setattr(local.aws.server, "free_port", lambda: next(ports))
            with LocalAws() as s3:
                assert s3.port != taken
                assert s3.client().list_buckets()["Buckets"] == []

    def test_seeding_twice_changes_nothing(self, local_s3: LocalAws, capsys: pytest.CaptureFixture[str]) -> None:
        addresses = seed(local_s3.client())
        main(["--endpoint-url", local_s3.endpoint_url])
        assert capsys.readouterr().out.split("\n")[:-1] == addresses
        held = local_s3.client().list_objects_v2(Bucket=INPUT_BUCKET)["Contents"]
        assert {entry["Key"] for entry in held} >= set(OBJECTS)


class TestProcesses:
    def test_a_program_that_ends_instead_of_listening(self) -> None:
        with (
            LocalProcess(["sh", "-c", "echo why; exit 4"], {"PATH": os.environ["PATH"]}, name="it") as process,
            pytest.raises(ProcessDied, match=r"it ended with exit code 4:\nwhy"),
        ):
            process.wait_until_listening(free_port())

    def test_a_program_that_never_listens(self) -> None:
        with (
            LocalProcess(["sleep", "60"], {"PATH": os.environ["PATH"]}, name="it") as process,
            pytest.raises(NotListening, match=r"it does not listen after 0\.1 s"),
        ):
            process.wait_until_listening(free_port(), timeout_s=0.1)

    def test_a_program_that_ignores_sigterm_is_ended_all_the_same(self) -> None:
        script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
        process = LocalProcess([sys.executable, "-c", script], {}, name="it")
        process.log.wait_for(lambda line: line == "on", timeout_s=PATIENCE_S)
        process.stop(grace_s=0.3)
        assert process.exit_code == -signal.SIGKILL

    def test_a_line_that_never_comes(self) -> None:
        log = OutputLog()
        log.append("something else")
        with pytest.raises(TimeoutError, match="something else"):
            log.wait_for(lambda line: line == "wanted", timeout_s=0.05)

    def test_only_the_last_lines_are_held(self) -> None:
        log = OutputLog(max_lines=2)
        for number in range(4):
            log.append(str(number))
        assert log.lines() == ["2", "3"]
        assert log.tail(1) == "3"
