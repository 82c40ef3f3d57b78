"""The images, all built from the repository's one Dockerfile."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aws_cdk import aws_ecr_assets as ecr_assets
from constructs import Construct

from infra.settings import GpuSettings

ROOT = Path(__file__).parent.parent
#: What the image is built from: `comfy-serverless env lock` writes it.
LOCK = ROOT / "comfyui" / "comfy-build.lock"


def lock_version() -> str:
    """What an image that is built now tells as its release_version; "" without a lock."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12] if LOCK.is_file() else ""


def worker_image(scope: Construct, settings: GpuSettings) -> ecr_assets.DockerImageAsset:
    """The image with ComfyUI, a torch with CUDA, and the worker."""
    return ecr_assets.DockerImageAsset(
        scope,
        "WorkerImage",
        directory=str(ROOT),
        target="worker",
        build_args={
            "TORCH": "cuda",
            "TORCH_INDEX_URL": settings.torch_index_url,
            "COMFYUI_REF": settings.comfyui_ref,
            "COMFYUI_ARGS": settings.comfyui_args,
        },
        platform=ecr_assets.Platform.LINUX_AMD64,
    )


def cpu_worker_image(scope: Construct, settings: GpuSettings) -> ecr_assets.DockerImageAsset:
    """The same with a torch for processors alone."""
    return ecr_assets.DockerImageAsset(
        scope,
        "WorkerImage",
        directory=str(ROOT),
        target="worker",
        build_args={"TORCH": "cpu", "COMFYUI_REF": settings.comfyui_ref},
        platform=ecr_assets.Platform.LINUX_AMD64,
    )


def chosen_environment(settings: GpuSettings) -> dict[str, str]:
    """The worker's variables for what has been chosen. (SageMaker refuses empty variables.)"""
    chosen = {
        "MODELS_MANIFEST": settings.models_manifest,
        "MORE_SETTINGS": settings.more_settings,
        "HUGGING_FACE_TOKEN_PARAMETER": settings.hugging_face_token_parameter,
        "CIVITAI_TOKEN_PARAMETER": settings.civitai_token_parameter,
    }
    return {name: value for name, value in chosen.items() if value}


def api_image(scope: Construct) -> ecr_assets.DockerImageAsset:
    """The image without an engine."""
    return ecr_assets.DockerImageAsset(
        scope, "ApiImage", directory=str(ROOT), target="api", platform=ecr_assets.Platform.LINUX_AMD64
    )
