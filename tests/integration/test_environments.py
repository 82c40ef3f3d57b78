"""From an install to what an image is built from, by the real commands, with an outside on this machine.

What ComfyUI says of such packs: tests/contract/test_environment_of_packs.py.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_blocks import blocks
from tests.environments import broken, installs, packs
from tests.environments.checkout import Checkout, git, local, registry
from tests.environments.image import BuiltImage
from tests.environments.installs import Install
from tests.environments.local_server import Answer
from tests.environments.outside import Outside, outside

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture
def checkout(tmp_path: Path, world: Outside) -> Checkout:
    (tmp_path / "checkout").mkdir()
    return Checkout(tmp_path / "checkout", world)


SIX = ("kit_good", "kit_web", "kit_v3", "kit_source", "kit_needs_compiler", "kit_one_file")


def test_what_somebody_reads_of_a_broken_environment_is_recorded_for_each() -> None:
    assert list(broken.recorded()) == list(broken.ENVIRONMENTS)
    assert len(broken.ENVIRONMENTS) >= 10


@pytest.mark.parametrize("title", broken.ENVIRONMENTS)
def test_a_broken_environment_is_not_locked_and_says_why(title: str, world: Outside, tmp_path: Path) -> None:
    assert broken.said(title, world, tmp_path) == broken.recorded()[title], (
        "python -m tests.environments.broken records what is said now"
    )


def test_an_override_that_was_proposed_resolves_the_conflict(checkout: Checkout) -> None:
    conflict = [registry("kit_conflict_a"), registry("kit_conflict_b")]
    checkout.write(*conflict)
    refused = checkout.env("lock", "--json")
    (override,) = json.loads(refused.stdout)["error"]["details"]["override"]
    checkout.write(*conflict, pip=[override])
    checkout.succeeds("lock")
    assert override in json.loads(checkout.lock_file.read_text())["overrides"]


def test_the_same_file_locked_twice_is_the_same_lock_to_the_byte(checkout: Checkout, world: Outside) -> None:
    checkout.write(*(registry(name) for name in SIX[:4]), git("kit_web_git", world.repository("kit_web").url, "v2.0.0"))
    checkout.succeeds("lock")
    first = checkout.lock_file.read_bytes()
    checkout.succeeds("lock")
    assert checkout.lock_file.read_bytes() == first
    checkout.lock_file.unlink()
    checkout.succeeds("lock")
    assert checkout.lock_file.read_bytes() == first, "nothing of the time, the machine or the order"
    assert str(world.folder).encode() not in re.sub(rb'"file://[^"]*"', b"", first)


@pytest.fixture
def install(tmp_path: Path, world: Outside) -> Install:
    """A ComfyUI with six packs: two of the registry, two of repositories, a folder and a file of this machine alone."""
    made = Install(tmp_path / "ComfyUI", world.comfyui)
    made.add_registry_pack("kit_good", "1.0.0")
    made.add_registry_pack("kit_source")
    made.add_git_pack("kit_vanishing", world.repository("kit_vanishing"), ref="v1.0.0")
    made.add_git_pack("kit_v3", world.repository("kit_v3"))
    made.add_local_pack("kit_web")
    made.add_local_pack("kit_one_file")
    made.add_disabled_pack("kit_twin")
    made.add_models()
    made.add_litter()
    return made


def test_an_install_becomes_the_folders_that_an_image_is_made_of(
    checkout: Checkout, install: Install, world: Outside, tmp_path: Path
) -> None:
    checkout.succeeds("init", install.folder)
    checkout.succeeds("lock", "--vendor", "--comfyui", install.folder)
    lock = json.loads(checkout.lock_file.read_text())
    assert {pack["name"]: pack["source"] for pack in lock["packs"]} == {
        "kit-good": "registry",
        "kit-source": "registry",
        "kit_v3": "git",
        "kit_vanishing": "git",
        "kit_web": "local",
        "kit_one_file.py": "local",
    }
    assert {model["sha256"] for model in lock["models"]} == {installs.sha256(path) for path in installs.MODELS}
    asked = len(world.registry.requests)
    image = BuiltImage(tmp_path / "image", checkout)
    done = image.build()
    assert done.returncode == 0, done.stderr
    assert len(world.registry.requests) == asked, "all archives have been vendored"
    for name, folder in {"kit_good": "kit-good", "kit_vanishing": "kit_vanishing", "kit_web": "kit_web"}.items():
        made = image.comfyui / "custom_nodes" / folder / "__init__.py"
        assert made.read_bytes() == packs.files(name, "1.0.0" if name != "kit_web" else None)["__init__.py"]
    assert (image.comfyui / "custom_nodes" / "kit_one_file.py").is_file()
    assert 'version__ = "0.33.0"' in (image.comfyui / "comfyui_version.py").read_text()
    image.install()
    assert {file.stem for file in image.site_packages.glob("kit_*.py")} >= {"kit_colors", "kit_source", "kit_engine"}


def test_a_snapshot_of_the_manager_is_locked_to_the_same_packs(
    checkout: Checkout, install: Install, tmp_path: Path
) -> None:
    checkout.succeeds("init", install.folder)
    checkout.succeeds("lock", "--comfyui", install.folder)
    (tmp_path / "snapshot.json").write_text(install.snapshot())
    checkout.succeeds("init", tmp_path / "snapshot.json", "-o", "snapshot.yaml")
    checkout.succeeds("lock", "--file", "snapshot.yaml", "--lock", "snapshot.lock")
    first = {pack["name"]: pack["sha256"] for pack in json.loads(checkout.lock_file.read_text())["packs"]}
    second = json.loads((checkout.folder / "snapshot.lock").read_text())
    assert {pack["name"]: pack["sha256"] for pack in second["packs"]} == {
        name: sha256 for name, sha256 in first.items() if name not in ("kit_web", "kit_one_file.py")
    }
    assert not any(model for model in second["models"])
    told = checkout.succeeds("diff", "comfyui/comfy-build.lock", "snapshot.lock")
    assert "- kit_web local" in told


def test_a_workflow_is_locked_to_the_packs_that_its_nodes_name(checkout: Checkout, tmp_path: Path) -> None:
    nodes = [
        {"id": 1, "type": "KitInvert", "properties": {"cnr_id": "kit-good", "ver": "1.0.0"}},
        {"id": 2, "type": "LoadImage", "properties": {"cnr_id": "comfy-core", "ver": "0.33.0"}},
    ]
    (tmp_path / "workflow.json").write_text(json.dumps({"nodes": nodes, "links": [], "version": 0.4}))
    checkout.succeeds("init", tmp_path / "workflow.json")
    checkout.succeeds("lock")
    lock = json.loads(checkout.lock_file.read_text())
    assert [(pack["name"], pack["version"]) for pack in lock["packs"]] == [("kit-good", "1.0.0")]
    assert (lock["comfyui"]["ref"], lock["comfyui"]["version"]) == ("v0.33.0", "0.33.0")


def test_the_page_shows_what_the_commands_print(checkout: Checkout, world: Outside) -> None:
    made = Install(checkout.folder / "ComfyUI", world.comfyui)
    made.add_registry_pack("kit_good", "1.0.0")
    made.add_registry_pack("kit_v3")
    made.add_local_pack("kit_web")
    made.add_models(["checkpoints/kit.safetensors"])
    (checkout.folder / "comfy-serverless").write_text('#!/bin/sh\nexec python -m comfy_serverless.cli "$@" 2>&1\n')
    (checkout.folder / "comfy-serverless").chmod(0o755)
    shown = [block for block in blocks() if block.page.name == "environments.md" and block.text.startswith("$ ")]
    assert len(shown) >= 3
    for command, lines in [step for block in shown for step in _steps(block.text)]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout.folder,
            env={**checkout.variables, "PATH": f"{checkout.folder}:{checkout.variables['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        printed = _alike((done.stdout + done.stderr).replace(str(checkout.folder), "~"))
        assert done.returncode == 0, printed
        assert [line for line in _alike("\n".join(lines)) if line not in printed] == []


def _alike(text: str) -> list[str]:
    """The lines of a text, without the hash of a lock that has an address of this machine in it."""
    return re.sub(r"release [0-9a-f]{12}", "release …", text).splitlines()


def _steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines below it."""
    return [(step.splitlines()[0], step.splitlines()[1:]) for step in re.split(r"(?m)^\$ ", text)[1:]]


