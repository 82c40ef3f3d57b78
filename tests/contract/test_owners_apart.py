"""No node of the engine can be made to deliver, move, read or remove what is not the job's own.

Every class that the engine declares is given, in every input that takes one, references and names of files of another
job, of the operator and of ComfyUI itself: plainly, by a link, and nested. Against a real ComfyUI with COMFYUI_DIR.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.connector.progress import Progress
from comfy_serverless.errors import ComfyError
from tests.contract.engines import REAL_COMFYUI
from tests.contract.shared_worker import SharedWorker

#: The colour of the pictures that are not the job's: one that nothing here paints.
FOREIGN = (201, 3, 77)
SECRET = b"a secret of somebody else"
#: Where files of others are, below ComfyUI's folder. Those in `input` are the operator's, who shows them to all; as
#: the file that they are nobody gets them.
CANARIES = (
    *("output/old.png", "output/deep/old.png", "output/comfy-serverless/alice-1/kept_00001_.png", "temp/old.png"),
    *("input/shared.png", "output/old.txt", "temp/old.glb", "output/old.latent", "output/deep/old.safetensors"),
    *(".env", "user/comfy.settings.json", "custom_nodes/old.txt", "input/3d/shared.glb"),
)
STRINGS = (
    *("old.png", "deep/old.png", "output/old.png", "old.png [output]", "old.png [temp]", "old.latent [output]"),
    *("comfy-serverless/alice-1/kept_00001_.png", "comfy-serverless/alice-1/kept_00001_.png [output]"),
    *("../.env", "../output/old.png", "../temp/old.png", "old.glb", "temp/old.glb", "{base}/.env"),
    *("{base}/output/old.png", "comfy-serverless", "deep", "../output"),
)
#: What makes a value of a type; a class with an input of any other type is given the reference itself.
MAKERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "IMAGE": ("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0}),
    "MASK": ("SolidMask", {"value": 1.0, "width": 8, "height": 8}),
    "LATENT": ("EmptyLatentImage", {"width": 16, "height": 16, "batch_size": 1}),
    "AUDIO": ("EmptyAudio", {"duration": 0.1, "sample_rate": 44100, "channels": 2}),
}
#: Too slow or too loud for a test of thousands of jobs: they call a service, or compute for long.
LEFT_OUT = ("ContractSleep", "ContractRaise", "ContractBadUI", "ContractValidate")


def references(name: str) -> list[Any]:
    """The ways to refer to a file, as nodes show them."""
    folder, _, rest = name.partition("/")
    subfolder, _, base = rest.rpartition("/")
    kinds = [folder] if folder in ("output", "temp", "input") else ["output", "temp", "input"]
    plain = [{"filename": base or folder, "subfolder": subfolder, "type": kind} for kind in kinds]
    plain += [{"filename": Path(name).name, "subfolder": f"../{Path(name).parent}", "type": kind} for kind in kinds]
    return plain


REFERENCES = [reference for name in CANARIES for reference in references(name)]


class World:
    """The engine, and what is there that is nobody's business."""

    def __init__(self, base: Path) -> None:
        self.worker = SharedWorker(base)
        self.base = base
        for name in CANARIES:
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.new("RGB", (8, 8), FOREIGN).save(path)
            else:
                path.write_bytes(SECRET + b" in " + name.encode())
            os.utime(path, (1_700_000_000,) * 2)
        self.states = {name: self._state(name) for name in CANARIES}
        self.contents = {(base / name).read_bytes() for name in CANARIES}
        self.classes: dict[str, Any] = self.worker.connector._engine.client.object_info()

    def _state(self, name: str) -> tuple[int, int, int]:
        state = (self.base / name).stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    def faults(self, graph: Mapping[str, Any]) -> list[str]:
        """Run a job, and say what it got or did that it must not."""
        outcome, made = self.worker.contents(graph, deadline_s=20)
        faults = [f"got {name}" for name, content in made.items() if self._is_foreign(content, name)]
        for name in CANARIES:
            if not (self.base / name).exists():
                faults.append(f"removed {name}")
            elif self._state(name) != self.states[name]:
                faults.append(f"changed {name}")
        left = self.worker.files("output", "temp") - set(CANARIES)
        faults += [f"left {name}" for name in left]
        return [f"{fault} ({outcome.job.status})" for fault in faults]

    def _is_foreign(self, content: bytes, name: str) -> bool:
        if content in self.contents or SECRET in content:
            return True
        try:
            with Image.open(io.BytesIO(content)) as image:
                return image.convert("RGB").getpixel((0, 0)) == FOREIGN
        except OSError:
            return False

    def graphs(self, class_type: str) -> Iterator[dict[str, Any]]:
        """Jobs in which each input of a class that takes one has a reference."""
        declared = self.classes[class_type]["input"]
        inputs = {**declared.get("required", {}), **(declared.get("optional") or {})}
        values: dict[str, Any] = {}
        bare: list[tuple[str, Any]] = []
        graph: dict[str, Any] = {}
        for name, spec in inputs.items():
            kind = spec[0] if spec else "*"
            options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
            maker = next((MAKERS[part] for part in str(kind).split(",") if part in MAKERS), None)
            if maker and maker[0] in self.classes:
                graph[f"m{name}"] = {"class_type": maker[0], "inputs": maker[1]}
                values[name] = [f"m{name}", 0]
            elif kind in ("INT", "FLOAT", "BOOLEAN"):
                values[name] = options.get("default", 1 if kind != "BOOLEAN" else True)
            else:
                choices = kind if isinstance(kind, list) else options.get("options") or [""]
                values[name] = options.get("default", choices[0] if choices else "")
                bare.append((name, kind))
        graph |= self._savers(class_type)
        for name, kind in bare:
            is_text = kind in ("STRING", "COMBO") or isinstance(kind, list) or "STRING" in str(kind)
            for given in self._given(is_text=is_text):
                yield graph | {"1": {"class_type": class_type, "inputs": {**values, name: given}}}
            if is_text and "PrimitiveString" in self.classes:
                for text in STRINGS[::3]:
                    constant = {"class_type": "PrimitiveString", "inputs": {"value": self._text(text)}}
                    node = {"class_type": class_type, "inputs": {**values, name: ["p", 0]}}
                    yield graph | {"1": node, "p": constant}

    def _given(self, *, is_text: bool) -> Iterator[Any]:
        if is_text:
            yield from map(self._text, STRINGS)
        else:
            # All at once: a node shows what it was given, whatever it is.
            yield {"x": REFERENCES, **REFERENCES[0]}
            yield [REFERENCES]
            yield {"__value__": REFERENCES}

    def _text(self, text: str) -> str:
        return text.replace("{base}", str(self.base))

    def _savers(self, class_type: str) -> dict[str, Any]:
        """Nodes that deliver what the class gives."""
        savers: dict[str, Any] = {}
        for slot, kind in enumerate(self.classes[class_type].get("output") or ()):
            link = ["1", slot]
            if kind == "IMAGE":
                savers[f"s{slot}"] = {"class_type": "SaveImage", "inputs": {"images": link, "filename_prefix": "x"}}
            elif "PreviewAny" in self.classes:
                savers[f"s{slot}"] = {"class_type": "PreviewAny", "inputs": {"source": link}}
        return savers


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("engine") / "ComfyUI")
    yield world
    world.worker.close()


