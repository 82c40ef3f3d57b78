"""Whether a lock is still that of the file it was made from. The build of the image asks before anything else.

    python -m comfy_serverless.environments.stale comfyui requirements

It asks nobody, and needs PyYAML and packaging. Where there is a lock and no build file there is nothing to compare.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from comfy_serverless.environments import build_file
from comfy_serverless.environments.lock_file import Lock
from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.lock import staleness
from comfy_serverless.environments.locking.more_requirements import MoreRequirements
from comfy_serverless.errors import ComfyError


def why_stale(comfyui: Path, requirements: Path) -> list[str]:
    """What has changed since the lock was made; empty if nothing has.

    Raises:
        InvalidLock, InvalidBuildFile, NotLocked: one of the files cannot be read.
        OSError: there is no lock.
    """
    file, lock = comfyui / "comfy-build.yaml", comfyui / "comfy-build.lock"
    if not file.is_file():
        return []
    build = build_file.parse(build_file.read_text(file), name=file.name)
    locked = Lock.parse(lock.read_text(encoding="utf-8"))
    return staleness(build, locked, Base.read(requirements), MoreRequirements.read(comfyui))


def main(arguments: Sequence[str]) -> int:
    """Say it; returns the exit code."""
    comfyui, requirements = map(Path, arguments)
    try:
        reasons = why_stale(comfyui, requirements)
    except ComfyError as error:
        print(f"\nThe image cannot be built: {error.message}\n", file=sys.stderr)
        return 1
    if reasons:
        print(
            "\nThe image cannot be built: comfyui/comfy-build.lock is not of comfyui/comfy-build.yaml any more: "
            f"{'; '.join(reasons)}. Lock it again: comfy-serverless env lock\n",
            file=sys.stderr,
        )
    return bool(reasons)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
