"""Every kind of output is delivered, on the embedded engine or on the ComfyUI in COMFYUI_DIR."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless import ComfyConnector, Output, OutputKind, Settings
from comfy_serverless.errors import EngineCrashed, NodeExecutionError
from tests.contract.engines import REAL_COMFYUI, free_port
from tests.contract.packs_of_engine import fill_custom_nodes

HERE = Path(__file__).parent
real_only = pytest.mark.skipif(REAL_COMFYUI is None, reason="nodes that the embedded engine does not have")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("engine")
    for name in ("output", "input", "temp", "custom_nodes"):
        (base / name).mkdir()
    return base


@pytest.fixture(scope="module")
def connector(folder: Path) -> Iterator[ComfyConnector]:
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL_COMFYUI:
        (folder / "models").symlink_to(Path(REAL_COMFYUI) / "models")
        fill_custom_nodes(folder, Path(REAL_COMFYUI))
        settings = replace(settings, comfyui_args=f"--cpu --base-directory {folder}")
    else:
        command = f"{sys.executable} {HERE / 'lite_engine.py'} --base-directory {folder}"
        settings = replace(settings, api_command_line=command)
    warm = ComfyConnector(settings=settings)
    yield warm
    warm.kill_api()


def image(batch: int = 1) -> dict[str, Any]:
    color = uuid.uuid4().int % 0xFFFFFF
    return {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": batch, "color": color}}


def show(shown: dict[str, Any]) -> dict[str, Any]:
    return {"class_type": "ContractUI", "inputs": {"ui": json.dumps(shown)}}


def made(
    connector: ComfyConnector, graph: dict[str, Any], node_id: str, *, files: Mapping[Path, bytes] | None = None
) -> list[Output]:
    """The outputs of a node, while whose workflow runs these files are written."""

    def write(_: object) -> None:
        for path, content in (files or {}).items():
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)

    execution = connector.run(graph, on_progress=write)
    outputs = [output for output in execution.outputs if output.node_id == node_id]
    for index, output in enumerate(outputs):
        assert (output.class_type, output.index) == (graph[node_id]["class_type"], index)
        assert output.size_bytes == len(output.read())
    return outputs


@pytest.mark.parametrize("class_type", ["SaveAnimatedWEBP", "SaveAnimatedPNG"])
def test_an_animation_is_one_image_with_its_size(connector: ComfyConnector, class_type: str) -> None:
    inputs = {"images": ["1", 0], "filename_prefix": "moving/a", "fps": 6.0}
    more = {"lossless": True, "quality": 80, "method": "default"} if class_type.endswith("WEBP") else {}
    more = more or {"compress_level": 4}
    graph = {"1": image(batch=3), "2": {"class_type": class_type, "inputs": inputs | more}}
    [output] = made(connector, graph, "2")
    assert (output.kind, output.subfolder, output.pixels) == (OutputKind.IMAGE, "moving", (16, 8))
    assert output.content_type in ("image/webp", "image/png")


def test_batches_previews_and_frames_are_outputs_of_their_nodes(connector: ComfyConnector) -> None:
    graph = {
        "1": image(batch=3),
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/folder/b"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    outputs = connector.run(graph).outputs
    assert [(output.node_id, output.index) for output in outputs] == [
        *((node, index) for node in "234" for index in range(3)),
        ("5", 0),
    ]
    assert {output.pixels for output in outputs} == {(16, 8), None}
    assert {output.folder_type for output in outputs if output.node_id == "3"} == {"temp"}
    assert {output.subfolder for output in outputs if output.node_id == "2"} == {"sub/folder"}


def test_whatever_a_custom_node_shows_is_an_output(connector: ComfyConnector, folder: Path) -> None:
    names = ("clips/a.mp4", "clips/mesh.glb", "no_suffix")
    files = {folder / "output" / name: b"OggS" + name.encode() for name in names}
    clip = {"filename": "a.mp4", "subfolder": "clips", "type": "output", "format": "video/h264-mp4", "frame_rate": 8}
    shown = {
        "gifs": [clip],
        "result": ["clips/mesh.glb", None, {"camera": [1, 2.5]}],
        "text": ["one", "two"],
        "string": "cut into characters",
        "files_of_a_kind_nobody_knows": [{"filename": "no_suffix", "subfolder": "", "type": "output"}],
        "nested": [[1, [2, [3]]], True, 0.5],
        "nothing": [None],
    }
    outputs = made(connector, {"1": show(shown)}, "1", files=files)
    assert [(output.name, output.kind.value) for output in outputs] == [
        ("a.mp4", "video"),
        ("mesh.glb", "file"),
        ("result_2.json", "text"),
        ("text_3.txt", "text"),
        ("text_4.txt", "text"),
        ("string_5.txt", "text"),
        ("no_suffix", "audio"),
        ("nested_7.json", "text"),
        ("nested_8.json", "text"),
        ("nested_9.json", "text"),
    ]
    assert [outputs[index].read() for index in (2, 5, 7)] == [
        b'{"camera": [1, 2.5]}',
        b"cut into characters",
        b"[1, [2, [3]]]",
    ]


def test_a_cached_workflow_gives_every_output_again(connector: ComfyConnector) -> None:
    graph = {
        "1": image(batch=2),
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "cached"}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }
    first, second = connector.run(graph), connector.run(graph)
    assert {"1", "2", "3"} <= set(second.cached_nodes)
    assert [output.sha256 for output in second.outputs] == [output.sha256 for output in first.outputs]
    assert len(second.outputs) == 5


def test_a_process_that_has_lost_its_gpu_is_recycled_and_the_job_runs_once_more(connector: ComfyConnector) -> None:
    starts = connector.starts
    raises = {"kind": "ValueError", "message": "CUDA error: device-side assert triggered"}
    graph = {
        "1": {"class_type": "ContractRaise", "inputs": raises},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(EngineCrashed, match=r"Node 1 \(ContractRaise\) raised ValueError: CUDA error") as raised:
        connector.run(graph)
    assert raised.value.details["node_id"] == "1"
    assert made(connector, {"1": image(), "2": graph["2"]}, "2"), "the next job runs"
    assert connector.starts == starts + 2, "once for the second attempt, once after it"


REAL_KINDS: dict[str, tuple[dict[str, Any], list[tuple[OutputKind, str, str]]]] = {
    "SaveLatent": (
        {
            "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
            "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "latents/l"}},
        },
        [(OutputKind.LATENT, "latents", "application/octet-stream")],
    ),
    "SaveWEBM": (
        {
            "1": image(batch=4),
            "2": {
                "class_type": "SaveWEBM",
                "inputs": {"images": ["1", 0], "filename_prefix": "w", "codec": "vp9", "fps": 8.0, "crf": 32.0},
            },
        },
        [(OutputKind.VIDEO, "", "video/webm")],
    ),
    "SaveVideo": (
        {
            "0": {"class_type": "ContractNoise", "inputs": {"size": 64, "n": 4, "seed": 1}},
            "1": {"class_type": "CreateVideo", "inputs": {"images": ["0", 0], "fps": 8.0}},
            "2": {
                "class_type": "SaveVideo",
                "inputs": {"video": ["1", 0], "filename_prefix": "video/v", "format": "mp4", "codec": "h264"},
            },
        },
        [(OutputKind.VIDEO, "video", "video/mp4")],
    ),
    "SaveSVGNode": (
        {
            "1": {"class_type": "ContractSVG", "inputs": {"text": "x"}},
            "2": {"class_type": "SaveSVGNode", "inputs": {"svg": ["1", 0], "filename_prefix": "svg/s"}},
        },
        [(OutputKind.IMAGE, "svg", "image/svg+xml")],
    ),
    "SaveGLB": (
        {
            "1": {"class_type": "TinyMesh", "inputs": {}},
            "2": {"class_type": "SaveGLB", "inputs": {"mesh": ["1", 0], "filename_prefix": "mesh/m"}},
        },
        [(OutputKind.FILE, "mesh", "model/gltf-binary")],
    ),
    "VAESave": (
        {
            "1": {
                "class_type": "CheckpointLoaderSimple",
                "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"},
            },
            "2": {"class_type": "VAESave", "inputs": {"vae": ["1", 2], "filename_prefix": "vae/mine"}},
        },
        [(OutputKind.FILE, "vae", "application/octet-stream")],
    ),
    "nodes of an expansion": (
        {"2": {"class_type": "ExpandToFrames", "inputs": {"prefix": "inner/x"}}},
        [(OutputKind.IMAGE, "inner", "image/png"), *[(OutputKind.IMAGE, "", "image/png")] * 2],
    ),
}


@real_only
@pytest.mark.parametrize("kind", REAL_KINDS)
def test_what_comfyuis_own_nodes_make_is_an_output(connector: ComfyConnector, kind: str) -> None:
    graph, expected = REAL_KINDS[kind]
    outputs = made(connector, graph, "2")
    assert [(output.kind, output.subfolder, output.content_type) for output in outputs] == expected
    assert all(output.size_bytes > 0 for output in outputs)


@real_only
def test_a_previewed_model_is_the_file_that_its_path_names(connector: ComfyConnector, folder: Path) -> None:
    graph = {"2": {"class_type": "Preview3D", "inputs": {"model_file": "mesh/shown.glb"}}}
    [output] = made(connector, graph, "2", files={folder / "output" / "mesh" / "shown.glb": b"glTF"})
    assert (output.name, output.subfolder, output.read()) == ("shown.glb", "mesh", b"glTF")


@real_only
def test_a_failure_inside_an_expansion_is_told_by_the_node_that_was_submitted(connector: ComfyConnector) -> None:
    graph = {"2": {"class_type": "ExpandToFrames", "inputs": {"prefix": "../outside"}}}
    with pytest.raises(NodeExecutionError, match=r"Node 2 \(ExpandToFrames\) raised Exception") as raised:
        connector.run(graph)
    assert (raised.value.details["node_id"], raised.value.details["class_type"]) == ("2", "ExpandToFrames")


def test_frames_are_pictures(connector: ComfyConnector) -> None:
    graph = {"1": image(), "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    [frame] = made(connector, graph, "2")
    with frame.open() as stream, Image.open(stream) as picture:
        assert picture.size == (16, 8)
