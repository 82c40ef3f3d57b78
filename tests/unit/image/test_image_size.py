"""What is counted of an image: each file is of a library, a pack, or one of a few other parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools import image_size

SITE = "opt/comfyui-venv/lib/python3.11/site-packages"


def write(root: Path, name: str, kilobytes: int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1024 * kilobytes)


def test_every_file_is_counted_once_for_whom_it_belongs_to(tmp_path: Path) -> None:
    for library, files in {
        "torch-2.14.1": ["torch/lib/libtorch.so"],
        "nvidia_cublas-13.1": ["nvidia/cublas.so"],
        "toy-1.0": ["toy/__init__.py", "../../../bin/toy"],
    }.items():
        info = f"{SITE}/{library}.dist-info"
        name, version = library.split("-")
        write(tmp_path, f"{info}/METADATA", 0)
        (tmp_path / info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    sizes = {
        f"{SITE}/torch/lib/libtorch.so": 400,
        f"{SITE}/nvidia/cublas.so": 300,
        f"{SITE}/toy/__init__.py": 40,
        f"{SITE}/toy/__pycache__/__init__.cpython-311.pyc": 80,
        "opt/comfyui-venv/bin/toy": 20,
        "opt/comfyui/custom_nodes/pack/weights.bin": 200,
        "opt/comfyui/custom_nodes/single.py": 12,
        "opt/comfyui/custom_nodes/example_node.py.example": 4,
        "opt/comfyui/models/loras/style.safetensors": 100,
        "opt/comfyui/main.py": 8,
        "opt/worker/bin/x": 16,
        "usr/bin/python3": 60,
    }
    for name, kilobytes in sizes.items():
        write(tmp_path, name, kilobytes)
    (tmp_path / "usr/bin/python").hardlink_to(tmp_path / "usr/bin/python3")
    done = subprocess.run([sys.executable, "-c", image_size.COUNTER, str(tmp_path)], stdout=subprocess.PIPE, check=True)
    counted = {
        group: {what: size // 1024 for what, size in parts.items()} for group, parts in json.loads(done.stdout).items()
    }
    smallest = 16  # what the file system takes for the metadata of a library
    assert counted["library"].pop("of no library") <= 6 * smallest
    assert counted["library"] == {"torch 2.14.1": 400, "CUDA (nvidia-*, cuda-*)": 300, "toy 1.0": 140}
    assert counted["pack"] == {"pack": 200, "single.py": 12}
    assert counted["rest"] == {"models": 100, "ComfyUI": 12, "the worker, with its libraries": 16, "Debian": 60}


def test_the_largest_come_first_and_small_libraries_are_summed_up() -> None:
    sizes = {
        "library": {"torch 2": 3 << 30, "small 1": 1 << 20, "tiny 1": 1 << 19},
        "pack": {"toy": 1 << 10},
        "rest": {"Debian": 1 << 30},
    }
    lines = list(image_size.table(sizes, sum(sum(group.values()) for group in sizes.values())))
    assert [line.partition("%  ")[2] for line in lines] == [
        *("library: torch 2", "Debian", "library: 2 smaller ones", "pack: toy"),
    ]
    assert lines[0].split()[:3] == ["3072.0", "MiB", "75.0"]
