"""Requests that are sent only by mistake: the engine must treat them as ComfyUI does."""

from __future__ import annotations

import io
import json
import mimetypes
import time
import uuid
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_lite import prompt_queue
from comfy_lite.execution import Executor
from comfy_lite.node import Directories, NodeResult, NodeType
from comfy_lite.releases import NEWEST
from comfy_lite.run import Engine, Interrupts
from tests.contract.engines import EngineProcess, StartEngine
from tests.patience import PATIENCE_S

EMPTY: dict[str, Any] = {
    "class_type": "EmptyImage",
    "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255},
}
SHOW = {"class_type": "PreviewAny", "inputs": {"source": "a"}}
FINISH_TIMEOUT_S = 120.0


def save(source: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": "odd", **inputs}}


def submit(engine: EngineProcess, prompt: dict[str, Any], **body: Any) -> str:
    answer = requests.post(f"{engine.url}/prompt", json={"prompt": prompt, **body}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prompt_id"])


def run(engine: EngineProcess, prompt: dict[str, Any], **body: Any) -> dict[str, Any]:
    """The history of a prompt, once it has ended."""
    prompt_id = submit(engine, prompt, **body)
    deadline = time.monotonic() + FINISH_TIMEOUT_S
    while time.monotonic() < deadline:
        history = requests.get(f"{engine.url}/history/{prompt_id}", timeout=PATIENCE_S).json()
        if history:
            return dict(history[prompt_id])
        time.sleep(0.02)
    raise AssertionError("the prompt did not end")


def failure(entry: dict[str, Any]) -> dict[str, Any]:
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    return dict(data)


def upload(engine: EngineProcess, route: str = "image", *, content: bytes = b"x", **fields: str) -> requests.Response:
    name = fields.pop("name", "a.png")
    return requests.post(
        f"{engine.url}/upload/{route}", files={"image": (name, content)}, data=fields, timeout=PATIENCE_S
    )


def test_a_link_in_an_undeclared_input_fails_its_node(engine: EngineProcess) -> None:
    error = failure(run(engine, {"1": EMPTY, "2": save("1", extra=["1", 0])}))
    assert (error["node_id"], error["exception_type"]) == ("2", "TypeError")
    assert "unexpected keyword argument 'extra'" in error["exception_message"]


def test_a_value_in_an_undeclared_input_is_ignored(engine: EngineProcess) -> None:
    assert run(engine, {"1": EMPTY, "2": save("1", extra=5)})["status"]["status_str"] == "success"


def test_a_failure_shows_all_that_the_node_received(engine: EngineProcess) -> None:
    prompt = {"1": EMPTY, "2": save("1", filename_prefix="../out")}
    inputs = failure(run(engine, prompt, extra_data={"extra_pnginfo": {"workflow": 1}}))["current_inputs"]
    assert inputs.pop("images")[0].startswith("tensor([[[[0., 0., 1.],\n")
    assert inputs == {"filename_prefix": ["../out"], "prompt": [str(prompt)], "extra_pnginfo": ["{'workflow': 1}"]}


@pytest.mark.parametrize(("pnginfo", "kind"), [("text", "TypeError"), (0, "TypeError"), ([1], "IndexError")])
def test_metadata_that_is_no_mapping_fails_the_node(engine: EngineProcess, pnginfo: object, kind: str) -> None:
    entry = run(engine, {"1": EMPTY, "2": save("1")}, extra_data={"extra_pnginfo": pnginfo})
    assert failure(entry)["exception_type"] == kind


@pytest.mark.parametrize("pnginfo", [None, {}, [], ""])
def test_empty_metadata_is_none(engine: EngineProcess, pnginfo: object) -> None:
    entry = run(engine, {"1": EMPTY, "2": save("1")}, extra_data={"extra_pnginfo": pnginfo})
    assert entry["status"]["status_str"] == "success"


def test_true_is_the_slot_one(engine: EngineProcess) -> None:
    content = io.BytesIO()
    Image.new("RGBA", (4, 4), (9, 9, 9, 64)).save(content, "PNG")
    upload(engine, content=content.getvalue()).raise_for_status()
    load = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    to_image = {"class_type": "MaskToImage", "inputs": {"mask": ["1", True]}}
    entry = run(engine, {"1": load, "2": to_image, "3": save("2")})
    with Image.open(engine.folder("output") / entry["outputs"]["3"]["images"][0]["filename"]) as saved:
        assert saved.getpixel((0, 0)) == (191, 191, 191)


def test_two_outputs_of_a_node_are_not_taken_for_one(engine: EngineProcess) -> None:
    pad = {"image": ["empty", 0], "left": 0, "top": 0, "right": 0, "bottom": 0, "feathering": 0}
    shows = {str(slot): {"class_type": "PreviewAny", "inputs": {"source": ["pad", slot]}} for slot in (0, 1)}
    entry = run(engine, {"empty": EMPTY, "pad": {"class_type": "ImagePadForOutpaint", "inputs": pad}, **shows})
    assert entry["outputs"]["0"]["text"] != entry["outputs"]["1"]["text"]


def test_a_cycle_at_run_time_is_judged_by_the_node_that_ran_before_it(engine: EngineProcess) -> None:
    assert run(engine, {"1": EMPTY, "2": save("1", filename_prefix="../out")})["status"]["status_str"] == "error"
    cycle = {"1": {**EMPTY, "inputs": {**EMPTY["inputs"], "extra": ["2", 0]}}, "2": save("1")}
    assert run(engine, cycle)["status"]["status_str"] == "error"
    entry = run(engine, {"3": SHOW, **cycle})
    assert entry["status"]["status_str"] == "success"
    assert failure(entry)["exception_message"] == "Dependency cycle detected"


def test_a_chain_of_900_nodes_is_accepted(engine: EngineProcess) -> None:
    chain = {"0": EMPTY}
    chain |= {str(n): {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1), 0]}} for n in range(1, 900)}
    submit(engine, {**chain, "s": save("899")})