def test_a_library_that_a_pack_does_not_declare_is_installed_by_a_line_of_ones_own(
    checkout: Checkout, tmp_path: Path
) -> None:
    checkout.write(registry("kit_hidden_requirements"))
    (checkout.folder / "comfyui" / "more-requirements.txt").write_text("# of kit-hidden-requirements\nkit-extra\n")
    checkout.succeeds("lock")
    image = BuiltImage(tmp_path / "image", checkout)
    done = image.build()
    assert done.returncode == 0, done.stderr
    image.install()
    assert (image.site_packages / "kit_extra.py").is_file()
    assert "kit-extra==1.0" in (image.folder / "lists" / "packs.txt").read_text()


def test_a_lock_of_a_changed_file_is_stale(checkout: Checkout) -> None:
    checkout.write(registry("kit_web"))
    checkout.succeeds("lock")
    checkout.write(registry("kit_web"), registry("kit_v3"))
    stale = checkout.env("lock", "--check")
    assert (stale.returncode, stale.stdout) == (1, "")
    assert "Run comfy-serverless env lock" in stale.stderr


def test_a_build_takes_nothing_that_is_not_what_was_locked(checkout: Checkout, world: Outside, tmp_path: Path) -> None:
    checkout.write(registry("kit_web"))
    checkout.succeeds("lock")
    world.registry.trouble["/archives/kit-web/2.0.0/node.zip"] = Answer(body=packs.archive({"__init__.py": b"other"}))
    done = BuiltImage(tmp_path / "changed", checkout).build()
    world.registry.trouble.clear()
    assert done.returncode == 1
    assert "kit-web" in done.stderr
    assert "The image cannot be built" in done.stderr
    assert BuiltImage(tmp_path / "right", checkout).build().returncode == 0


