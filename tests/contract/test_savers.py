"""Whatever a node saves below ComfyUI's folders is delivered, also if it says nothing; what it does not is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.saver_nodes import SAVES, content_of
from tests.contract.shared_worker import SharedWorker


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorker]:
    worker = SharedWorker(tmp_path_factory.mktemp("engine") / "ComfyUI")
    yield worker
    worker.close()


def saver(saves: str) -> dict[str, Any]:
    return {"2": {"class_type": "SaverOfAPack", "inputs": {"saves": saves, "filename_prefix": "fox"}}}


FILES = {
    **{saves: ["fox.bin"] for saves in SAVES},
    "under any name": ["20261129_121500.bin"],
    "with a caption": ["fox.bin", "fox.txt"],
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
