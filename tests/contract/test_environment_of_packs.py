"""What the import check of a build says of packs that fail, and of packs that do not, with the ComfyUI in COMFYUI_DIR.

From the build file to the check by the same programs as in the image; only the container is missing, and torch, which
is that of COMFYUI_PYTHON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.environments.image import check as image_check
from tests.contract.engines import REAL_COMFYUI, free_port
from tests.environments import broken
from tests.environments.checkout import Checkout, git, registry
from tests.environments.image import BuiltImage
from tests.environments.outside import Outside, outside

pytestmark = [
    pytest.mark.skipif(REAL_COMFYUI is None, reason="needs a real ComfyUI: make contract COMFYUI_DIR=…"),
    pytest.mark.timeout(3600),
]
RECORDED = broken.RECORDED.with_name("not_imported.txt")
#: As root, files that belong to root can only be written with a capability.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"] if os.geteuid() == 0 else []
#: What older versions of ComfyUI say in other words, each with the recorded ones.
OTHER_WORDS = {"NODE_CLASS_MAPPINGS or NODES_LIST (need one)": "NODE_CLASS_MAPPINGS or comfy_entrypoint (need one)"}
FAILING = (
    *("kit_hidden_requirements", "kit_missing_module", "kit_newer_syntax", "kit_no_nodes", "kit_old_abi"),
    *("kit_wants_gpu", "kit_wants_network"),
)
SIX = ("kit_good", "kit_web", "kit_source", "kit_needs_compiler", "kit_writes_beside")
#: A node of each of the six.
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 0xC0C0C0}},
    "2": {"class_type": "KitInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "KitMirror", "inputs": {"image": ["2", 0]}},
    "4": {"class_type": "KitHalf", "inputs": {"image": ["3", 0]}},
    "5": {"class_type": "KitCompiled", "inputs": {"image": ["4", 0]}},
    "6": {"class_type": "KitWrites", "inputs": {"image": ["5", 0]}},
    "7": {"class_type": "KitBrighten", "inputs": {"image": ["6", 0], "by": 0.1}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "packs"}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture
def checkout(tmp_path: Path, world: Outside) -> Checkout:
    """A checkout in whose `comfyui` a whole ComfyUI lies: what is there is built in place of the lock's."""
    (tmp_path / "checkout").mkdir()
    made = Checkout(tmp_path / "checkout", world)
    left_out = {".git", "custom_nodes", "input", "output", "temp", "user", "tests", "tests-unit"}
    top = str(REAL_COMFYUI)
    shutil.copytree(
        top,
        made.folder / "comfyui",
        ignore=lambda folder, names: left_out & set(names) if folder == top else (),
        dirs_exist_ok=True,
    )
    shutil.rmtree(made.folder / "comfyui" / "models", ignore_errors=True)
    for name in ("start.sh", "writable_tree.py", "extra_model_paths.yaml"):
        shutil.copy(Path(__file__).parents[2] / "comfyui" / name, made.folder / "comfyui")
    return made


Checked = Callable[..., tuple[int, BuiltImage]]


@pytest.fixture
def check(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """Lock what the build file says, build it, and check it. Returns the exit code, and the image."""

    def checked(*arguments: str) -> tuple[int, BuiltImage]:
        checkout.succeeds("lock", "--vendor")
        image = BuiltImage(tmp_path / "image", checkout)
        done = image.build()
        assert done.returncode == 0, done.stderr
        image.install()
        for path in (image.comfyui, *image.comfyui.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        (tmp_path / "tmp").mkdir()
        python = tmp_path / "python"
        # Standard error of a pack's libraries, and the libraries: those of the lock stand behind torch's.
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(image.site_packages))} exec {os.environ["COMFYUI_PYTHON"]} "$@"\n'
        )
        python.chmod(0o755)
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        monkeypatch.setenv("COMFYUI_ARGS", "--cpu")
        monkeypatch.setenv("COMFYUI_PYTHON", str(python))
        monkeypatch.setenv("API_COMMAND_LINE", shlex.join([*WITHOUT_RIGHTS, str(image.comfyui / "start.sh")]))
        monkeypatch.delenv("COMFYUI_DIR", raising=False)
        monkeypatch.setattr(image_check, "_TREE", tmp_path / "tmp" / "comfyui")
        places = image_check.Image(image.comfyui, image.venv, image.environment, image.folder)
        return image_check.main(["build", *arguments], image=places), image

    return checked


