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
