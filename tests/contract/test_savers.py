"""Whatever a node saves below ComfyUI's folders is delivered, also if it says nothing; what it does not is told."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.engines import REAL_COMFYUI
from tests.contract.saver_nodes import BREAKS, CACHES, SAVES, TRICKS, content_of
from tests.contract.shared_worker import SharedWorker
from tests.contract.tiny_models import CHECKPOINT


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorker]:
    worker = SharedWorker(tmp_path_factory.mktemp("engine") / "ComfyUI")
    (worker.base / "input" / "operators.png").write_bytes(b"for all")
    yield worker
    worker.close()


def saver(saves: str) -> dict[str, Any]:
    return {"2": {"class_type": "SaverOfAPack", "inputs": {"saves": saves, "filename_prefix": "fox"}}}


FILES = {
    **{saves: ["fox.bin"] for saves in SAVES},
    "under any name": ["20261129_121500.bin"],
    "with a caption": ["fox.bin", "fox.txt"],
    "under odd names": ["fox\n2.bin", " fox\x1b[31m.bin", "-fox.bin", "fox\u202e.bin", "..fox.bin"],
    **{saves: ["latest.bin"] for saves in ("always in the same place", "in the same place again later")},
    **{saves: [] for saves in ("elsewhere", "by an upload of its own", "nothing")},
}
WARNINGS = {
    "elsewhere": "Node 2 (SaverOfAPack) names '",
    "by an upload of its own": "Node 2 (SaverOfAPack) names 'out/fox.bin' (output), which this run has not made",
    "nothing": "Node 2 (SaverOfAPack) has run and left nothing",
}


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("saves", SAVES)
def test_every_file_is_delivered_and_what_is_no_file_of_the_run_is_a_warning(
    worker: SharedWorker, saves: str, again: bool
) -> None:
    before = worker.files("input", "output", "temp")
    outcome, made = worker.contents(saver(saves))
    assert outcome.error is None
    assert made == {f"2/{name}": content_of("fox") for name in FILES[saves]}
    if saves in WARNINGS:
        [warning] = outcome.job.warnings
        assert warning.startswith(WARNINGS[saves])
    else:
        assert outcome.job.warnings == ()
    assert worker.files("input", "output", "temp") == before, "the next owner's job would find it"


def test_two_nodes_that_save_in_the_same_place_have_each_what_they_saved(worker: SharedWorker) -> None:
    before = worker.files("input", "output", "temp")
    second = {"class_type": "SaverOfAPack", "inputs": {"saves": "always in the same place", "filename_prefix": "hen"}}
    outcome, made = worker.contents(saver("always in the same place") | {"3": second})
    assert outcome.error is None
    # Either may run first. Where the other came before that was told of, both have what is in the folder at the end.
    fox, hen = made["2/latest.bin"], made["3/latest.bin"]
    assert fox == content_of("fox") or hen == content_of("hen")
    assert {fox, hen} <= {content_of("fox"), content_of("hen")}
    assert worker.files("input", "output", "temp") == before


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_makes_a_foreign_file_the_runs(worker: SharedWorker, trick: str) -> None:
    foreign = [worker.base / folder / "foreign.txt" for folder in ("user", "output")]
    for file in foreign:
        file.write_bytes(b"foreign")
    time.sleep(0.05)  # what comes with the beginning of a job is its own
    outcome, made = worker.contents(saver(trick))
    assert outcome.error is None
    assert made == {}
    [warning] = outcome.job.warnings
    assert "which this run has not made" in warning
    assert foreign[0].read_bytes() == b"foreign"
    moved = worker.base / "output" / "fox.txt"
    assert [file.read_bytes() for file in (foreign[1], moved) if file.exists()] == [b"foreign"]
    assert not (worker.base / "output" / "deep").is_symlink()
    for file in (*foreign, moved, foreign[0].with_name("new.txt")):
        file.unlink(missing_ok=True)


def test_what_a_thread_writes_after_an_owners_job_is_not_there_in_another_ones(worker: SharedWorker) -> None:
    worker.contents(saver("silently"), owner="alice")
    late = [worker.base / "output" / "late.bin", worker.base / "output" / "deep" / "late.bin"]
    late[1].parent.mkdir(exist_ok=True)
    for path in late:  # as a thread of a node's would, that nobody waits for any more
        path.write_bytes(b"alice's")
    time.sleep(0.1)  # or they would be of the moment in which the next job begins
    worker.contents(saver("silently"), owner="alice")
    assert all(path.is_file() for path in late)
    _, made = worker.contents(saver("silently"), owner="bob")
    assert not any(path.exists() for path in late)
    assert b"alice's" not in made.values()


def test_what_a_node_writes_on_and_on_is_not_another_owners_whose_nodes_save_in_their_folder_alone(
    worker: SharedWorker,
) -> None:
    before = worker.files("output", "temp")
    outcome, _ = worker.contents(saver("on and on"), owner="alice")
    assert outcome.error is None
    picture = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}}
    saves = {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "hen"}}}
    shows = {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    came = []
    for _ in range(5):
        outcome, made = worker.contents(picture | saves | shows, owner="bob")
        assert outcome.error is None
        assert {name.partition("/")[0] for name in made} == {"2", "3"}
        assert len(made) == 2
        assert content_of("fox") not in made.values()
        came.append(worker.files("output", "temp") - before)
    time.sleep(5)
    worker.contents(picture | saves, owner="carol")
    assert worker.files("output", "temp") == before
    assert not any(name for names in came for name in names if "hen" in name)


def plain(class_type: str, value: str, *, count: int = 2, **inputs: Any) -> dict[str, Any]:
    """A node of ComfyUI's own that saves so many pictures, or what has no picture."""
    pictures = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": count, "color": 0}}
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    checkpoint = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": Path(CHECKPOINT).name}}
    video = {"class_type": "CreateVideo", "inputs": {"images": ["images", 0], "fps": 8.0}}
    audio = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}}
    made = {"images": pictures, "samples": latent, "vae": checkpoint, "video": video, "audio": audio}
    made["image_a"] = pictures
    needed = {value: made[value]} | ({"images": pictures} if value == "video" else {})
    return needed | {"2": {"class_type": class_type, "inputs": {value: [value, 2 if value == "vae" else 0], **inputs}}}