def test_six_packs_import_the_image_keeps_what_they_declare_and_a_workflow_makes_its_picture(
    checkout: Checkout, check: Checked, world: Outside
) -> None:
    checkout.write(*map(registry, SIX), git("kit_v3", world.repository("kit_v3").url, "v0.3.0"))
    code, image = check()
    assert code == 0
    classes = json.loads((image.folder / "declarations" / "classes.json").read_text())
    assert {name: pack for name, pack in classes.items() if name.startswith("Kit")} == {
        "KitInvert": "kit-good",
        "KitGrey": "kit-good",
        "KitMirror": "kit-web",
        "KitHalf": "kit-source",
        "KitCompiled": "kit-needs-compiler",
        "KitWrites": "kit-writes-beside",
        "KitBrighten": "kit_v3",
    }
    release = json.loads((image.folder / "release.json").read_text())
    assert release["packs"].keys() == {pack for pack in classes.values() if pack.startswith("kit")}
    assert release["release_version"] == json.loads(checkout.succeeds("lock", "--json"))["release_version"]
    assert _made(GRAPH) == (64, 32)


def test_each_pack_that_does_not_import_is_told_with_its_reason_and_what_to_do(
    checkout: Checkout, check: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.write(*map(registry, FAILING), registry("kit_good"))
    code, _ = check()
    assert code == 1
    told = _told(capsys.readouterr().err)
    if os.environ.get("RECORD"):
        broken.record(told, RECORDED)
    assert told == broken.recorded(RECORDED)
    assert told.keys() == {name.replace("_", "-") for name in FAILING}


def test_a_library_that_a_pack_does_not_declare_is_added_by_a_line_of_ones_own(
    checkout: Checkout, check: Checked
) -> None:
    checkout.write(registry("kit_hidden_requirements"))
    (checkout.folder / "comfyui" / "more-requirements.txt").write_text("kit-extra\n")
    code, image = check()
    assert code == 0
    assert "KitHidden" in json.loads((image.folder / "declarations" / "classes.json").read_text())
    assert not (image.comfyui / "more-requirements.txt").exists()


def test_a_class_that_has_vanished_since_the_last_image_ends_the_build(
    checkout: Checkout, check: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.write(registry("kit_vanishing"))
    classes = {"KitKept": "kit-vanishing", "KitGone": "kit-vanishing"}
    (checkout.folder / "comfyui" / "comfy-build.classes.json").write_text(json.dumps(classes))
    code, _ = check()
    said = capsys.readouterr().err
    assert code == 1
    assert "kit-vanishing: the class KitGone of comfyui/comfy-build.classes.json is gone" in said
    assert "ALLOW_VANISHED=KitGone" in said


def test_a_pack_that_ends_comfyui_is_found_among_the_others(
    checkout: Checkout, check: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.write(registry("kit_web"), registry("kit_exits"))
    code, _ = check()
    said = capsys.readouterr().err
    assert code == 1
    assert re.search(r"^  kit-exits: ", said, re.MULTILINE), said
    assert "  kit-web: " not in said


def _made(graph: dict[str, Any]) -> tuple[int, int] | None:
    """The size of the picture that a workflow makes in the image."""
    warm = ComfyConnector(settings=replace(Settings.from_environment(), initial_port=free_port()))
    try:
        (output,) = warm.run(graph).outputs
        return output.pixels
    finally:
        warm.kill_api()


def _told(said: str) -> dict[str, str]:
    """What is said of each pack, by its name, in the words of the pinned ComfyUI."""
    _, _, problems = said.partition("The image is not as it should be:\n")
    for older, recorded in OTHER_WORDS.items():
        problems = problems.replace(older, recorded)
    parts = re.split(r"^  (\S+): ", problems, flags=re.MULTILINE)
    return {name: text.rstrip() + "\n" for name, text in zip(parts[1::2], parts[2::2], strict=True)}
