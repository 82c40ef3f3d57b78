"""What the editor saved runs as it is: through the connector to a picture that the editor opens again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.outputs import Output
from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.settings import Settings
from tests.contract.engines import free_port
from tests.patience import wait_until
from tests.unit.editor_samples import plain, rolling, with_subgraph, with_unknown

REAL = bool(os.environ.get("COMFYUI_DIR"))
PROMPT_ID = "5f0a1d3e-0000-4000-8000-00000000000{}"


def settings_for(folder: Path) -> Settings:
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL:
        return replace(settings, comfyui_args="--cpu")
    return replace(settings, api_command_line=f"{sys.executable} -m comfy_lite --base-directory {folder}")


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyConnector]:
    warm = ComfyConnector(settings=settings_for(tmp_path_factory.mktemp("engine")))
    yield warm
    warm.kill_api()


def chunks(output: Output) -> dict[str, Any]:
    with output.open() as file, Image.open(file) as picture:
        return {name: json.loads(text) for name, text in picture.info.items() if name in ("prompt", "workflow")}


def test_a_file_with_a_subgraph_becomes_a_picture_that_has_both_and_runs_again(connector: ComfyConnector) -> None:
    workflow = with_subgraph(color=0xFF0000)
    execution = connector.run(workflow)
    [output] = execution.outputs
    [picture] = execution.images
    assert (picture.size, picture.convert("RGB").getpixel((0, 0))) == ((48, 24), (0, 255, 255))
    inside = chunks(output)
    assert inside["workflow"] == workflow
    assert inside["prompt"]["2:102"]["inputs"]["scale_by"] == 3
    again = connector.run({"prompt": inside["prompt"], "workflow": inside["workflow"]})
    assert again.images[0].tobytes() == picture.tobytes()
    [once_more] = connector.generate_images(inside["workflow"])
    assert once_more.tobytes() == picture.tobytes()


def test_a_coroutine_takes_it_too(connector: ComfyConnector) -> None:
    execution = asyncio.run(connector.arun(with_subgraph(color=0x00FF00)))
    assert execution.images[0].convert("RGB").getpixel((0, 0)) == (255, 0, 255)


def test_the_graph_that_it_becomes_is_edited_as_any_other(connector: ComfyConnector) -> None:
    workflow = with_subgraph()
    with pytest.raises(UiFormatWorkflow, match="convert"):
        ComfyConnector.replace_key_value(workflow, "color", 1)
    graph = connector.convert(workflow).graph
    ComfyConnector.replace_key_value(graph, "color", 0x0000FF, ["EmptyImage"], exclude=False)
    ComfyConnector.replace_key_value(graph, "scale_by", 1)
    execution = connector.run({"prompt": graph, "workflow": workflow})
    assert execution.images[0].size == (16, 8)
    assert execution.images[0].convert("RGB").getpixel((0, 0)) == (255, 255, 0)
    assert chunks(execution.outputs[0])["workflow"] == workflow
    assert ComfyConnector.find_output_node(graph) == "['3']"


def test_what_was_rolled_is_a_warning_and_the_same_for_the_same_id(connector: ComfyConnector) -> None:
    workflow = rolling()
    del workflow["nodes"][0], workflow["links"][0]  # nothing there is encoded, for want of a model
    workflow["nodes"][0]["inputs"][0]["link"] = None
    texts = []
    for color, number in enumerate((1, 1, 2, 3, 4)):
        workflow["nodes"][1]["widgets_values"] = [16, 8, 1, color]  # else the picture of the first run is there still
        execution = connector.run(workflow, prompt_id=PROMPT_ID.format(number))
        assert any("node 2" in warning for warning in execution.warnings), execution.warnings
        texts.append(chunks(execution.outputs[0])["prompt"]["2"]["inputs"]["text"])
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert not any("{" in text for text in texts)


def test_a_class_that_nobody_has_is_named_with_its_pack(connector: ComfyConnector) -> None:
    with pytest.raises(UiFormatWorkflow, match="NobodysNode") as refused:
        connector.run(with_unknown())
    [reason] = refused.value.details["reasons"]
    assert (reason["reason"], reason["class_type"]) == ("missing_node_type", "NobodysNode")
    assert (reason["cnr_id"], reason["ver"]) == ("nobodys-pack", "1.2.3")


def test_what_is_queued_by_hand_is_converted_too(connector: ComfyConnector) -> None:
    queued = connector.queue_prompt(plain(prefix="queued"))
    assert wait_until(lambda: bool(connector.get_history(queued["prompt_id"])))
    [entry] = connector.get_history(queued["prompt_id"]).values()
    assert entry["outputs"]["2"]["images"][0]["filename"].startswith("queued")