def viewer(class_type: str, value: str, **inputs: Any) -> dict[str, Any]:
    """A node of ComfyUI's own that shows a model, which it saves under a name of its own."""
    model = base64.b64encode(b'glTF\2\0\0\0\44\0\0\0\20\0\0\0JSON{"asset":{}}    ').decode()
    view = {"viewport_state": {}, "width": 64, "height": 64}
    loader = {"model_file": f"data:model/gltf-binary;base64,{model}", **view}
    return {
        "model": {"class_type": "Load3DAdvanced", "inputs": loader},
        "2": {"class_type": class_type, "inputs": {value: ["model", 0], **inputs}},
    }


PREFIX: dict[str, Any] = {"filename_prefix": "a/hen"}
PLAIN = {
    "SaveImage": (plain("SaveImage", "images", **PREFIX), 2),
    "PreviewImage": (plain("PreviewImage", "images"), 2),
    "SaveLatent": (plain("SaveLatent", "samples", **PREFIX), 1),
    "SaveAnimatedWEBP": (
        plain("SaveAnimatedWEBP", "images", fps=8.0, lossless=True, quality=80, method="default", **PREFIX),
        1,
    ),
    "SaveAnimatedPNG": (plain("SaveAnimatedPNG", "images", fps=8.0, compress_level=4, **PREFIX), 1),
    "SaveWEBM": (plain("SaveWEBM", "images", codec="vp9", fps=8.0, crf=32.0, **PREFIX), 1),
    "SaveVideo": (plain("SaveVideo", "video", format="mp4", codec="h264", **PREFIX), 1),
    "SaveAudio": (plain("SaveAudio", "audio", **PREFIX), 1),
    "PreviewAudio": (plain("PreviewAudio", "audio"), 1),
    "VAESave": (plain("VAESave", "vae", **PREFIX), 1),
    "SaveImageDataSetToFolder": (
        plain("SaveImageDataSetToFolder", "images", count=1, folder_name="set", filename_prefix="hen"),
        1,
    ),
    "ImageCompare": (plain("ImageCompare", "image_a", compare_view={}, count=1), 1),
    "Preview3D": (viewer("Preview3D", "model_file"), 1),
    "Preview3DAdvanced": (viewer("Preview3DAdvanced", "model_3d", viewport_state={}, width=64, height=64), 2),
}


