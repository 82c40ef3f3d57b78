"""The engine as a process: command line, start, signals, limits."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import requests

from comfy_lite import __version__
from tests.contract.engines import RELEASES, EngineProcess, StartEngine, free_port, lite_only
from tests.patience import PATIENCE_S, wait_until

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
}


def lite(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "comfy_lite", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_answer(port: int) -> None:
    """Wait for the first answer, asking as often as the machine allows."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
                connection.sendall(b"GET /system_stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 200"
                return
        except ConnectionRefusedError:
            time.sleep(0.001)


def test_an_unknown_flag_exits_with_2() -> None:
    process = lite("--no-such-flag")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "--no-such-flag" in errors


def test_flags_of_comfyui_are_understood(tmp_path: Path) -> None:
    port = free_port()
    process = lite(
        *("--port", str(port), "--base-directory", str(tmp_path), "--cpu", "--disable-auto-launch"),
        *("--preview-method", "auto", "--verbose", "--dont-print-server", "--log-stdout", "--disable-metadata"),
        *("--disable-all-custom-nodes", "--user-directory", "u", "--extra-model-paths-config", "f.yaml"),
    )
    try:
        first_answer(port)
        nodes = requests.get(f"http://127.0.0.1:{port}/object_info", timeout=PATIENCE_S).json()
        assert "SaveImage" in nodes
        assert "SaveImageWebsocket" not in nodes
    finally:
        process.terminate()
        output, errors = process.communicate()
    assert "Starting server" in output
    assert "To see the GUI" not in output + errors


def test_help_shows_how_to_start() -> None:
    process = lite("--help")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "python -m comfy_lite --port 8188" in output


def test_a_port_in_use_exits_with_1_and_leaves_the_files_of_the_other_alone(
    start_engine: StartEngine,
) -> None:
    engine: EngineProcess = start_engine()
    preview = engine.folder("temp") / "preview.png"
    preview.write_bytes(b"a preview")
    process = lite("--port", str(engine.port), "--base-directory", str(engine.base))
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert str(engine.port) in errors
    assert preview.exists()


def test_temp_is_emptied_at_the_start_and_a_given_one_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine" / "temp").mkdir(parents=True)
    (tmp_path / "mine" / "temp" / "old.png").write_bytes(b"old")
    (tmp_path / "mine" / "precious.txt").write_bytes(b"not ours")
    port = free_port()
    process = lite("--port", str(port), "--base-directory", str(tmp_path), "--temp-directory", str(tmp_path / "mine"))
    first_answer(port)
    process.terminate()
    process.communicate()
    assert not (tmp_path / "mine" / "temp" / "old.png").exists()
    assert (tmp_path / "mine" / "precious.txt").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_signals_end_it_even_while_a_node_runs(start_engine: StartEngine, number: signal.Signals, status: int) -> None:
    engine: EngineProcess = start_engine()
    sleeper = {"class_type": "ContractSleep", "inputs": {"seconds": 2 * PATIENCE_S, "steps": 1, "mode": "silent"}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "s"}}
    answer = requests.post(f"{engine.url}/prompt", json={"prompt": {"1": sleeper, "2": save}}, timeout=PATIENCE_S)
    answer.raise_for_status()
    engine.process.send_signal(number)
    assert engine.process.wait(PATIENCE_S) == status
    assert engine.folder("temp").exists() == (number is signal.SIGTERM)


def test_the_log_goes_to_stderr_and_tells_the_address(start_engine: StartEngine) -> None:
    engine: EngineProcess = start_engine()
    assert f"To see the GUI go to: http://127.0.0.1:{engine.port}" in engine.log.read_text()


def test_too_large_a_body_is_refused_with_413(start_engine: StartEngine) -> None:
    engine: EngineProcess = start_engine("--max-upload-size", "1")
    upload = requests.post(f"{engine.url}/upload/image", files={"image": ("a.png", bytes(2**21))}, timeout=PATIENCE_S)
    assert (upload.status_code, upload.text) == (413, "Maximum request body size 1048576 exceeded.")
    prompt = requests.post(f"{engine.url}/prompt", json={"prompt": PROMPT, "padding": "x" * 2**20}, timeout=PATIENCE_S)
    assert prompt.status_code == 413
    fits = requests.post(f"{engine.url}/upload/image", files={"image": ("a.png", bytes(900_000))}, timeout=PATIENCE_S)
    assert fits.json() == {"name": "a.png", "subfolder": "", "type": "input"}
    assert requests.get(f"{engine.url}/features", timeout=PATIENCE_S).json()["max_upload_size"] == 1048576.0


@lite_only
def test_it_says_what_it_is(engine: EngineProcess) -> None:
    system = requests.get(f"{engine.url}/system_stats", timeout=PATIENCE_S).json()["system"]
    assert system["comfyui_version"] == RELEASES[0]
    assert system["comfy_lite_version"] == __version__
    page = requests.get(engine.url, timeout=PATIENCE_S)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "comfy_lite" in page.text


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__


def test_a_link_to_nowhere_in_an_undeclared_input_ends_the_worker_but_not_the_server(
    start_engine: StartEngine,
) -> None:
    engine: EngineProcess = start_engine()
    prompt = json.loads(json.dumps(PROMPT))
    prompt["2"]["inputs"]["extra"] = ["77", 0]
    assert requests.post(f"{engine.url}/prompt", json={"prompt": prompt}, timeout=PATIENCE_S).status_code == 200

    def running() -> int:
        return len(requests.get(f"{engine.url}/queue", timeout=PATIENCE_S).json()["queue_running"])

    assert wait_until(lambda: running() == 1)
    time.sleep(0.3)
    assert running() == 1, "and for ever"
    assert requests.get(f"{engine.url}/history", timeout=PATIENCE_S).json() == {}


def test_a_bad_node_names_the_output_that_needs_it(engine: EngineProcess) -> None:
    prompt = json.loads(json.dumps(PROMPT))
    prompt["1"]["inputs"]["width"] = 0
    answer = requests.post(f"{engine.url}/prompt", json={"prompt": prompt}, timeout=PATIENCE_S)
    assert answer.json()["node_errors"]["1"]["dependent_outputs"] == ["2"]


def test_a_chain_too_deep_for_python_is_refused(engine: EngineProcess) -> None:
    prompt = {"0": PROMPT["1"]}
    prompt |= {str(n): {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1), 0]}} for n in range(1, 1200)}
    prompt["s"] = {"class_type": "SaveImage", "inputs": {"images": ["1199", 0], "filename_prefix": "deep"}}
    answer = requests.post(f"{engine.url}/prompt", json={"prompt": prompt}, timeout=PATIENCE_S)
    assert answer.status_code == 400
    kinds = {error["type"] for node in answer.json()["node_errors"].values() for error in node["errors"]}
    assert kinds == {"exception_during_inner_validation"}
