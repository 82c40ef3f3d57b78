"""Paths as people write them. What no file can be called is no file here, and never a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

#: The address of a file of this machine.
_FILE = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.IGNORECASE | re.DOTALL)


def local_path(text: str) -> Path:
    """The path that a text is, with `~` for a home; as in shells, `~nobody` and `./~` stay what they are.

    A `file:///` address is the path in it, decoded: that is what file managers and browsers give.
    """
    if (found := _FILE.fullmatch(text)) is not None:
        return Path(unquote(found[1]))
    try:
        return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises for ~nobody, and takes ./~ for a home
    except ValueError:  # a name that no user can have
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether there is such a file; of what may not be looked at, or is too long for a name, there is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cache_folder() -> Path:
    """This user's folder for what may be lost (`XDG_CACHE_HOME`). It need not be there."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache"
    return base / "comfy-serverless"
