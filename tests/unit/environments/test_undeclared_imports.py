"""Which libraries packs import and nobody declares, read from their files and from what the install has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from comfy_serverless.environments.model_hashes import HashCache
from comfy_serverless.environments.scan.install import scan
from comfy_serverless.environments.scan.undeclared import imports_of, remarks
from tests.environments import packs

MAPPINGS = "NODE_CLASS_MAPPINGS = {}\n"


def pack(folder: Path, **files: str) -> Path:
    """A pack; `__` in a name is a folder."""
    named = {f"{name.replace('__', '/')}.py": text.encode() for name, text in files.items()}
    return packs.unpack({"__init__.py": b"from .nodes import *\n", **named}, folder / "pack")


def library(packages: Path, name: str, version: str, *modules: str, requires: Sequence[str] = ()) -> None:
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("".join(f"{module}/__init__.py,sha256=x,1\n" for module in modules))
    (info / "METADATA").write_text("".join(f"Requires-Dist: {line}\n" for line in requires))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    found = tmp_path / "ComfyUI" / "venv" / "lib" / "python3.11" / "site-packages"
    library(found, "opencv-python", "4.12.0", "cv2")
    library(found, "PyYAML", "6.0", "yaml", "_yaml")
    library(found, "transformers", "5.1", "transformers", requires=["tokenizers<1", "flax; extra == 'flax'"])
    library(found, "tokenizers", "0.22", "tokenizers")
    library(found, "flax", "0.9", "flax")
    library(found, "torch", "2.14.1", "torch")
    return found


def test_what_happens_at_import_is_found_from_the_entry_on(tmp_path: Path) -> None:
    made = pack(
        tmp_path,
        nodes="import os, cv2\nfrom .sub.deep import x\nfrom . import more\nimport folder_paths\nimport nodes\n",
        sub____init__="",
        sub__deep="from PIL.Image import open\nfrom ..above import y\n",
        above="import yaml.loader\nfrom pack.nodes import z\n",
        more="class A:\n    import einops\n",
        train="import wandb\n",
    )
    assert imports_of(made) == {
        "cv2": "nodes.py, line 1",
        "PIL": "sub/deep.py, line 1",
        "yaml": "above.py, line 1",
        "einops": "more.py, line 2",
    }


def test_what_may_fail_or_happens_later_does_not_count(tmp_path: Path) -> None:
    guarded = "try:\n    import cv2\nexcept ImportError:\n    cv2 = None\n"
    guarded += "try:\n    import yaml\nexcept (ValueError, ModuleNotFoundError):\n    pass\n"
    guarded += "try:\n    import bs4\nexcept:\n    pass\ndef f():\n    import timm\n"
    guarded += "if TYPE_CHECKING:\n    import numpy\ntry:\n    import einops\nexcept KeyError:\n    pass\n"
    assert imports_of(pack(tmp_path, nodes=guarded)) == {"einops": "nodes.py, line 18"}
    assert imports_of(pack(tmp_path / "broken", nodes="import cv2\nthis is no Python\n")) == {}


def test_a_library_that_the_install_has_by_chance_is_told_with_the_line(tmp_path: Path, packages: Path) -> None:
    made = pack(tmp_path, nodes="import cv2, yaml, torch, nowhere\n")
    cv2, yaml = remarks([made], set(), packages)
    assert cv2 == (
        "pack: it imports cv2 (nodes.py, line 1), which no requirements.txt names, and the install has it "
        "(opencv-python): add the line `opencv-python-headless` to comfyui/more-requirements.txt, or it does not "
        "import in the image"
    )
    assert "the install has it (pyyaml): add the line `pyyaml` to comfyui/more-requirements.txt" in yaml


@pytest.mark.parametrize(
    ("code", "declared"),
    [
        ("import cv2", {"opencv-python-headless"}),  # the same module under another name
        ("import yaml", {"pyyaml"}),  # of ComfyUI, or another pack
        ("import tokenizers", {"transformers"}),  # comes with it
    ],
)
def test_what_comes_anyway_is_not_told(tmp_path: Path, packages: Path, code: str, declared: set[str]) -> None:
    made = pack(tmp_path, nodes=f"{code}\n")
    assert len(remarks([made], set(), packages)) == 1
    assert remarks([made], declared, packages) == []


def test_what_only_an_extra_would_bring_is_told(tmp_path: Path, packages: Path) -> None:
    assert "`flax`" in remarks([pack(tmp_path, nodes="import flax\n")], {"transformers"}, packages)[0]


def test_a_library_of_a_repository_is_told_with_its_commit(tmp_path: Path, packages: Path) -> None:
    library(packages, "sam2", "1.0", "sam2")
    origin = '{"url": "https://git.example.com/x/sam2", "vcs_info": {"vcs": "git", "commit_id": "abc"}}'
    (packages / "sam2-1.0.dist-info" / "direct_url.json").write_text(origin)
    told = remarks([pack(tmp_path, nodes="import sam2\n")], set(), packages)[0]
    assert "add the line `sam2 @ git+https://git.example.com/x/sam2@abc`" in told


def test_an_install_is_read_with_what_comfyui_and_other_packs_declare(tmp_path: Path, packages: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    files = {
        "requirements.txt": "transformers>=4\n",
        "custom_nodes/a/__init__.py": f"import cv2, tokenizers, yaml\n{MAPPINGS}",
        "custom_nodes/b/__init__.py": MAPPINGS,
        "custom_nodes/b/requirements.txt": "PyYAML\n",
        "custom_nodes/one.py": f"import cv2\n{MAPPINGS}",
    }
    packs.unpack({name: text.encode() for name, text in files.items()}, comfyui)
    found = scan(comfyui, HashCache(tmp_path / "c"), python=None, with_models=False, show=lambda *_: None)
    told = [remark.partition(":")[0] for remark in found.remarks if "more-requirements.txt" in remark]
    assert told == ["a", "one.py"]
