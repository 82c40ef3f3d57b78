"""Places files in an engine's folders and removes delivered ones. Never touches anything outside them."""

from __future__ import annotations

import filecmp
import logging
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)


def remove_files(files: Iterable[Path], *, folders: Iterable[Path]) -> None:
    """Remove the files that lie in one of the folders, links resolved. Failures are logged."""
    roots = [folder.resolve() for folder in folders]
    for file in files:
        try:
            if any(file.resolve().is_relative_to(root) for root in roots):
                file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("a delivered file could not be removed: %s", error)


def remove_tree(subfolder: str, *, folders: Iterable[Path]) -> None:
    """Remove a subfolder of each of the folders, with its contents. Its parent stays: other jobs write there."""
    for folder in folders:
        root = folder.resolve()
        target = folder / subfolder
        # A link in its place could lead anywhere; `rmtree` itself follows none.
        if target.resolve() == root / subfolder and target.is_dir():
            shutil.rmtree(target, onerror=lambda _, path, error: logger.warning("%s not removed: %s", path, error[1]))


def place_file(source: Path, name: str, *, subfolder: str, folder: Path) -> bool:
    """Copy a file into the engine's input folder.

    Returns:
        False if ComfyUI must be asked instead: the name is taken by other bytes, or leads out of the folder.
    """
    target = (folder / subfolder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        return False
    if target.exists():
        return filecmp.cmp(source, target, shallow=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another job may look for the same name at the same moment.
    temporary = target.with_name(f".{uuid.uuid4()}.part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True