def test_the_history_forgets_only_what_is_named_exactly(engine: EngineProcess) -> None:
    job_id = str(uuid.uuid4())
    run(engine, {"1": SHOW}, prompt_id=job_id)
    requests.post(
        f"{engine.url}/history", json={"delete": [42, None, job_id[:-1]]}, timeout=PATIENCE_S
    ).raise_for_status()
    assert requests.get(f"{engine.url}/history/{job_id}", timeout=PATIENCE_S).json()
    requests.post(f"{engine.url}/history", json={"delete": [job_id]}, timeout=PATIENCE_S).raise_for_status()
    assert requests.get(f"{engine.url}/history/{job_id}", timeout=PATIENCE_S).json() == {}


def test_a_mask_may_name_its_original_with_its_folder(engine: EngineProcess) -> None:
    content = io.BytesIO()
    Image.new("RGBA", (4, 4), (9, 9, 9, 64)).save(content, "PNG")
    upload(engine, name="deep.png", subfolder="sub", content=content.getvalue()).raise_for_status()
    reference = json.dumps({"filename": "sub/deep.png", "type": "input"})
    answer = upload(engine, "mask", name="masked.png", content=content.getvalue(), original_ref=reference)
    assert answer.json()["name"] == "masked.png"
    assert (engine.folder("input") / "masked.png").exists()
    assert requests.get(f"{engine.url}/view?filename=sub/deep.png&type=input", timeout=PATIENCE_S).status_code == 404


def test_a_masked_picture_keeps_the_texts_of_its_original(engine: EngineProcess) -> None:
    content, info = io.BytesIO(), PngInfo()
    info.add_text("workflow", "{}")
    Image.new("RGB", (4, 4)).save(content, "PNG", pnginfo=info)
    upload(engine, name="original.png", content=content.getvalue()).raise_for_status()
    reference = json.dumps({"filename": "original.png", "type": "input"})
    upload(engine, "mask", name="masked.png", content=content.getvalue(), original_ref=reference).raise_for_status()
    with Image.open(engine.folder("input") / "masked.png") as masked:
        assert (masked.mode, masked.info["workflow"]) == ("RGBA", "{}")


