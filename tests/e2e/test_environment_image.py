"""From `env init` to a picture: a ComfyUI with six packs becomes an image, which runs a workflow of their nodes.

The install is made here, of the checkout in comfyui/ (its files, with packs of the kit of tests/environments); the
libraries are those of the real package index, and so is what builds one of them. The build fetches no pack: all have
been vendored when they were locked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo.sam import build_arguments
from demo.samples import download, read_result
from local.aws.server import LocalAws
from tests.e2e.lambda_container import LambdaContainer, docker
from tests.environments import packs
from tests.environments.outside import Outside, outside
from tests.environments.repositories import git
from tests.start_limit import start_limit_s

ROOT = Path(__file__).parent.parent.parent
NAME = "comfy-serverless-test:packs"
JOB = "six-packs"
BUILD_TIMEOUT_S = 3000
#: Of the registry, of a repository, and of this machine alone.
REGISTERED = ("kit_web", "kit_palette", "kit_writes_beside")
LOCAL = ("kit_one_file", "kit_vanishing")

pytestmark = [pytest.mark.container, pytest.mark.comfyui, pytest.mark.timeout(7200)]


@dataclass(frozen=True)
class Built:
    """What `env init`, `env lock` and the build have made: a folder with the files, and the image `NAME`."""

    folder: Path

    @property
    def lock(self) -> dict[str, Any]:
        """The lock that it was built from."""
        return dict(json.loads((self.folder / "comfyui" / "comfy-build.lock").read_text()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory, world: Outside) -> Path:
    """A ComfyUI as somebody has it at home, with six packs in it."""
    home = tmp_path_factory.mktemp("home") / "ComfyUI"
    ours = {"archives", "comfy-build.yaml", "comfy-build.lock", "models", "custom_nodes", "__pycache__"}
    shutil.copytree(ROOT / "comfyui", home, ignore=lambda folder, names: ours & set(names))
    for name in REGISTERED:
        found = packs.files(name)
        folder = packs.unpack(found, home / "custom_nodes" / packs.registry_id(name))
        (folder / ".tracking").write_text("\n".join(sorted(found)))
    git(home, "clone", "-q", world.repository("kit_v3").url, str(home / "custom_nodes" / "kit_v3"))
    for name in LOCAL:
        found = packs.files(name, packs.versions(name)[0])
        found.pop("pyproject.toml", None)  # what is of this machine alone names no publisher
        packs.unpack(found, home / "custom_nodes" / ("" if name == "kit_one_file" else name))
    return home


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, install: Path, world: Outside) -> Built:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("comfyui", "lambda", "requirements", "workflows"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "archives", "custom_nodes")
        )
    pinned = folder / "comfyui" / "comfy-build.yaml"
    commit = next(line.split()[-1] for line in pinned.read_text().splitlines() if "baseComfyVersion" in line)
    pinned.unlink()  # the lock stays: what it pins for ComfyUI is what the real index is asked for
    _env(folder, world, "init", install, "--comfyui-ref", commit)
    _env(folder, world, "lock", "--vendor", "--comfyui", install)
    here = [f"--build-arg={argument}={value}" for argument, value in build_arguments().items()]
    here += [f"--build-arg={name}={os.environ[name]}" for name in ("TORCH", "TORCH_INDEX_URL") if name in os.environ]
    docker("build", "--target", "worker", "--tag", NAME, *here, str(folder), timeout_s=BUILD_TIMEOUT_S)
    return Built(folder)


@pytest.fixture(scope="module")
def container(built: Built, comfyui_environment: dict[str, str]) -> Iterator[LambdaContainer]:
    with LambdaContainer(NAME, comfyui_environment, start_s=start_limit_s()) as running:
        yield running


def test_the_lock_has_six_packs_of_three_origins(built: Built) -> None:
    assert sorted(pack["source"] for pack in built.lock["packs"]) == ["git", "local", "local", *["registry"] * 3]
    kinds = {entry["name"]: entry["kind"] for entry in built.lock["requirements"]}
    assert (kinds["webcolors"], kinds["docopt"]) == ("wheel", "sdist")


def test_a_workflow_of_all_packs_makes_its_picture_in_the_image(
    built: Built, container: LambdaContainer, local_s3: LocalAws, tmp_path: Path
) -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 0xC0C0C0}},
        "2": {"class_type": "KitTint", "inputs": {"image": ["1", 0], "color": "orange"}},
        "3": {"class_type": "KitBrighten", "inputs": {"image": ["2", 0], "by": 0.1}},
        "4": {"class_type": "KitMirror", "inputs": {"image": ["3", 0]}},
        "5": {"class_type": "KitDarken", "inputs": {"image": ["4", 0]}},
        "6": {"class_type": "KitWrites", "inputs": {"image": ["5", 0]}},
        "7": {"class_type": "KitGone", "inputs": {"image": ["6", 0]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "packs"}},
    }
    answer = container.invoke({"job_id": JOB, "workflow": graph})
    assert answer.get("error") is None, f"{answer['error']}\n{container.log()[-6000:]}"
    s3 = local_s3.client()
    job = read_result(s3, f"{JOB}/result.json")
    assert job.error is None, container.log()[-6000:]
    (made,) = download(job, s3, tmp_path).values()
    with Image.open(made) as picture:
        assert picture.size == (64, 32)
        assert np.asarray(picture.convert("RGB"))[0, 0].tolist() == pytest.approx([108, 75, 13], abs=2)


def test_the_image_says_which_lock_it_is_of(built: Built, container: LambdaContainer) -> None:
    release = json.loads(container.shell("cat /opt/release.json"))
    assert release["packs"].keys() == {pack["name"] for pack in built.lock["packs"]}
    assert len(release["release_version"]) == 12


def _env(folder: Path, world: Outside, *arguments: str | Path) -> None:
    """`comfy-serverless env …` with the registry of the tests, and everybody's package index."""
    done = subprocess.run(
        [sys.executable, "-m", "comfy_serverless.cli", "env", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "lambda"), "COMFY_REGISTRY_URL": world.registry.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"env {arguments[0]}: {done.stdout}\n{done.stderr}"
