"""The warning before the deployment of an image that Lambda refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.stacks import CONTEXT, ROOT

GIB = 1024**3


RELEASE = {"release_version": "0123456789ab", "comfyui": "0.33.0", "packs": {"toy": "1.2.0"}}


def gpu_image(folder: Path, size_bytes: int) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run `make gpu-image` with a fake engine, whose images have this size. Returns also the engine's arguments."""
    sizes = {
        "library": {"torch 2.14.1": size_bytes // 2, "idna 3.20": 1000},
        "pack": {"toy": 2000},
        "rest": {"Debian": size_bytes - size_bytes // 2 - 3000},
    }
    (folder / "sizes").write_text(json.dumps(sizes), encoding="utf-8")
    (folder / "release").write_text(json.dumps(RELEASE), encoding="utf-8")
    engine = folder / "docker"
    engine.write_text(
        f"""#!/bin/sh
echo "$@" >>{folder}/arguments
case "$1" in
  run) cat >/dev/null; cat {folder}/sizes ;;
  create) echo container ;;
  cp) cp {folder}/release "$3" ;;
esac
""",
        encoding="utf-8",
    )
    engine.chmod(0o755)
    done = subprocess.run(
        [shutil.which("make") or "make", "-C", str(ROOT), "gpu-image", f"IMAGE_OUT={folder}/out"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, (folder / "arguments").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("size_bytes", "is_taken", "said"),
    [
        (7 * GIB, True, "has 7.0 GiB unpacked, of the 10.0 GiB that Lambda takes"),
        (10 * GIB, True, "of the 10.0 GiB"),
        (10 * GIB + 1, False, "Lambda refuses more than 10.0 GiB"),
        (15 * GIB, False, "has 15.0 GiB unpacked"),
    ],
)
def test_an_image_that_lambda_refuses_is_refused_here(
    tmp_path: Path, size_bytes: int, is_taken: bool, said: str
) -> None:
    done, _ = gpu_image(tmp_path, size_bytes)
    assert said in done.stdout
    assert (done.returncode == 0) is is_taken
    assert "comfy-serverless:gpu is release 0123456789ab: ComfyUI 0.33.0, packs: toy." in done.stdout
    lines = [line.partition("%  ")[2] for line in done.stdout.splitlines() if " MiB " in line]
    assert lines == ["library: torch 2.14.1", "Debian", "pack: toy", "library: 1 smaller ones"]


def test_the_image_is_the_one_that_is_deployed(tmp_path: Path) -> None:
    _, arguments = gpu_image(tmp_path, GIB)
    assert "--target worker" in arguments
    assert f"TORCH_INDEX_URL={CONTEXT['torch_index_url']} " in arguments
    assert "--build-arg TORCH=cuda " in arguments
    assert "--build-arg COMFYUI_ARGS= " in arguments


def test_the_documentation_says_the_same_of_its_size() -> None:
    text = " ".join((ROOT / "docs" / "deploy-gpu.md").read_text(encoding="utf-8").split())
    assert "Lambda refuses an image of more than 10 GiB unpacked" in text
    assert "`make gpu-image`" in text


def test_what_to_ask_for_before_deploying_is_said() -> None:
    text = (ROOT / "docs" / "deploy-gpu.md").read_text(encoding="utf-8")
    before = text[text.index("## Before you deploy") : text.index("## Models and custom nodes")]
    for quota in ("for endpoint usage", "Running On-Demand G and VT instances", "Concurrent executions"):
        assert quota in before
    assert "128 by default" in before  # max_environments, 8, times g6.4xlarge's 16: test_lambda_gpu_stack.py
