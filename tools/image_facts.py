"""Copies out of an image what its build has found out. Standard library only.

    python3 tools/image_facts.py comfy-serverless:cpu out/image

release.json says what it is, object_info.json.gz is what its ComfyUI declares, classes.json which pack has each class.
With the last one as comfyui/comfy-build.classes.json the next build fails if a class has vanished.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

PARTS: Final = {
    "release.json": "/opt/release.json",
    "object_info.json.gz": "/opt/declarations/object_info.json.gz",
    "classes.json": "/opt/declarations/classes.json",
}


def copy_out(image: str, folder: Path) -> None:
    """Copy it. Raises subprocess.CalledProcessError where the image is missing, or is of another target."""
    folder.mkdir(parents=True, exist_ok=True)
    container = _docker("create", image, "nothing").strip()
    try:
        for name, path in PARTS.items():
            (folder / name).unlink(missing_ok=True)
            _docker("cp", f"{container}:{path}", str(folder / name))
    finally:
        _docker("rm", "--force", container)


def main(image: str, target: str) -> int:
    """Copy, and say what the image is; answers the exit code."""
    folder = Path(target)
    try:
        copy_out(image, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{image} has nothing to copy: it must be built, of the target `worker` ({error})", file=sys.stderr)
        return 1
    release = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    print(
        f"{image} is release {release['release_version']}: ComfyUI {release['comfyui']}, packs: "
        f"{', '.join(release['packs']) or 'none'}. What it declares is in {folder}."
    )
    return 0


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
