"""Where fetched models are, and the file that says so to ComfyUI. For the connector, which starts it, and for jobs.

MODEL_STORE_DIR/models/{folder}/{name}      links, which ComfyUI sees
MODEL_STORE_DIR/blobs/{sha256}              the files they lead to
MODEL_DATA_DIR/{folder}/{name}              models that came with a SageMaker endpoint

The mode of MODEL_STORE_DIR decides who may read there; below it, models are open to everybody.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_serverless.connector.confinement import engine_user

if TYPE_CHECKING:
    from comfy_serverless.settings import Settings

#: ComfyUI's model folders, including those of newer versions and of well-known custom nodes. Never `custom_nodes`,
#: which is code, nor `configs`, which are not models.
MODEL_FOLDERS = (
    *("animatediff_models", "animatediff_motion_lora", "audio_encoders", "background_removal", "checkpoints"),
    *("classifiers", "clip", "clip_vision", "controlnet", "detection", "diffusion_models", "embeddings"),
    *("frame_interpolation", "geometry_estimation", "gligen", "hypernetworks", "instantid", "ipadapter"),
    *("latent_upscale_models", "loras", "model_patches", "optical_flow", "photomaker", "pulid", "sams"),
    *("style_models", "text_encoders", "unet", "upscale_models", "vae", "vae_approx"),
)
#: Lets everybody list a folder and open what is in it.
_READABLE = 0o055


def store_directory(settings: Settings) -> Path:
    """Where models are kept: MODEL_STORE_DIR, else this user's own folder among the temporary files."""
    default = Path(tempfile.gettempdir()) / f"comfy-serverless-models-{os.getuid()}"
    return settings.model_store_dir or default


def make_store_directory(settings: Settings) -> Path:
    """Make the store directory, if it is missing, for this user alone; an engine of another user may read there.

    Raises:
        OSError: it cannot be made, or another user has put something there.
    """
    directory = store_directory(settings).absolute()
    directory.mkdir(mode=0o700, parents=settings.model_store_dir is not None, exist_ok=True)
    found = directory.lstat()
    if settings.model_store_dir is None and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
        raise PermissionError(f"{directory} is not a folder of this user's own; set MODEL_STORE_DIR")
    if engine_user() is not None and (found.st_mode & _READABLE) != _READABLE:
        directory.chmod(stat.S_IMODE(found.st_mode) | _READABLE)
    return directory


def write_paths_config(settings: Settings) -> Path:
    """Write the file for ComfyUI's `--extra-model-paths-config`. Returns its path.

    It is JSON, which is YAML too. The store comes first among the places of a folder: a file of the same name must
    not hide the model that a job asks for by content.

    Raises:
        OSError: it cannot be written.
    """
    directory = make_store_directory(settings)
    folders = {folder: folder for folder in MODEL_FOLDERS}
    config = {"comfy_serverless": {"base_path": str(directory / "models"), "is_default": True, **folders}}
    if settings.model_data_dir.is_dir():
        config["sagemaker"] = {"base_path": str(settings.model_data_dir), **folders}
    path = directory / "extra_model_paths.yaml"
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".paths-")
    os.fchmod(descriptor, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    Path(temporary).replace(path)
    return path