def test_a_local_pack_whose_archive_is_not_here_is_named(checkout: Checkout, install: Install, tmp_path: Path) -> None:
    checkout.write(local("kit_web"))
    checkout.succeeds("lock", "--comfyui", install.folder)
    for archive in (checkout.folder / "comfyui" / "archives").iterdir():
        archive.unlink()
    done = BuiltImage(tmp_path / "image", checkout).build()
    assert done.returncode == 1
    assert "the pack kit_web is a local one" in done.stderr
    assert "env lock" in done.stderr


def test_what_the_image_has_itself_is_no_reason_to_fail(checkout: Checkout) -> None:
    checkout.write(registry("kit_takes_torch"), pip=["torch==2.1.0+cu121", "kit-windows==1.0", "# numpy==1.26.4"])
    done = checkout.env("lock")
    assert done.returncode == 0, done.stderr
    for said in (
        "warning: kit-takes-torch (requirements.txt, line 1) asks for torch==2.1.0",
        "warning: pipDependencies has torch==2.1.0+cu121: it is not applied",
        "warning: pipDependencies has kit-windows==1.0: nothing asks for kit-windows, and an override adds no library",
    ):
        assert said in done.stderr


def test_what_an_install_script_would_fetch_is_listed(checkout: Checkout) -> None:
    checkout.write(registry("kit_install_script"), registry("kit_hidden_requirements"))
    done = checkout.env("lock")
    assert done.returncode == 0, done.stderr
    assert "kit-install-script has install.py, which is not run" in done.stderr
    assert "kit-hidden-requirements names libraries in pyproject.toml and has no requirements.txt" in done.stderr
    (scripts,) = (
        pack["install_scripts"]
        for pack in json.loads(checkout.lock_file.read_text())["packs"]
        if pack["name"] == "kit-install-script"
    )
    assert "https://models.example.com/kit/weights.safetensors" in scripts[0]["fetches"]
