"""The contents of /object_info, /models and /system_stats."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_lite import __version__
from comfy_lite.node import Directories, Inputs, NodeType
from comfy_lite.releases import Release

#: The model folders ComfyUI knows. Here, only those whose files a node offers contain any.
MODEL_FOLDERS = (
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "latent_upscale_models",
    "custom_nodes",
    "datasets",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
    "background_removal",
    "frame_interpolation",
    "geometry_estimation",
    "optical_flow",
    "detection",
)
#: Folders of that list that older releases do not have.
_LATER_FOLDERS = frozenset(
    {
        "latent_upscale_models",
        "datasets",
        "background_removal",
        "frame_interpolation",
        "geometry_estimation",
        "optical_flow",
        "detection",
    }
)
#: Folders of that list whose files are no models.
_NO_MODELS = frozenset({"configs", "custom_nodes", "datasets"})
#: folder -> the node and the input that list its files
_OFFERED_BY = {"checkpoints": ("CheckpointLoaderSimple", "ckpt_name")}
_NO_TORCH = "none (comfy_lite runs no models)"


def describe(node_type: NodeType, directories: Directories) -> dict[str, Any]:
    """A node as /object_info shows it."""
    groups: dict[str, Mapping[str, Any]] = {"required": _inputs(node_type.required, directories)}
    optional = _inputs(node_type.optional, directories)
    if optional:
        groups["optional"] = optional
    if node_type.hidden:
        groups["hidden"] = node_type.hidden
    return {
        "input": groups,
        "input_order": {group: list(inputs) for group, inputs in groups.items()},
        "output": node_type.returns,
        "output_is_list": [False] * len(node_type.returns),
        "output_name": node_type.return_names or node_type.returns,
        "name": node_type.class_type,
        "display_name": node_type.display_name,
        "description": node_type.description,
        "python_module": node_type.python_module,
        "category": node_type.category,
        "output_node": node_type.is_output,
        **node_type.entry,
    }


def model_folders(directories: Directories, release: Release) -> list[dict[str, Any]]:
    """The model folders with their places, in the order of the search."""
    return [
        {"name": folder, "folders": [str(place) for place in directories.models.get(folder, ())]}
        for folder in model_folder_names(release)
        if folder not in _NO_MODELS
    ]


def models_in(
    folder: str, nodes: Mapping[str, NodeType], directories: Directories, release: Release
) -> list[str] | None:
    """The files of a model folder, or None when there is no such folder."""
    if folder not in model_folder_names(release):
        return None
    class_type, name = _OFFERED_BY.get(folder, ("", ""))
    if class_type not in nodes:
        return directories.model_files(folder)
    return list(_inputs(nodes[class_type].required, directories)[name][0])


def features_of(release: Release, max_upload_bytes: float) -> dict[str, Any]:
    """What `/features` and the negotiation of a websocket say."""
    if not release.names_its_packages:
        return {"supports_preview_metadata": True, "max_upload_size": max_upload_bytes}
    return {
        "supports_preview_metadata": True,
        "supports_model_type_tags": True,
        "max_upload_size": max_upload_bytes,
        "extension": {"manager": {"supports_v4": True}},
        "node_replacements": True,
        "assets": False,
    }


def model_folder_names(release: Release) -> list[str]:
    """The model folders that a release knows, in its order."""
    return [folder for folder in MODEL_FOLDERS if release.has_more_folders or folder not in _LATER_FOLDERS]


def system_stats(release: Release) -> dict[str, Any]:
    """The machine and this program. `comfy_lite_version` distinguishes it from a real ComfyUI."""
    total, free = _memory()
    more = {"comfy_package_versions": [], "deploy_environment": "comfy_lite"} if release.names_its_packages else {}
    return {
        "system": {
            "os": sys.platform if release.names_its_system else os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": release.version,
            "comfy_lite_version": __version__,
            "required_frontend_version": "",
            "installed_templates_version": "",
            "required_templates_version": "",
            "python_version": sys.version,
            "pytorch_version": _NO_TORCH,
            "embedded_python": False,
            "argv": sys.argv,
            **more,
        },
        "devices": [
            {
                "name": "cpu",
                "type": "cpu",
                "index": None,
                "vram_total": total,
                "vram_free": free,
                "torch_vram_total": total,
                "torch_vram_free": free,
            }
        ],
    }


def _inputs(inputs: Inputs, directories: Directories) -> Mapping[str, Any]:
    return inputs(directories) if callable(inputs) else inputs


def _memory() -> tuple[int, int]:
    """Total and available memory in bytes; zeros on systems without /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return values.get("MemTotal", 0), values.get("MemAvailable", 0)
