"""Which folder of models an input takes a file of: our table beside what a real ComfyUI offers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.connector.model_folders import MODEL_FOLDERS
from comfy_serverless.graph.nodes import MODEL_INPUTS, RENAMED_FOLDERS, declared
from tests.contract.engines import REAL_COMFYUI, EngineProcess
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(not REAL_COMFYUI, reason="the embedded engine has no folders of models")


def offered(object_info: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The folder whose marked file each input of ComfyUI's own classes offers."""
    found = {}
    for class_type, declaration in object_info.items():
        if declared(declaration).is_own:
            for group in ("required", "optional"):
                for name, spec in declaration["input"].get(group, {}).items():
                    text = json.dumps(spec)
                    for folder in MODEL_FOLDERS:
                        if f'"only-in-{folder}.safetensors"' in text:
                            found[class_type, name] = RENAMED_FOLDERS.get(folder, folder)
    return found


def test_every_loader_of_comfyui_is_in_the_table(start_engine: Callable[..., EngineProcess], tmp_path: Path) -> None:
    for folder in MODEL_FOLDERS:
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / f"only-in-{folder}.safetensors").touch()
    config = tmp_path / "paths.yaml"
    config.write_text(
        json.dumps({"test": {"base_path": str(tmp_path / "models"), **{name: name for name in MODEL_FOLDERS}}})
    )
    engine = start_engine("--extra-model-paths-config", str(config))
    object_info = requests.get(f"{engine.url}/object_info", timeout=PATIENCE_S).json()
    ours = {
        (class_type, name): folder
        for class_type, inputs in MODEL_INPUTS.items()
        for name, folder in inputs.items()
        if name in {key for group in object_info.get(class_type, {}).get("input", {}).values() for key in group}
    }
    assert ours == offered(object_info)
