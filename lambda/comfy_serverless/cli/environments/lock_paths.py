"""Where the two files of an environment are, and how a lock is read and written."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comfy_serverless.cli.paths import local_path
from comfy_serverless.errors import InvalidBuildFile, InvalidLock, NotLocked

if TYPE_CHECKING:
    from comfy_serverless.environments.build_file import BuildFile
    from comfy_serverless.environments.lock_file import Lock

BUILD_FILE: Final = Path("comfyui/comfy-build.yaml")
LOCK: Final = Path("comfyui/comfy-build.lock")
#: Beside the lock: archives that a build finds by their hash, before it asks a host.
ARCHIVES: Final = "archives"


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add `--file` and `--lock`."""
    parser.add_argument(
        "--file", type=local_path, default=BUILD_FILE, metavar="FILE", help="the build file (default: %(default)s)"
    )
    add_lock(parser)


def add_lock(parser: argparse.ArgumentParser) -> None:
    """Add `--lock`."""
    parser.add_argument("--lock", type=local_path, default=LOCK, metavar="FILE", help="the lock (default: %(default)s)")


def read_build(path: Path) -> BuildFile:
    """Read a build file. Raises NotLocked where there is none, and InvalidBuildFile."""
    from comfy_serverless.environments import build_file

    try:
        text = build_file.read_text(path)
    except InvalidBuildFile as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise NotLocked(
            f"{path} is not there. Make it: comfy-serverless env init ~/ComfyUI (or a workflow, or a snapshot of the "
            "Manager)."
        ) from error
    return build_file.parse(text, name=path.name)


def read_lock(path: Path) -> tuple[Lock, str]:
    """Read a lock, and its text. Raises InvalidLock."""
    from comfy_serverless.environments.lock_file import Lock

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidLock(f"{path} cannot be read: {why}. Make it: comfy-serverless env lock.") from error
    return Lock.parse(text, name=path.name), text


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises NotLocked."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise NotLocked(f"{path} cannot be written: {error.strerror}.") from error