@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine has few of these classes")
@pytest.mark.parametrize("class_type", PLAIN)
def test_what_comfyuis_own_nodes_save_is_delivered_also_after_another_owners_pack(
    worker: SharedWorker, class_type: str
) -> None:
    worker.contents(saver("without making folders"), owner="alice")
    graph, count = PLAIN[class_type]
    declared = worker.connector._engine.all_declared.object_info()
    if any(node["class_type"] not in declared for node in graph.values()):
        pytest.skip("this ComfyUI has no such class")
    for name, said in declared[class_type]["input"]["required"].items():
        if name not in graph["2"]["inputs"]:  # some releases have more
            more = said[1] if len(said) > 1 else {}
            graph["2"]["inputs"][name] = more.get("default") or (more.get("options") or said[0])[0]
    outcome, made = worker.contents(graph, owner="bob")
    assert outcome.error is None
    assert outcome.job.warnings == ()
    assert len(made) == count, made.keys()
    if "model" in graph:  # what is not taken is shown as a text
        assert any(name.endswith(".glb") for name in made), made.keys()


@pytest.mark.parametrize("cache", CACHES)
def test_what_a_node_puts_into_the_input_folder_is_in_no_job_of_another_owner(worker: SharedWorker, cache: str) -> None:
    def listed(owner: str) -> set[str]:
        lists = {"1": {"class_type": "FolderOfAPack", "inputs": {"directory": "."}}}
        shows = {"2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
        outcome, made = worker.contents(lists | shows, owner=owner)
        assert outcome.error is None
        return {name for content in made.values() for name in content.decode().split("\n")}

    before = listed("bob")
    assert "operators.png" in before
    assert worker.contents(saver(cache), owner="alice")[0].error is None
    [hers] = listed("alice") - before
    assert hers.endswith("fox.png"), "packs find there what they have kept for the owner's next job"
    assert listed("bob") == before
    assert listed("alice") == before


def test_comfyuis_lists_of_files_name_nothing_that_a_node_of_another_owner_has_put_there(worker: SharedWorker) -> None:
    named = []
    for owner in ("alice", "bob"):
        saves = "a picture for the next job" if owner == "alice" else "silently"
        assert worker.contents(saver(saves), owner=owner)[0].error is None
        said = str(worker.connector.declarations(["LoadImage"]))
        assert "operators.png" in said
        named.append("fox.png" in said)
    assert named == [True, False]


@pytest.mark.parametrize("breaks", BREAKS)
def test_a_folder_that_a_node_takes_away_is_there_for_the_next_job(worker: SharedWorker, breaks: str) -> None:
    before = worker.files("input", "output", "temp")
    assert worker.contents(saver(breaks), owner="alice")[0].error is None
    photo = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(photo, "PNG")
    address = "data:image/png;base64," + base64.b64encode(photo.getvalue()).decode()
    graph = saver("silently") | {
        "3": {"class_type": "LoadImage", "inputs": {"image": address}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "fox"}},
    }
    outcome, made = worker.contents(graph, owner="bob")
    assert outcome.error is None
    assert sorted(made) == ["2/fox.bin", "4/fox_00001_.png"]
    left = worker.files("input", "output", "temp")
    for name in before - left:
        (worker.base / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(worker.base / "gone" / Path(name).name, worker.base / name)
    shutil.rmtree(worker.base / "gone")
    assert left <= before, "the next owner's job would find it"


@pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine has no such class")
def test_a_set_to_train_with_is_delivered_and_leaves_nothing(worker: SharedWorker) -> None:
    if not worker.connector.declarations(["SaveTrainingDataset"])["SaveTrainingDataset"]:
        pytest.skip("this ComfyUI has no SaveTrainingDataset")
    graph = {
        "c": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": Path(CHECKPOINT).name}},
        "t": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["c", 1]}},
        "l": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "1": {
            "class_type": "SaveTrainingDataset",
            "inputs": {"latents": ["l", 0], "conditioning": ["t", 0], "folder_name": "fox", "shard_size": 10},
        },
    }
    outcome, made = worker.contents(graph, owner="alice")
    assert outcome.error is None
    assert sorted(made) == ["1/metadata.json", "1/shard_0000.pkl"]
    assert worker.files("datasets") == set()
    assert "fox" not in str(worker.connector.declarations(["LoadTrainingDataset"]))
