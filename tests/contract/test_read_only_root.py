"""A real ComfyUI started by the image's `start.sh`, where its own folder cannot be written, as on Lambda and SageMaker.

Toy packs do what packs do: they write settings beside themselves, copy a script for the editor, fetch a model at first
use. Others cannot be imported. Needs COMFYUI_DIR, and COMFYUI_PYTHON.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.errors import InvalidWorkflow
from tests.contract.engines import REAL_COMFYUI, free_port

pytestmark = pytest.mark.skipif(not REAL_COMFYUI, reason="needs a real ComfyUI: make contract COMFYUI_DIR=…")

OURS = Path(__file__).parents[2] / "comfyui"
#: As root, files that belong to root can only be written with a capability.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"] if os.geteuid() == 0 else []
NODE = """
class {name}:
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "toy"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    def run(self):
        return {{"ui": {{"text": [self.work()]}}}}

    def work(self):
        {work}

NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""
SETTINGS = """
import json, pathlib
HERE = pathlib.Path(__file__).resolve().parent
(HERE / "made.json").write_text("{}")
shipped = HERE / "shipped.json"
shipped.write_text(json.dumps(json.loads(shipped.read_text()) | {"seen": True}))
"""
SCRIPT_FOR_THE_EDITOR = """
import inspect, os, shutil, folder_paths, server
HERE = os.path.dirname(os.path.realpath(__file__))
for base in (folder_paths.base_path, os.path.dirname(os.path.realpath(inspect.getfile(server.PromptServer)))):
    target = os.path.join(base, "web", "extensions", "toy")
    os.makedirs(target, exist_ok=True)
    shutil.copy(os.path.join(HERE, "toy.js"), target)
"""
FETCH = """import os, folder_paths
        folder = os.path.join(folder_paths.models_dir, "toy")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "net.bin"), "a") as file:
            file.write("fetched")
        return os.path.join(folder, "net.bin")"""
PACKS = {
    "settings_pack": {
        "__init__.py": SETTINGS + NODE.format(name="ToySettings", work="return 'ran'"),
        "shipped.json": "{}",
    },
    "editor_pack": {
        "__init__.py": SCRIPT_FOR_THE_EDITOR + NODE.format(name="ToyEditor", work="return 'ran'"),
        "toy.js": "//",
    },
    "fetching_pack": {"__init__.py": NODE.format(name="ToyFetch", work=FETCH)},
    "lost_pack": {"__init__.py": "import not_there_at_all\n" + NODE.format(name="ToyLost", work="return ''")},
    "half_pack": {"__init__.py": "def x(:\n"},
    "no_pack": {"__init__.py": "x = 1\n"},
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI as it lies in the image, with the toy packs; nothing in it can be written."""
    image = tmp_path_factory.mktemp("opt") / "comfyui"
    left_out = {".git", "custom_nodes", "input", "output", "temp", "user", "web", "tests", "tests-unit"}
    top = str(REAL_COMFYUI)
    shutil.copytree(top, image, ignore=lambda folder, names: left_out & set(names) if folder == top else ())
    for name in ("start.sh", "writable_tree.py", "extra_model_paths.yaml"):
        shutil.copy(OURS / name, image)
    (image / "web").mkdir()
    for pack, files in PACKS.items():
        for name, text in files.items():
            (image / "custom_nodes" / pack / name).parent.mkdir(parents=True, exist_ok=True)
            (image / "custom_nodes" / pack / name).write_text(text)
    for path in (image, *image.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return image


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is /tmp on Lambda."""
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="module")
def connector(image: Path, temporary: Path) -> Iterator[ComfyConnector]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("COMFYUI_ARGS", "--cpu")
        command = shlex.join([*WITHOUT_RIGHTS, str(image / "start.sh")])
        settings = replace(Settings.from_environment(), api_command_line=command, initial_port=free_port())
        warm = ComfyConnector(settings=settings)
        yield warm
        warm.kill_api()


def run(connector: ComfyConnector, class_type: str) -> str:
    (output,) = connector.run({"1": {"class_type": class_type, "inputs": {}}}).outputs
    return output.read().decode()


def test_packs_write_beside_themselves(connector: ComfyConnector, image: Path, temporary: Path) -> None:
    assert run(connector, "ToySettings") == "ran"
    pack = temporary / "comfyui" / "custom_nodes" / "settings_pack"
    assert json.loads((pack / "shipped.json").read_text()) == {"seen": True}
    assert not (image / "custom_nodes" / "settings_pack" / "made.json").exists()


def test_packs_add_scripts_to_the_editor(connector: ComfyConnector, temporary: Path) -> None:
    assert run(connector, "ToyEditor") == "ran"
    assert (temporary / "comfyui" / "web" / "extensions" / "toy" / "toy.js").is_file()


def test_packs_fetch_models_at_first_use(connector: ComfyConnector, temporary: Path) -> None:
    net = temporary / "comfyui" / "models" / "toy" / "net.bin"
    assert run(connector, "ToyFetch") == str(net)
    assert net.read_text().startswith("fetched")


def test_the_images_models_and_the_folders_of_jobs_are_where_they_belong(
    connector: ComfyConnector, image: Path, temporary: Path
) -> None:
    places = connector._engine.model_places()
    assert places is not None
    assert places["checkpoints"][0] == temporary / "comfyui" / "models" / "checkpoints"
    models = [path.name for path in (image / "models" / "checkpoints").iterdir()]
    assert {path.name for path in places["checkpoints"][0].iterdir()} == set(models)
    assert connector._engine.folder("output") == (temporary / "comfyui" / "output").resolve()
    assert connector._engine.folder("temp") == (temporary / "comfyui" / "temp").resolve()


def test_what_did_not_import_is_known_with_its_reason(connector: ComfyConnector) -> None:
    reasons = {lost.pack: lost.reason for lost in connector.not_imported}
    assert reasons.keys() == {"lost_pack", "half_pack", "no_pack"}
    assert reasons["lost_pack"] == "No module named 'not_there_at_all'"
    assert reasons["half_pack"].startswith("invalid syntax")
    assert "NODE_CLASS_MAPPINGS" in reasons["no_pack"]


def test_the_job_that_misses_its_class_hears_it(connector: ComfyConnector) -> None:
    with pytest.raises(InvalidWorkflow) as raised:
        run(connector, "ToyLost")
    assert "it is of lost_pack, which did not import: No module named 'not_there_at_all'" in str(raised.value)


def test_the_next_start_has_the_images_code_and_what_was_fetched(connector: ComfyConnector, temporary: Path) -> None:
    run(connector, "ToyFetch")
    tree = temporary / "comfyui"
    (tree / "custom_nodes" / "settings_pack" / "__init__.py").write_text("raise RuntimeError('changed by a job')\n")
    (tree / "custom_nodes" / "planted.py").write_text("raise RuntimeError('made by a job')\n")
    connector._engine.replace(connector.starts)
    assert run(connector, "ToySettings") == "ran"
    assert {lost.pack for lost in connector.not_imported} == {"lost_pack", "half_pack", "no_pack"}
    assert (tree / "models" / "toy" / "net.bin").is_file()
