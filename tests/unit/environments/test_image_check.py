"""The check at the end of an image's build: both starts, who is to blame, and what is kept for the API."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.environments.image import check
from comfy_serverless.environments.image.check import Image
from comfy_serverless.environments.lock_file import release_version
from comfy_serverless.errors import InvalidLock, InvalidSetting
from tests.unit.fake_comfyui import FakeComfyUI

LOST = "Cannot import /tmp/comfyui/custom_nodes/{} module for custom nodes: No module named 'cv2'"
INFO: dict[str, Any] = {
    "KSampler": {"python_module": "nodes", "input": {"required": {}}},
    "LoadImage": {
        "python_module": "nodes",
        "input": {"required": {"image": [["example.png"], {"image_upload": True}]}},
    },
    "Brighten": {"python_module": "custom_nodes.toy"},
}
LOCK = {
    "schema": "comfy-serverless-lock/1",
    "inputs_sha256": "0" * 64,
    "python": "3.11",
    "platform": "x86_64-manylinux_2_36",
    "comfyui": {"repository": "https://github.com/o/C.git", "ref": "v1", "commit": "2" * 40, "version": "1"},
    "torch": {"torch": "2.14.1"},
    **dict.fromkeys(("apt", "build_requirements", "overrides", "models", "warnings"), ()),
    "packs": [
        {
            **dict.fromkeys(("ref", "repository", "commit")),
            "name": "toy",
            "id": "toy",
            "source": "registry",
            "version": "1.2.0",
            "url": "https://host.test/toy.zip",
            "sha256": "3" * 64,
            "size": 10,
            "requirements": ["numpy<2"],
            "install_scripts": [],
        }
    ],
    "requirements": [
        {
            "name": "numpy",
            "version": "1.26.4",
            "hashes": ["sha256:" + "1" * 64],
            "kind": "wheel",
            "size": 1,
            "url": None,
            "declared_by": ["toy: numpy<2"],
        }
    ],
}


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComfyUI:
    (tmp_path / "fake").mkdir()
    fake = FakeComfyUI(tmp_path / "fake")
    monkeypatch.setenv("API_COMMAND_LINE", shlex.join(fake.command))
    fake.says(object_info=INFO)
    return fake


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image with one pack and one library."""
    found = Image(tmp_path / "comfyui", tmp_path / "venv", tmp_path / "environment", tmp_path / "out")
    pack = found.comfyui / "custom_nodes" / "toy"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text('NODE_CLASS_MAPPINGS = {"Brighten": Brighten}\n')
    (found.comfyui / "comfyui-source.json").write_text(json.dumps({"from": "lock", "commit": "2" * 40}))
    info = found.venv / "lib" / "python3.11" / "site-packages" / "numpy-1.26.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
    (info / "RECORD").write_text("numpy/__init__.py,,\nnumpy-1.26.4.dist-info/METADATA,,\n")
    for folder in (found.environment, found.out):
        folder.mkdir()
    (found.environment / "comfy-build.lock").write_text(json.dumps(LOCK))
    return found


def test_what_was_found_out_is_kept_for_the_api_and_for_the_next_build(image: Image, comfyui: FakeComfyUI) -> None:
    (comfyui.folder / "input").mkdir()
    (comfyui.folder / "input" / "example.png").touch()
    assert check.main(["build"], image=image) == 0
    assert len(comfyui.starts) == 2
    release = json.loads((image.out / "release.json").read_text())
    assert release == {
        "release_version": release_version((image.environment / "comfy-build.lock").read_text()),
        "comfyui": "0.33.0",
        "commit": "2" * 40,
        "from": "lock",
        "packs": {"toy": "1.2.0"},
    }
    kept = json.loads(gzip.decompress((image.out / "declarations" / "object_info.json.gz").read_bytes()))
    assert kept.keys() == INFO.keys()
    assert "example.png" not in json.dumps(kept)
    classes = json.loads((image.out / "declarations" / "classes.json").read_text())
    assert classes == {"KSampler": "ComfyUI", "LoadImage": "ComfyUI", "Brighten": "toy"}


def test_the_same_image_is_kept_as_the_same_bytes(image: Image, comfyui: FakeComfyUI) -> None:
    kept = []
    for _ in range(2):
        check.main(["build"], image=image)
        kept.append({path: path.read_bytes() for path in image.out.rglob("*.*") if path.is_file()})
    assert kept[0] == kept[1]


def test_packs_that_do_not_import_end_the_build_and_nothing_is_kept(
    image: Image, comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.says(LOST.format("toy"), object_info=INFO)
    assert check.main(["build", "--allow-import-failures", ""], image=image) == 1
    said = capsys.readouterr().err
    assert "The image is not as it should be:\n\n  toy: the module cv2 is missing\n" in said
    assert "declared by nobody" in said
    assert list(image.out.iterdir()) == []
    assert check.main(["build", "--allow-import-failures", "other,toy"], image=image) == 0


def test_a_class_that_has_vanished_ends_the_build_unless_it_is_named(
    image: Image, comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {"KSampler": "ComfyUI", "Darken": "toy"}
    (image.environment / "comfy-build.classes.json").write_text(json.dumps(before))
    assert check.main(["build"], image=image) == 1
    assert "toy: the class Darken of comfyui/comfy-build.classes.json is gone" in capsys.readouterr().err
    assert check.main(["build", "--allow-vanished", "Darken"], image=image) == 0


def test_the_pack_that_ends_comfyui_is_found_by_starting_each_alone(
    image: Image, comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.comfyui / "custom_nodes" / "good").mkdir()
    comfyui.says(ends=("toy",), code=7)
    assert check.main(["build"], image=image) == 1
    said = capsys.readouterr().err
    assert "toy: ComfyUI itself ends while it imports this pack (exit code 7)" in said
    assert "good:" not in said


def test_a_comfyui_that_ends_by_itself_blames_no_pack(
    image: Image, comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.says("ImportError: no torch", ends=("",), code=3)
    assert check.main(["build", "--allow-import-failures", "*"], image=image) == 1
    said = capsys.readouterr().err
    assert "ImportError: no torch" in said
    assert "ComfyUI: it does not start (exit code 3)" in said


def test_what_is_known_of_libraries_is_from_their_own_files_and_from_the_lock(image: Image) -> None:
    known = check.known_of(image)
    assert (known.libraries["numpy"].version, known.libraries["numpy"].declared_by) == ("1.26.4", ("toy: numpy<2",))
    assert known.modules == {"numpy": "numpy"}
    assert known.declared == {"toy": ("numpy<2",)}


def test_env_check_is_told_everything_as_one_document(
    image: Image, comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.says(LOST.format("toy"), object_info={"KSampler": INFO["KSampler"]})
    assert check.main(["tell", "--mode", "read-only"], image=image) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["libraries"], told["torch"], told["classes"]) == (1, {"torch": "2.14.1"}, {"ComfyUI": 1})
    (problem,) = told["problems"]
    assert (problem["pack"], problem["kind"], problem["modes"]) == (
        "toy",
        "missing_module",
        ["read-only, as on Lambda"],
    )


def test_without_a_command_it_is_a_wrong_setting(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_COMMAND_LINE", raising=False)
    with pytest.raises(InvalidSetting, match="API_COMMAND_LINE"):
        check.main(["build"], image=image)


def test_a_damaged_lock_is_said(image: Image, comfyui: FakeComfyUI) -> None:
    (image.environment / "comfy-build.lock").write_text("{}")
    with pytest.raises(InvalidLock):
        check.main(["build"], image=image)
