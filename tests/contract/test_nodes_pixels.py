"""Every node of the embedded engine against ComfyUI, release by release: files, pixels, metadata, errors, declarations.

`record_nodes.py` recorded the expectations from real ComfyUIs. With COMFYUI_DIR set, that ComfyUI is compared
with them too, and both engines run every case side by side. What FFmpeg decodes for later releases the embedded engine
reads with Pillow: those cases are compared for the real ComfyUI alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from comfy_lite.nodes import ALL
from comfy_lite.releases import Release
from tests.contract.engines import REAL_COMFYUI, EngineProcess, free_port, releases
from tests.contract.node_cases import CASES, DATA, FIRST_RELEASE, NODES, Case
from tests.contract.node_runners import Expectations, HttpRunner, difference
from tests.contract.record_nodes import without_prose
from tests.patience import PATIENCE_S

#: ComfyUI cuts fractions off: where two float libraries differ in the last bit, a pixel may differ by one level.
TOLERANCE = 1
START_TIMEOUT_S = 120.0

#: The stand-in offers names that workflows ask for; the recorded ComfyUI had one file.
CHECKPOINTS = ("CheckpointLoaderSimple", "ckpt_name")


@pytest.fixture(scope="session")
def expectations(release: str) -> Expectations:
    return Expectations(release)


def followed(release: str) -> list[Case]:
    """The cases in which the embedded engine does what a release does."""
    return [case for case in CASES if release == FIRST_RELEASE or not case.hangs_on_the_decoder]


@pytest.mark.parametrize("node", NODES)
def test_a_node_makes_what_comfyui_makes(
    node: str, release: str, engine_of_release: EngineProcess, expectations: Expectations
) -> None:
    runner = HttpRunner(engine_of_release.url)
    differences = {}
    for case in (case for case in (CASES if REAL_COMFYUI else followed(release)) if case.node == node):
        differences[case.name] = difference(runner.run(case), expectations.of(case), case.name)
    assert differences
    assert {name: levels for name, levels in differences.items() if levels > TOLERANCE} == {}


def test_object_info_declares_every_node_as_comfyui_does(release: str, engine_of_release: EngineProcess) -> None:
    expected = json.loads((DATA / f"object_info-{release}.json").read_text())
    assert set(expected) == set(ALL)
    everything = requests.get(f"{engine_of_release.url}/object_info", timeout=PATIENCE_S).json()
    for name in expected:
        entry = without_prose(everything[name])
        if name == CHECKPOINTS[0]:
            for declared in (entry, expected[name]):
                assert "v1-5-pruned-emaonly.safetensors" in declared["input"]["required"][CHECKPOINTS[1]][0]
                declared["input"]["required"][CHECKPOINTS[1]][0] = []
        assert entry == expected[name]
        assert list(entry["input"]["required"]) == list(expected[name]["input"]["required"])


def test_load_image_offers_images_and_load_image_mask_did_every_file(
    release: str, engine_of_release: EngineProcess
) -> None:
    engine = engine_of_release
    HttpRunner(engine.url)
    # Only the name counts, and not every image's name shows that it is one.
    others = ["notes.txt", "two_lenses.mpo"]
    Path(engine.folder("input"), others[0]).write_text("not an image")

    def offered(node: str) -> list[str]:
        entry = requests.get(f"{engine.url}/object_info/{node}", timeout=PATIENCE_S).json()[node]
        return list(entry["input"]["required"]["image"][0])

    files = sorted(path.name for path in engine.folder("input").iterdir() if path.is_file())
    images = [name for name in files if name not in others]
    assert offered("LoadImageMask") == (images if Release(release).renews_nodes else files)
    assert offered("LoadImage") == images


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[str]:
    """The address of an embedded engine, even if `engine` is a real ComfyUI."""
    port = free_port()
    command = [sys.executable, "-m", "comfy_lite", "--port", str(port), "--base-directory", str(tmp_path)]
    command += ["--comfyui-version", releases()[0]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.mark.comfyui
@pytest.mark.skipif(REAL_COMFYUI is None, reason="COMFYUI_DIR names no ComfyUI")
def test_both_engines_agree_on_every_case(engine: EngineProcess, embedded: str) -> None:
    real, lite = HttpRunner(engine.url), HttpRunner(embedded)
    worst: dict[str, list[int]] = {}
    for case in followed(releases()[0]):
        worst.setdefault(case.node, []).append(difference(lite.run(case), real.run(case), case.name))
    table = [f"{node}: {len(levels)} cases, at most {max(levels)} levels apart" for node, levels in worst.items()]
    Path(os.environ.get("NODE_TABLE", os.devnull)).write_text("\n".join(table) + "\n")
    assert all(max(levels) <= TOLERANCE for levels in worst.values()), "\n".join(table)
