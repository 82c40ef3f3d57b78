"""A lock of a few lines, and comfyui/from_lock.py run on it as the build of the image runs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "comfyui" / "from_lock.py"
HASH = "sha256:" + "1" * 64
COMMIT = "2" * 40

Lock = dict[str, Any]


def library(name: str, *declared_by: str, kind: str = "wheel", **more: Any) -> Lock:
    return {
        "name": name,
        "version": "1.0",
        "hashes": [HASH],
        "kind": kind,
        "url": None,
        "declared_by": declared_by,
        **more,
    }


def lock_of(**parts: Any) -> Lock:
    comfyui = {"repository": "https://github.com/owner/ComfyUI.git", "commit": COMMIT, "ref": "v1", "version": "1"}
    return {"schema": "comfy-serverless-lock/1", "comfyui": comfyui, "packs": [], "requirements": [], **parts}


def run(*arguments: object, lock: Mapping[str, Any] | str | None, ours: Path) -> subprocess.CompletedProcess[str]:
    path = ours / "comfy-build.lock"
    if lock is not None:
        path.write_text(lock if isinstance(lock, str) else json.dumps(lock))
    action, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, str(SCRIPT), action, str(path), *rest],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "lambda"), "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )


def archive(entries: Mapping[str, str], path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as made:
        for name, text in entries.items():
            made.writestr(name, text)
    content = path.read_bytes()
    path.unlink()
    return content


def pack(name: str, content: bytes, **more: Any) -> Lock:
    digest = hashlib.sha256(content).hexdigest()
    return {
        "name": name,
        "source": "registry",
        "version": "1.0",
        "sha256": digest,
        "size": len(content),
        "url": None,
        **more,
    }


def install(ours: Path, *packs: Lock) -> subprocess.CompletedProcess[str]:
    return run("packs", ours, ours.parent / "core_nodes", ours.parent / "packs", lock=lock_of(packs=packs), ours=ours)


def vendor(ours: Path, content: bytes) -> None:
    (ours / "archives" / f"{hashlib.sha256(content).hexdigest()}.zip").write_bytes(content)