@pytest.mark.timeout(3600)
def test_no_class_can_be_made_to_touch_what_is_not_the_jobs(world: World) -> None:
    faults: dict[str, list[str]] = {}
    jobs = 0
    for class_type, declared in sorted(world.classes.items()):
        if class_type in LEFT_OUT or declared.get("api_node"):
            continue
        for graph in world.graphs(class_type):
            jobs += 1
            if found := world.faults(graph):
                faults.setdefault(class_type, []).append(f"{graph['1']['inputs']}: {found}")
    assert faults == {}
    print(f"{jobs} jobs over {len(world.classes)} classes")
    assert jobs > (5000 if REAL_COMFYUI else 300)


def test_the_canaries_would_be_found(world: World) -> None:
    """The test above can fail: what is delivered whole, or as a picture, is recognised."""
    assert world._is_foreign((world.base / "output/old.txt").read_bytes(), "")
    painted = io.BytesIO()
    Image.new("RGBA", (8, 8), (*FOREIGN, 255)).save(painted, "WEBP", lossless=True)
    assert world._is_foreign(painted.getvalue(), "")
    assert not world._is_foreign(b"anything else", "")


def a_job_with_a_photo() -> dict[str, Any]:
    photo = io.BytesIO()
    Image.new("RGB", (8, 8), FOREIGN).save(photo, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(photo.getvalue()).decode()}"
    return {
        "10": {"class_type": "LoadImage", "inputs": {"image": address}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "x"}},
    }


