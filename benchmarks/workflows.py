"""The jobs that are measured. Each is new to the engine: nothing may come from its cache."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def small_job() -> dict[str, Any]:
    """One image of 64 x 64 pixels: nearly all of its time is overhead."""
    color = random.randrange(1 << 24)
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench/small"}},
    }


def noise_job(names: Sequence[str]) -> dict[str, Any]:
    """Load noise pictures and save them again: incompressible, about 3 MB each at 1024 x 1024."""
    graph: dict[str, Any] = {}
    last: list[Any] = []
    for index, name in enumerate(names):
        graph[f"1{index}"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        if last:
            graph[f"2{index}"] = {"class_type": "ImageBatch", "inputs": {"image1": last, "image2": [f"1{index}", 0]}}
        last = [f"2{index}" if last else f"1{index}", 0]
    prefix = f"bench/{uuid.uuid4().hex[:12]}"
    graph["30"] = {"class_type": "SaveImage", "inputs": {"images": last, "filename_prefix": prefix}}
    return graph


def noise_files(folder: Path, *, count: int, pixels: int) -> list[str]:
    """Put noise pictures into the engine's input folder. Returns their names."""
    generator = np.random.default_rng(pixels)
    names = []
    for index in range(count):
        name = f"noise_{pixels}_{index}.png"
        if not (folder / name).exists():
            values = generator.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / name, compress_level=1)
        names.append(name)
    return names
