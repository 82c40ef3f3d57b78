"""The connector with an engine that really executes: the embedded one, or a real ComfyUI if COMFYUI_DIR is set."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from comfy_serverless import ComfyConnector, Output, OutputKind, Progress, Settings
from comfy_serverless.errors import Canceled, ComfyError, DeadlineExceeded, EngineUnavailable, InvalidWorkflow
from tests.contract.asking import is_queued
from tests.contract.engines import free_port
from tests.patience import PATIENCE_S, QuietClock, wait_until

TEST_PAYLOAD = Path(__file__).parent / "test_payload.json"
REAL = bool(os.environ.get("COMFYUI_DIR"))


def settings(folder: Path) -> Settings:
    chosen = Settings.from_environment()
    if REAL:
        arguments = f"--cpu --output-directory {folder}/output --input-directory {folder}/input"
        for name in ("output", "input"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return replace(chosen, comfyui_args=arguments, initial_port=free_port())
    command = f"{sys.executable} -m comfy_lite --base-directory {folder} --step-ms 20"
    return replace(chosen, api_command_line=command, initial_port=free_port())


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    warm = ComfyConnector(settings=settings(tmp_path_factory.mktemp("engine")))
    yield warm
    warm.kill_api()


def text_to_image(*, steps: int = 3, size: int = 64, batch: int = 1) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(TEST_PAYLOAD.read_text())
    graph["301"]["inputs"].update(width=size, height=size, batch_size=batch)
    graph["22"]["inputs"].update(steps=steps, noise_seed=random.randrange(2**32))
    return graph


def picture(color: int = 0xFF8000, *, batch: int = 1, size: int = 16) -> dict[str, Any]:
    inputs = {"width": size, "height": size, "batch_size": batch, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": f"test/{uuid.uuid4().hex[:8]}"},
            "_meta": {"title": "The result"},
        },
    }


def wait_for(connector: ComfyConnector, prompt_id: str, *queues: str) -> None:
    """Wait until ComfyUI has a prompt, in one of these queues."""
    assert wait_until(lambda: is_queued(connector, prompt_id, *queues)), "the prompt did not come"


def test_the_two_lines_of_the_readme(connector: ComfyConnector) -> None:
    [image] = ComfyConnector().generate_images(text_to_image())
    assert image.size == (64, 64)


def test_every_connector_is_the_same_connector(connector: ComfyConnector) -> None:
    assert ComfyConnector() is connector
    assert ComfyConnector(wait=False) is connector
    assert connector.starts == 1


def test_outputs_say_which_node_made_them(connector: ComfyConnector) -> None:
    execution = connector.run(picture(0x0000FF, batch=2))
    assert [(output.node_id, output.class_type, output.title, output.index) for output in execution.outputs] == [
        ("2", "SaveImage", "The result", 0),
        ("2", "SaveImage", "The result", 1),
    ]
    for output in execution.outputs:
        assert output.path is not None, "a local engine's files are read from disk"
        assert output.size_bytes == output.path.stat().st_size == len(output.read())
        with output.open() as stream, Image.open(stream) as image:
            assert image.getpixel((0, 0)) == (0, 0, 255)
    assert execution.attempts == 1
    assert execution.timings.total_ms >= execution.timings.executing_ms


def test_a_picture_that_is_made_is_told_before_the_end(connector: ComfyConnector) -> None:
    graph = picture()
    graph |= {
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    reported: list[Output] = []
    execution = connector.run(graph, on_output=reported.append)
    assert sorted(output.node_id for output in reported) == ["2", "4"]
    assert {(output.node_id, output.name) for output in reported} == {
        (output.node_id, output.name) for output in execution.outputs
    }


def test_progress_goes_from_nothing_to_everything(connector: ComfyConnector) -> None:
    snapshots: list[Progress] = []
    connector.run(text_to_image(steps=4), on_progress=snapshots.append)
    values = [snapshot.value for snapshot in snapshots]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert any(snapshot.current_node_class == "KSamplerAdvanced" and snapshot.steps == 4 for snapshot in snapshots)


def test_a_cached_workflow_still_gives_its_outputs(connector: ComfyConnector) -> None:
    graph = picture(0x123456)
    first, second = connector.run(graph), connector.run(graph)
    assert set(second.cached_nodes) == {"1", "2"}
    assert [output.name for output in second.outputs] == [output.name for output in first.outputs]
    assert second.outputs[0].cached


def test_a_cached_output_whose_file_is_gone_is_made_again(connector: ComfyConnector) -> None:
    graph = picture(0x654321)
    [output] = connector.run(graph).outputs
    assert output.path is not None
    output.path.unlink()
    again = connector.run(graph)
    assert again.attempts == 2
    assert again.outputs[0].read()


def test_frames_of_the_websocket_and_texts_are_outputs(connector: ComfyConnector) -> None:
    graph = picture(batch=2)
    graph["3"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    graph["4"] = {"class_type": "PreviewAny", "inputs": {"source": 12}}
    graph["5"] = {"class_type": "EmptyImage", "inputs": graph["1"]["inputs"] | {"color": 1}}
    graph["4"]["inputs"]["source"] = ["5", 0]
    outputs = connector.run(graph).outputs
    frames = [output for output in outputs if output.node_id == "3"]
    assert [frame.content_type for frame in frames] == ["image/png", "image/png"]
    [text] = [output for output in outputs if output.node_id == "4"]
    assert text.kind is OutputKind.TEXT
    assert text.read()


def test_a_refused_workflow_names_every_node_that_is_wrong(connector: ComfyConnector) -> None:
    graph = picture()
    graph["1"]["inputs"] = {"width": 0, "height": 16, "batch_size": 1, "color": 0}
    with pytest.raises(InvalidWorkflow, match=r"Node 1 \(EmptyImage\)") as raised:
        connector.run(graph)
    assert raised.value.details["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"


def test_an_unknown_node_is_named(connector: ComfyConnector) -> None:
    graph = picture()
    graph["1"]["class_type"] = "NoSuchNode"
    with pytest.raises(InvalidWorkflow, match="NoSuchNode") as raised:
        connector.run(graph)
    assert ("COMFYUI_DIR" in raised.value.message) is not REAL, "where another engine would have it, say so"


def test_what_is_dropped_from_an_accepted_workflow_is_warned_of(connector: ComfyConnector) -> None:
    graph = picture()
    graph["9"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    execution = connector.run(graph)
    assert [output.node_id for output in execution.outputs] == ["2"]
    assert len(execution.warnings) == 1
    assert "Node 9 (SaveImage)" in execution.warnings[0]


def test_a_node_that_raises_ends_the_run_with_its_name_and_keeps_what_was_made(connector: ComfyConnector) -> None:
    graph = picture()
    graph["3"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../outside"}}
    with pytest.raises(ComfyError) as raised:
        connector.run(graph)
    assert raised.value.code == "node_execution_error"
    assert raised.value.details["node_id"] == "3"
    assert raised.value.details["traceback"]
    assert all(output.node_id == "2" for output in raised.value.outputs)
    assert connector.run(picture()).outputs, "the next workflow runs"


def test_the_deadline_interrupts_a_long_run(connector: ComfyConnector) -> None:
    with QuietClock() as clock:
        started = clock()
        with pytest.raises(DeadlineExceeded):
            connector.run(text_to_image(steps=10_000), deadline_s=0.5)
        assert clock() - started < 12
    assert connector.run(picture()).outputs


def test_canceling_one_of_two_runs_does_not_touch_the_other(connector: ComfyConnector) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with ThreadPoolExecutor() as pool:
        running = pool.submit(connector.run, text_to_image(steps=60), prompt_id=first)
        wait_for(connector, first)
        waiting = pool.submit(connector.run, text_to_image(steps=10_000), prompt_id=second)
        wait_for(connector, second)
        assert connector.cancel(second)
        with pytest.raises(Canceled):
            waiting.result()
        assert running.result().outputs
    assert not connector.cancel(second), "nothing runs under that id any more"


def test_canceling_a_running_prompt_is_confirmed(connector: ComfyConnector) -> None:
    prompt_id = str(uuid.uuid4())
    with ThreadPoolExecutor() as pool:
        running = pool.submit(connector.run, text_to_image(steps=10_000), prompt_id=prompt_id)
        wait_for(connector, prompt_id, "queue_running")
        assert connector.cancel(prompt_id)
        with pytest.raises(Canceled):
            running.result()
    assert connector.run(picture()).outputs


def test_several_threads_share_the_engine(connector: ComfyConnector) -> None:
    with ThreadPoolExecutor(8) as pool:
        executions = list(pool.map(lambda color: connector.run(picture(color)), range(16)))
    for color, execution in enumerate(executions):
        with execution.outputs[0].open() as stream, Image.open(stream) as image:
            assert image.getpixel((0, 0)) == (0, 0, color)


def test_a_lost_websocket_loses_no_outcome(connector: ComfyConnector) -> None:
    timer = threading.Timer(0.15, connector._engine.events.drop)
    timer.start()
    assert connector.run(text_to_image(steps=20)).outputs
    timer.join()
    assert connector.run(picture()).outputs


def test_a_killed_engine_is_started_again_and_the_workflow_run_once_more(connector: ComfyConnector) -> None:
    process = connector._engine.process
    assert process is not None
    starts, pid, prompt_id = connector.starts, process.pid, str(uuid.uuid4())
    assert pid is not None
    with ThreadPoolExecutor() as pool:
        running = pool.submit(connector.run, text_to_image(steps=60), prompt_id=prompt_id)
        wait_for(connector, prompt_id, "queue_running")
        os.kill(pid, signal.SIGKILL)
        execution = running.result()
    assert execution.attempts == 2
    assert execution.outputs
    assert connector.starts == starts + 1


def test_uploads_and_downloads_of_the_original(connector: ComfyConnector, tmp_path: Path) -> None:
    photo = tmp_path / "photo äöü +.png"
    Image.effect_noise((20, 10), 80).convert("RGB").save(photo)
    answer = connector.upload_image(str(photo), subfolder="mine", folder_type="input", overwrite=True)
    assert answer["type"] == "input"
    assert answer["subfolder"] == "mine"
    assert connector.get_image(answer["name"], "mine", "input") == photo.read_bytes()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"mine/{answer['name']}"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    }
    [copy] = connector.generate_images(graph)
    with Image.open(photo) as original:
        assert copy.tobytes() == original.tobytes()


def test_a_file_is_given_to_the_engine_under_a_name_of_its_own(connector: ComfyConnector, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (4, 4), (1, 2, 3)).save(first)
    Image.new("RGB", (4, 4), (4, 5, 6)).save(second)
    name = connector.upload_file(first, "same.png", subfolder="given")
    assert name == "given/same.png"
    assert connector.upload_file(first, "same.png", subfolder="given") == name
    assert connector.upload_file(second, "same.png", subfolder="given") != name, "other bytes never replace a file"


def test_queue_and_history_of_the_original(connector: ComfyConnector) -> None:
    prompt_id = connector.queue_prompt(picture(7))["prompt_id"]
    deadline = time.monotonic() + PATIENCE_S
    while not (history := connector.get_history(prompt_id)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert history[prompt_id]["outputs"]["2"]["images"]
    assert connector.get_history(str(uuid.uuid4())) == {}


def test_a_program_written_for_the_original_runs_unchanged(tmp_path: Path) -> None:
    program = """