def test_uploads_that_make_no_sense_are_answered_500(engine: EngineProcess) -> None:
    upload(engine, name="twice.png", content=b"1").raise_for_status()
    (engine.folder("input") / "folder.png").mkdir()
    nowhere = json.dumps({"filename": "twice.png", "type": "input", "subfolder": None})
    assert upload(engine, name="folder.png").status_code == 500
    assert upload(engine, "mask", name="m.png", original_ref=nowhere).status_code == 500
    bogus = requests.post(f"{engine.url}/upload/image", data={"type": "bogus"}, timeout=PATIENCE_S)
    assert bogus.status_code == 500


@pytest.mark.parametrize("name", ["a.flac", "a.mkv", "a.glb", "a.png", "a.unknown"])
def test_a_file_is_sent_with_the_type_this_machine_knows(engine: EngineProcess, name: str) -> None:
    (engine.folder("output") / name).write_bytes(b"x")
    answer = requests.get(f"{engine.url}/view?filename={name}", timeout=PATIENCE_S)
    assert answer.headers["Content-Type"] == (mimetypes.guess_type(name)[0] or "application/octet-stream")


def test_folders_may_be_given_with_dots(start_engine: StartEngine, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    engine: EngineProcess = start_engine("--input-directory", str(tmp_path / "x" / ".." / "in"))
    assert upload(engine, subfolder="sub").status_code == 200
    assert (tmp_path / "in" / "sub" / "a.png").read_bytes() == b"x"
    assert (
        requests.get(f"{engine.url}/view?filename=a.png&subfolder=sub&type=input", timeout=PATIENCE_S).content == b"x"
    )


def test_the_history_drops_the_oldest_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_queue, "_LONGEST_HISTORY", 3)
    queue = prompt_queue.PromptQueue(on_change=Mock())
    for number in range(5):
        queue.put((number, f"id-{number}", {}, {}, []))
        taken = queue.get(timeout_s=0)
        assert taken is not None
        queue.finish(taken[0], prompt_queue.Outcome({}, {}, {}))
    assert list(queue.history()) == ["id-2", "id-3", "id-4"]


def test_a_node_cannot_change_what_the_cache_holds(tmp_path: Path) -> None:
    def spoil(_: object, *, image: np.ndarray) -> NodeResult:
        image[...] = 1
        return NodeResult()

    make = NodeType("Make", None, "", lambda _: NodeResult((np.zeros((1, 2, 2, 3), np.float32),)), returns=("IMAGE",))
    nodes = {"Make": make, "Spoil": NodeType("Spoil", None, "", spoil, required={"image": ("IMAGE",)}, is_output=True)}
    engine = Engine(
        nodes=nodes,
        directories=Directories(tmp_path, tmp_path, tmp_path),
        messages=Mock(),
        interrupts=Interrupts(),
        faults=Mock(),
        step_s=0,
        previews=False,
        release=NEWEST,
    )
    prompt = {"1": {"class_type": "Make", "inputs": {}}, "2": {"class_type": "Spoil", "inputs": {"image": ["1", 0]}}}
    outcome = Executor(engine).execute((0, "id", prompt, {}, ["2"]))
    _, error = outcome.status["messages"][-1]
    assert error["exception_message"] == "assignment destination is read-only\n"


def test_the_places_of_models_are_told(engine: EngineProcess) -> None:
    places = requests.get(f"{engine.url}/experiment/models", timeout=PATIENCE_S).json()
    names = [entry["name"] for entry in places]
    assert names[:5] == ["checkpoints", "loras", "vae", "text_encoders", "diffusion_models"]
    assert {"configs", "custom_nodes"}.isdisjoint(names)
    assert all(isinstance(folder, str) for entry in places for folder in entry["folders"])