def a_job_that_takes_a_folder(world: World) -> dict[str, Any]:
    """All pictures of a folder, by a node of ComfyUI's own: its name differs between versions."""
    listing = next(name for name, said in world.classes.items() if "folder" in (said["input"].get("required") or {}))
    return {
        "1": {"class_type": listing, "inputs": {"folder": "comfy-serverless", "resize_method": "None"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "loot"}},
    }


def test_the_inputs_of_one_owner_are_in_no_folder_that_a_job_of_another_can_list(world: World) -> None:
    outcome, made = world.worker.contents(a_job_with_a_photo(), owner="alice")
    assert outcome.error is None
    assert len(made) == 1
    assert world.worker.files("input") == {name for name in CANARIES if name.startswith("input/")}
    if REAL_COMFYUI:
        assert world.faults(a_job_that_takes_a_folder(world)) == []


def test_what_a_node_of_a_pack_has_read_for_one_owner_comfyui_does_not_recall_for_another(world: World) -> None:
    lists = {
        "1": {"class_type": "FolderOfAPack", "inputs": {"directory": "comfy-serverless"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    _, hers = world.worker.contents(a_job_with_a_photo() | lists, owner="alice")
    assert any(name.startswith("2/") and b".png" in content for name, content in hers.items())
    _, again = world.worker.contents(lists, owner="bob")
    assert list(again.values()) == [b""]


@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine has no such class")
def test_what_comfyuis_own_node_has_read_from_a_folder_is_not_recalled_for_the_next_job(world: World) -> None:
    takes_all = a_job_that_takes_a_folder(world)
    outcome, hers = world.worker.contents(a_job_with_a_photo() | takes_all, owner="alice")
    assert outcome.error is None
    assert any(name.startswith("2/") for name in hers)
    for owner in ("alice", "bob"):
        assert world.worker.contents(takes_all, owner=owner)[1] == {}


@pytest.mark.parametrize("parts", [("../../..", "/canary"), ("..", "/../canary"), ("{base}", "/output/canary")])
@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("SaveImage", "filename_prefix"),
        *(("SaveImageDataSetToFolder", name) for name in ("folder_name", "filename_prefix")),
        *(("SaveImageTextDataSetToFolder", name) for name in ("folder_name", "filename_prefix")),
    ],
)
@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine makes no texts")
def test_a_name_to_write_to_that_is_made_while_the_job_runs_leads_to_nothing_of_others(
    world: World, class_type: str, name: str, parts: tuple[str, str]
) -> None:
    if class_type not in world.classes:
        pytest.skip(f"this ComfyUI has no {class_type}")
    folder = world.base / "output" / "canary"
    folder.mkdir(exist_ok=True)
    there = {folder / file for file in ("image_00000.png", "image_00000.txt", "image_00001_.png")}
    for file in there:
        file.write_bytes(SECRET)
    time.sleep(0.1)  # what comes with the beginning of a job is its own
    before = world.worker.files("input", "output", "temp", "user")
    texts = dict(zip(("string_a", "string_b"), (part.format(base=world.base) for part in parts), strict=True))
    if name != "folder_name":
        texts["string_b"] += "/image"
    names = {"folder_name": "set", "filename_prefix": "image", name: ["joined", 0]}
    takes = world.classes[class_type]["input"]["required"]
    graph: dict[str, Any] = {
        "joined": {"class_type": "StringConcatenate", "inputs": {**texts, "delimiter": ""}},
        "picture": {"class_type": "EmptyImage", "inputs": MAKERS["IMAGE"][1]},
        "1": {
            "class_type": class_type,
            "inputs": {"images": ["picture", 0], **{key: value for key, value in names.items() if key in takes}},
        },
    }
    if "mode" in takes:
        graph["1"]["inputs"]["mode"] = "overwrite"
    _, made = world.worker.contents(graph, owner="bob")
    assert SECRET not in made.values()
    assert {file.read_bytes() for file in there} == {SECRET}
    assert world.worker.files("input", "output", "temp", "user") == before
    shutil.rmtree(folder)


@pytest.mark.parametrize("hands_on", ["ComfySwitchNode", "CreateList"])
@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine makes no texts")
def test_a_loader_reads_nothing_of_others_by_a_name_that_nodes_hand_on(world: World, hands_on: str) -> None:
    if "Load3D" not in world.classes or hands_on not in world.classes:
        pytest.skip("this ComfyUI has no such class")
    pictures = {**dict.fromkeys(("image", "mask", "normal"), "shared.png"), "camera_info": None, "recording": ""}
    values = {"switch": True, "on_true": ["joined", 0], "on_false": ["joined", 0]}
    graph = {
        "joined": {
            "class_type": "StringConcatenate",
            "inputs": {"string_a": "old.glb [te", "string_b": "mp]", "delimiter": ""},
        },
        "on": {
            "class_type": hands_on,
            "inputs": values if hands_on == "ComfySwitchNode" else {"inputs.input0": ["joined", 0]},
        },
        "1": {
            "class_type": "Load3D",
            "inputs": {"model_file": ["on", 0], "image": pictures, "width": 8, "height": 8},
        },
        "2": {"class_type": "SaveGLB", "inputs": {"mesh": ["1", 6], "filename_prefix": "loot"}},
    }
    assert world.faults(graph) == []


@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine makes no texts")
def test_nodes_that_keep_a_name_in_the_jobs_folder_are_told_to_nobody(world: World) -> None:
    graph = {
        "joined": {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": "b", "delimiter": "-"}},
        "picture": {"class_type": "EmptyImage", "inputs": MAKERS["IMAGE"][1]},
        "1": {"class_type": "SaveImage", "inputs": {"images": ["picture", 0], "filename_prefix": ["joined", 0]}},
    }
    for _ in range(2):
        told: list[Progress] = []
        with world.worker.connector.hold_folders(lambda: None, owner="bob"):
            run = world.worker.connector.run(
                graph, apart_as=str(uuid.uuid4()), recalls_as="bob", on_progress=told.append
            )
        assert {progress.nodes_total for progress in told} == {len(graph)}
        assert {progress.current_node for progress in told} <= {None, *graph}
        assert told[-1].done == graph.keys()
        assert set(run.cached_nodes) | set(run.timings.node_ms) == graph.keys()
    assert set(run.cached_nodes) == {"joined", "picture"}


@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine makes no texts")
@pytest.mark.parametrize("link", [["picture", 0], ["joined", 4], ["handed", 0]])
def test_errors_of_those_nodes_are_told_as_the_savers(world: World, link: list[Any]) -> None:
    if "ComfySwitchNode" not in world.classes:
        pytest.skip("this ComfyUI has no node that hands on what it is given")
    graph = {
        "number": {"class_type": "PrimitiveInt", "inputs": {"value": 3}},
        "handed": {
            "class_type": "ComfySwitchNode",
            "inputs": {"switch": True, "on_true": ["number", 0], "on_false": ["number", 0]},
        },
        "joined": {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": "b", "delimiter": "-"}},
        "picture": {"class_type": "EmptyImage", "inputs": MAKERS["IMAGE"][1]},
        "1": {"class_type": "SaveImage", "inputs": {"images": ["picture", 0], "filename_prefix": link}},
    }
    connector = world.worker.connector
    with connector.hold_folders(lambda: None, owner="bob"), pytest.raises(ComfyError, match="Node 1 ") as failed:
        connector.run(graph, apart_as=str(uuid.uuid4()), recalls_as="bob")
    told = f"{failed.value} {failed.value.details.get('node_id')} {[*failed.value.details.get('node_errors', ())]}"
    assert "1.name" not in told
    assert "1.folder" not in told
