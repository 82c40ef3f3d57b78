"""The messages about a refused workflow, by the embedded engine, or a real ComfyUI if COMFYUI_DIR names its folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.connector.client import RequestFailed
from comfy_serverless.connector.preflight import find_problems
from comfy_serverless.errors import InvalidWorkflow
from tests.contract.engines import REAL_COMFYUI, free_port
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
SAMPLES = sorted((HERE.parents[1] / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    folder = tmp_path_factory.mktemp("engine")
    for name in ("output", "input"):
        (folder / name).mkdir()
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL_COMFYUI:
        arguments = f"--cpu --output-directory {folder}/output --input-directory {folder}/input"
        settings = replace(settings, comfyui_args=arguments)
    else:
        command = f"{sys.executable} {HERE / 'lite_engine.py'} --base-directory {folder}"
        settings = replace(settings, api_command_line=command)
    warm = ComfyConnector(settings=settings)
    yield warm
    warm.kill_api()


def text_to_image() -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((HERE / "test_payload.json").read_text())
    return graph


def everything_wrong() -> dict[str, Any]:
    """The sample graph with two unknown nodes, a missing model, a wrong sampler and a missing input."""
    graph = text_to_image()
    by_class = {node["class_type"]: node["inputs"] for node in graph.values()}
    by_class["CheckpointLoaderSimple"]["ckpt_name"] = "v1-5-pruned.safetensors"
    by_class["KSamplerAdvanced"]["sampler_name"] = "euler_ancestrall"
    del by_class["EmptyLatentImage"]["batch_size"]
    graph["901"] = {"class_type": "FaceDetailer", "inputs": {}}
    graph["902"] = {"class_type": "PreviewImag", "inputs": {}}
    return graph


def test_everything_that_is_wrong_is_told_before_anything_is_queued(connector: ComfyConnector) -> None:
    with pytest.raises(InvalidWorkflow) as raised:
        connector.run(everything_wrong())
    error = raised.value
    assert [node["class_type"] for node in error.details["unknown_nodes"]] == ["FaceDetailer", "PreviewImag"]
    assert [model["name"] for model in error.details["missing_models"]] == ["v1-5-pruned.safetensors"]
    for part in (
        "(FaceDetailer): ComfyUI has no such node",
        "(PreviewImag): ComfyUI has no such node (did you mean 'PreviewImage'?)",
        "this model file is missing",
        "did you mean 'v1-5-pruned-emaonly.safetensors'?",
        "sampler_name: 'euler_ancestrall' not in",
        "did you mean 'euler_ancestral'?",
        "(EmptyLatentImage): Required input is missing: batch_size",
    ):
        assert part in error.message
    assert error.details["error"]["type"] in ("invalid_prompt", "missing_node_type"), "ComfyUI's own words are kept"
    assert error.details["error"]["message"].rstrip(".") in error.message
    queue = requests.get(f"{connector.server_address}/prompt", timeout=PATIENCE_S).json()
    assert queue["exec_info"]["queue_remaining"] == 0


def test_what_comfyui_tells_itself_comes_with_what_was_meant(connector: ComfyConnector) -> None:
    graph = everything_wrong()
    del graph["901"], graph["902"]
    with pytest.raises(InvalidWorkflow) as raised:
        connector.run(graph)
    errors = [found for node in raised.value.details["node_errors"].values() for found in node["errors"]]
    assert sorted(found["type"] for found in errors) == [
        "required_input_missing",
        "value_not_in_list",
        "value_not_in_list",
    ]
    assert "did you mean 'euler_ancestral'?" in raised.value.message
    assert "did you mean 'v1-5-pruned-emaonly.safetensors'?" in raised.value.message


def test_a_cycle_is_named(connector: ComfyConnector) -> None:
    graph = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(InvalidWorkflow, match=r"Dependency cycle detected: 1 \(ImageInvert\) -> 2 \(ImageInvert\)"):
        connector.run(graph)


def test_a_value_that_only_the_node_can_judge_is_its_own_affair(connector: ComfyConnector) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "not-there.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(InvalidWorkflow, match=r"not-there\.png") as raised:
        connector.run(graph)
    [error] = raised.value.details["node_errors"]["1"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert raised.value.details["missing_models"] == []


def test_outputs_that_are_dropped_are_warned_of_with_what_was_meant(connector: ComfyConnector) -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "width": 8, "height": 8, "crop": "disabled"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    graph["3"]["inputs"]["upscale_method"] = "lanczoz"
    execution = connector.run(graph)
    assert [output.node_id for output in execution.outputs] == ["2"]
    [warning] = execution.warnings
    assert "Node 3 (ImageScale): Value not in list: upscale_method" in warning
    assert "did you mean 'lanczos'?" in warning


@pytest.mark.parametrize("sample", [HERE / "test_payload.json", *SAMPLES], ids=lambda path: path.stem)
def test_nothing_is_found_wrong_with_a_workflow_that_comfyui_accepts(connector: ComfyConnector, sample: Path) -> None:
    graph = json.loads(sample.read_text())
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            picture = HERE.parents[1] / "README.md"
            node["inputs"]["image"] = connector.upload_image(picture)["name"]
    answer = requests.post(f"{connector.server_address}/prompt", json={"prompt": graph}, timeout=PATIENCE_S).json()
    assert answer["node_errors"] == {}, "ComfyUI accepts it"
    requests.post(f"{connector.server_address}/queue", json={"clear": True}, timeout=PATIENCE_S)
    requests.post(f"{connector.server_address}/interrupt", json={}, timeout=PATIENCE_S)
    declarations = requests.get(f"{connector.server_address}/object_info", timeout=PATIENCE_S).json()
    assert find_problems(graph, declarations) == {}


def test_an_engine_that_does_not_declare_its_nodes_still_refuses(
    connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> dict[str, Any]:
        raise RequestFailed("reset")

    monkeypatch.setattr("comfy_serverless.connector.client.ComfyClient.object_info", unreadable)
    with pytest.raises(InvalidWorkflow, match=r"does not exist|not found") as raised:
        connector.run({"1": {"class_type": "FaceDetailer", "inputs": {}}})
    assert raised.value.details["node_errors"] == {}
