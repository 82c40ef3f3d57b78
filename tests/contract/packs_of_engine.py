"""The packs that a real ComfyUI has in the contract tests: `contract_nodes`, and the files beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.environments import packs

_HERE = Path(__file__).parent


def fill_custom_nodes(base: Path, comfyui: Path) -> None:
    """Fill `base/custom_nodes`; of the packs in ComfyUI's own folder the one that is part of it is taken."""
    folder = base / "custom_nodes"
    packs.unpack(packs.files("contract_nodes"), folder / "contract_nodes")
    for file in (_HERE / "saver_nodes.py", _HERE / "leaky_nodes.py", _HERE / "real_nodes.py"):
        shutil.copy(file, folder)
    shutil.copy(comfyui / "custom_nodes" / "websocket_image_save.py", folder)