import json
from comfy_serverless import ComfyConnector
api_singleton = ComfyConnector()
assert ComfyConnector() is api_singleton
prompt = api_singleton.load_payload('workflow_api.json')
ComfyConnector.replace_key_value(prompt, 'text', 'a photo of a fox', ['CLIPTextEncode'], exclude=False)
ComfyConnector.replace_key_value(prompt, 'noise_seed', 99)
print(ComfyConnector.find_output_node(prompt))
assert prompt['240']['inputs']['text'] == 'a photo of a fox'
api_singleton.is_api_running(), api_singleton.server_address, api_singleton.urlport, api_singleton.find_available_port()
images = api_singleton.generate_images(prompt)
images[0].save('image.png')
uploaded = api_singleton.upload_image('image.png', subfolder='again', overwrite=True)
assert api_singleton.get_image(uploaded['name'], uploaded['subfolder'], uploaded['type'])
api_singleton.kill_api()
"""
    (tmp_path / "workflow_api.json").write_text(TEST_PAYLOAD.read_text())
    environment = {**os.environ, "TEST_PAYLOAD": "workflow_api.json", "INITIAL_PORT": str(free_port())}
    if REAL:
        environment["COMFYUI_ARGS"] = f"--cpu --output-directory {tmp_path} --input-directory {tmp_path}"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "['201']"
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (64, 64)


def test_an_engine_that_runs_already_is_found_and_left_running(connector: ComfyConnector) -> None:
    program = """
