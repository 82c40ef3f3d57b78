"""Somebody cleans up the machine: our folders and files go, and ComfyUI's, and the next job runs the same."""

from __future__ import annotations

import base64
import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.engines import START_PATIENCE_S
from tests.contract.saver_nodes import content_of
from tests.contract.shared_worker import SharedWorker
from tests.patience import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def worker(temporary: Path) -> Iterator[SharedWorker]:
    worker = SharedWorker(temporary / "ComfyUI")
    (worker.base / "input" / "operators.png").write_bytes(picture())
    run(worker, "alice", deadline_s=START_PATIENCE_S)
    yield worker
    worker.close()


def picture() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(made, "PNG")
    return made.getvalue()


def run(worker: SharedWorker, owner: str, *, deadline_s: float = PATIENCE_S) -> None:
    """Run a job that brings a picture, lists the input folder, and saves in three ways."""
    image = "data:image/png;base64," + base64.b64encode(picture()).decode()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaverOfAPack", "inputs": {"saves": "in its own folder", "filename_prefix": owner}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "5": {"class_type": "FolderOfAPack", "inputs": {"directory": "."}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }
    outcome, made = worker.contents(graph, owner=owner, deadline_s=deadline_s)
    assert outcome.error is None
    assert outcome.job.warnings == ()
    by_node = {name.partition("/")[0]: content for name, content in made.items()}
    assert by_node["2"] == content_of(owner)
    assert by_node.keys() == {"2", "3", "4", "6"}
    assert not [name for name in by_node["6"].decode().split("\n") if "secret" in name]


def places(temporary: Path, worker: SharedWorker) -> list[Path]:
    """All that a cleaner may find old: what is ours, and folders of ComfyUI's that jobs use."""
    # The worker tidies up meanwhile, which `os.walk` takes as it comes; and what is kept of jobs that are over goes.
    found = {Path(folder, name) for folder, *names in os.walk(temporary) for name in (*names[0], *names[1])}
    ours = {path for path in found if not path.is_relative_to(worker.base) and "runs" not in path.parts}
    engines = [worker.base / name for name in ("input", "output", "temp")]
    return sorted(ours | {path for path in found if path.is_dir() and any(map(path.is_relative_to, engines))})


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)  # the worker tidies up there, too
    else:
        path.unlink(missing_ok=True)


def test_a_job_does_not_need_what_was_there_before_it(temporary: Path, worker: SharedWorker) -> None:
    run(worker, "alice")
    found = places(temporary, worker)
    assert {"inputs", "users", "turn", "owner.json", "seen", "extra_model_paths.yaml"} <= {path.name for path in found}
    owner = "alice"
    for path in found:
        (worker.base / "input").mkdir(exist_ok=True)
        (worker.base / "input" / f"secret-of-{owner}.txt").write_text("as a node puts it there")
        remove(path)
        owner = "bob" if owner == "alice" else "alice"
        run(worker, owner)


def test_nor_any_of_it(temporary: Path, worker: SharedWorker) -> None:
    run(worker, "alice")
    for path in places(temporary, worker):
        remove(path)
    run(worker, "bob")
    for folder in temporary.glob("comfy-serverless-*"):
        if folder.is_dir() and "models" not in folder.name:
            assert folder.stat().st_mode & 0o077 == 0


def test_the_engine_starts_again_without_any_of_it(temporary: Path, worker: SharedWorker) -> None:
    run(worker, "alice")
    for path in places(temporary, worker):
        remove(path)
    process = worker.connector._engine.process
    assert process is not None
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive)
    run(worker, "bob", deadline_s=START_PATIENCE_S)
