"""A ComfyUI whose folders are new, which has no output folder yet: the embedded one, or the ComfyUI in COMFYUI_DIR."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_serverless import ComfyConnector, Settings
from tests.contract.engines import REAL_COMFYUI, free_port

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
}
#: The embedded engine makes all its folders when it starts: here it does not make this one.
LITE_WITHOUT_OUTPUT = """
from pathlib import Path
from comfy_lite.__main__ import main
make, left_out = Path.mkdir, []
def make_later(folder, *arguments, **options):
    if folder.name == "output" and not left_out:
        left_out.append(folder)
    else:
        make(folder, *arguments, **options)
Path.mkdir = make_later
raise SystemExit(main())
"""


@pytest.fixture
def connector(tmp_path: Path) -> Iterator[ComfyConnector]:
    base = tmp_path / "new"
    (base / "custom_nodes").mkdir(parents=True)  # without it no ComfyUI starts
    settings = replace(Settings.from_environment(), initial_port=free_port())
    if REAL_COMFYUI:
        settings = replace(settings, comfyui_args=f"--cpu --base-directory {base}")
    else:
        script = tmp_path / "engine.py"
        script.write_text(LITE_WITHOUT_OUTPUT)
        settings = replace(settings, api_command_line=f"{sys.executable} {script} --base-directory {base}")
    fresh = ComfyConnector(settings=settings)
    yield fresh
    fresh.kill_api()


def test_the_first_job_is_kept_apart_and_read_from_disk(connector: ComfyConnector, tmp_path: Path) -> None:
    execution = connector.run(GRAPH, apart_as="first-job")
    [output] = execution.outputs
    output_folder = tmp_path / "new" / "output"
    assert output.path is not None
    assert not output.path.is_relative_to(output_folder)
    assert output.read().startswith(b"\x89PNG")
    assert [path for path in output_folder.rglob("*") if path.is_file()] == [], "it has left ComfyUI's folder"
    connector.discard(execution.prompt_id, apart_as="first-job")
    assert not output.path.exists()


def test_the_first_picture_of_the_machines_owner_is_where_comfyui_has_put_it(
    connector: ComfyConnector, tmp_path: Path
) -> None:
    [output] = connector.run(GRAPH).outputs
    assert output.path is not None
    assert output.path.parent == tmp_path / "new" / "output"
    connector.kill_api()
    assert output.read().startswith(b"\x89PNG"), "it can be read without ComfyUI"