import json, sys
from comfy_serverless import ComfyConnector
connector = ComfyConnector()
print(connector.starts, len(connector.generate_images(json.loads(sys.argv[1]))))
connector.kill_api()
"""
    environment = {**os.environ, "COMFYUI_URL": str(connector.server_address)}
    answer = subprocess.run(
        [sys.executable, "-c", program, json.dumps(picture(11))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.split() == ["0", "1"], answer.stderr
    assert connector.is_api_running()


def test_nothing_is_left_after_kill_api(tmp_path: Path, connector: ComfyConnector) -> None:
    program = """
import os, sys, threading
from comfy_serverless import ComfyConnector
from comfy_serverless.errors import EngineUnavailable
connector = ComfyConnector()
pid = connector._engine.process.pid
before = len(os.listdir('/proc/self/fd'))
connector.kill_api()
assert not os.path.exists(f'/proc/{pid}')
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert len(os.listdir('/proc/self/fd')) < before
try:
    connector.run({'1': {'class_type': 'EmptyImage', 'inputs': {}}})
except EngineUnavailable:
    assert ComfyConnector(wait=False) is not connector
"""
    environment = {**os.environ, "COMFYUI_ARGS": "--cpu", "INITIAL_PORT": str(free_port())}
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_nothing_at_the_given_address_is_said_at_once() -> None:
    program = """
from comfy_serverless import ComfyConnector
ComfyConnector()
"""
    environment = {**os.environ, "COMFYUI_URL": "http://127.0.0.1:9"}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert answer.returncode != 0
    assert EngineUnavailable.__name__ in answer.stderr
    assert "COMFYUI_URL" in answer.stderr


def test_what_stood_beside_a_graph_is_in_the_picture(connector: ComfyConnector) -> None:
    graph = picture()
    graph["1"]["is_changed"] = [float("nan")]  # as ComfyUI writes it into its own pictures
    graph["2"]["inputs"]["images"] = [1, 0]
    saved = {"nodes": [], "extra": {"ds": float("inf")}}
    execution = connector.run({"prompt": graph, "workflow": saved, "client_id": "somebody"})
    assert [("client_id" in warning, "node 2" in warning) for warning in execution.warnings] == [
        (True, False),
        (False, True),
    ]
    [output] = execution.outputs
    with output.open() as file, Image.open(file) as image:
        assert isinstance(image, PngImageFile)
        assert json.loads(image.text["workflow"]) == {"nodes": [], "extra": {"ds": None}}
        assert json.loads(image.text["prompt"])["2"]["inputs"]["images"] == ["1", 0]
