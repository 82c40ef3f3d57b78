"""Puts a file into the input folder of an engine on this machine, without sending it through HTTP."""

from __future__ import annotations

import filecmp
import shutil
import uuid
from pathlib import Path


def place_file(source: Path, name: str, *, subfolder: str, folder: Path) -> bool:
    """Copy a file into the engine's input folder.

    Returns:
        False when ComfyUI has to be asked instead: the name is taken by other bytes, or leads out of the folder.
    """
    target = (folder / subfolder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        return False
    if target.exists():
        return filecmp.cmp(source, target, shallow=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another job may look for the same name at this moment.
    temporary = target.with_name(f".{uuid.uuid4()}.part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True
