"""The folder that ComfyUI runs in where its own cannot be written: what packs do there, and what a new start finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "comfyui" / "writable_tree.py"
LARGE = 2 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A ComfyUI with a pack and a model, nothing of which can be written."""
    image = tmp_path / "opt"
    files = {
        "main.py": b"main",
        "folder_paths.py": b"paths",
        "start.sh": b"#!/bin/sh\n",
        "comfy/sd.py": b"sd",
        "custom_nodes/pack/__init__.py": b"code",
        "custom_nodes/pack/__pycache__/__init__.cpython-311.pyc": b"compiled",
        "custom_nodes/pack/config.json": b"{}",
        "custom_nodes/pack/weights.bin": b"w" * LARGE,
        "custom_nodes/single.py": b"one",
        "models/checkpoints/sd.safetensors": b"m" * LARGE,
        "models/configs/v1.yaml": b"yaml",
        "web/index.html": b"page",
        "input/example.png": b"never",
    }
    for name, content in files.items():
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        (image / name).write_bytes(content)
    (image / "start.sh").chmod(0o755)
    (image / "custom_nodes" / "gone").symlink_to(tmp_path / "nowhere")
    for path in (image, *image.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return image


def make(image: Path, tree: Path) -> None:
    subprocess.run([sys.executable, "-I", "-S", str(SCRIPT), str(image), str(tree)], check=True)


def test_packs_find_folders_that_can_be_written_and_all_of_comfyui(image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tmp" / "comfyui"
    make(image, tree)
    pack = tree / "custom_nodes" / "pack"
    assert (pack / "__init__.py").resolve().parent == pack, "found by its code, as packs do, with links resolved"
    for folder in (tree, pack, tree / "custom_nodes", tree / "models", tree / "models" / "checkpoints", tree / "web"):
        (folder / "new").write_text("x")
    (pack / "config.json").write_text("changed")
    assert (image / "custom_nodes/pack/config.json").read_text() == "{}"
    assert (tree / "main.py").resolve() == tree / "main.py", "Python puts the folder of the real file on its path"
    assert (tree / "comfy").readlink() == image / "comfy"
    assert os.access(tree / "start.sh", os.X_OK)
    assert [path.name for path in (tree / "input").iterdir()] == []
    assert (pack / "__pycache__/__init__.cpython-311.pyc").read_bytes() == b"compiled"


def test_what_is_large_is_linked_and_takes_no_room(image: Path, tmp_path: Path) -> None:
    make(image, tmp_path / "tree")
    for name in ("custom_nodes/pack/weights.bin", "models/checkpoints/sd.safetensors"):
        assert (tmp_path / "tree" / name).readlink() == image / name


def test_a_new_start_runs_the_images_code_and_keeps_what_packs_have_made(image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make(image, tree)
    pack = tree / "custom_nodes" / "pack"
    (pack / "__init__.py").write_text("changed")
    (tree / "folder_paths.py").write_text("changed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    planted = [
        tree / "torch.py",
        tree / "torch" / "__init__.py",
        tree / "custom_nodes" / "evil.py",
        pack / "helper.so",
        pack / "__pycache__" / "evil.cpython-311.pyc",
    ]
    for path in planted:
        path.parent.mkdir(exist_ok=True)
        path.write_text("evil")
    (tree / "numpy").symlink_to(elsewhere)
    (tree / "custom_nodes" / "linked").symlink_to(elsewhere)
    kept = [pack / "settings.json", pack / "ckpts" / "net.pth", tree / "models" / "toy" / "w.bin", tree / "user" / "x"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("kept")
    make(image, tree)
    assert (pack / "__init__.py").read_bytes() == b"code"
    assert (tree / "folder_paths.py").read_bytes() == b"paths"
    assert [path for path in planted if path.exists()] == []
    assert not (tree / "numpy").is_symlink()
    assert not (tree / "custom_nodes" / "linked").is_symlink()
    assert [path.read_text() for path in kept] == ["kept"] * 4


def test_a_start_puts_right_what_has_become_another_kind_of_file(image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make(image, tree)
    (tree / "main.py").unlink()
    (tree / "main.py").mkdir()
    (tree / "comfy").unlink()
    (tree / "comfy").mkdir()
    (tree / "models" / "configs" / "v1.yaml").unlink()
    (tree / "models" / "configs").rmdir()
    (tree / "models" / "configs").write_text("a file")
    make(image, tree)
    assert (tree / "main.py").read_bytes() == b"main"
    assert (tree / "comfy" / "sd.py").read_bytes() == b"sd"
    assert (tree / "models" / "configs" / "v1.yaml").read_bytes() == b"yaml"
    assert [path for path in tree.rglob("*") if path.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("place", "set_before", "threads"), [("no-such-folder", "", "1"), ("", "", ""), ("no-such-folder", "4", "4")]
)
def test_the_start_lets_torch_compile_in_one_process_where_there_is_no_shared_memory(
    image: Path, tmp_path: Path, place: str, set_before: str, threads: str
) -> None:
    start = image / "start.sh"
    start.chmod(0o755)
    text = (ROOT / "comfyui" / "start.sh").read_text()
    start.write_text(text.replace("/dev/shm", str(tmp_path / place)).replace("$image/writable_tree.py", str(SCRIPT)))
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = main.py ] || exec {sys.executable} "$@"\necho "$TORCHINDUCTOR_COMPILE_THREADS|$PWD|$*"\n'
    )
    python.chmod(0o755)
    variables = {"TORCHINDUCTOR_COMPILE_THREADS": set_before} if set_before else {}
    done = subprocess.run(
        [str(start), "--port", "8199"],
        env={"PATH": os.environ["PATH"], "COMFYUI_PYTHON": str(python), "TMPDIR": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    tree = tmp_path / "comfyui"
    found, folder, arguments = done.stdout.strip().split("|")
    assert (found, folder) == (threads, str(tree))
    assert arguments.startswith("main.py --disable-auto-launch ")
    assert f"--base-directory {tree} " in arguments
    assert arguments.endswith("--port 8199")


def test_a_folder_that_cannot_be_written_is_named(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(image), str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert str(tmp_path / "file") in done.stderr
