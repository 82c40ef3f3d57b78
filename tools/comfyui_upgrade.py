"""Take another ComfyUI: its ref in comfyui/comfy-build.yaml, and all that follows from it in comfyui/comfy-build.lock.

    make comfyui-upgrade REF=v0.33.0        # a tag, a branch, or a commit in full

It is two steps that one can also take by hand: `baseComfyVersion`, and `comfy-serverless env lock`. Where the second
fails, nothing is changed. What is added here (UPGRADE_ARGS) goes to `env lock`, e.g. `--comfyui-repository URL`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comfy_serverless.cli.main import main as comfy_serverless
from comfy_serverless.environments import build_file
from comfy_serverless.errors import ComfyError

ROOT: Final = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Upgrade; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make comfyui-upgrade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ref", help="a tag, a branch, or a commit in full")
    options, of_lock = parser.parse_known_args(arguments)
    file, lock = root / "comfyui" / "comfy-build.yaml", root / "comfyui" / "comfy-build.lock"
    before = file.read_text(encoding="utf-8")
    try:
        build = build_file.parse(before, name=file.name)
        file.write_text(build_file.updated(before, replace(build, base_comfy_version=options.ref)), encoding="utf-8")
    except ComfyError as error:
        print(f"Nothing was changed: {error.message}", file=sys.stderr)
        return 1
    code = comfy_serverless(
        [
            "env",
            "lock",
            "--file",
            str(file),
            "--lock",
            str(lock),
            "--requirements",
            str(root / "requirements"),
            *of_lock,
        ]
    )
    if code:
        file.write_text(before, encoding="utf-8")
        print("Nothing was changed.", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
