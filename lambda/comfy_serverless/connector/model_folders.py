"""ComfyUI's model folders: the first part of a model's place. No IO."""

from __future__ import annotations

from comfy_serverless.graph.nodes import RENAMED_FOLDERS as RENAMED_FOLDERS

#: Those of newer versions and of well-known custom nodes too. Never `custom_nodes`, which is code, nor `configs`, which
#: are not models.
MODEL_FOLDERS = (
    *("animatediff_models", "animatediff_motion_lora", "audio_encoders", "background_removal", "checkpoints"),
    *("classifiers", "clip", "clip_vision", "controlnet", "detection", "diffusion_models", "embeddings"),
    *("frame_interpolation", "geometry_estimation", "gligen", "hypernetworks", "instantid", "ipadapter"),
    *("latent_upscale_models", "loras", "model_patches", "optical_flow", "photomaker", "pulid", "sams"),
    *("style_models", "text_encoders", "unet", "upscale_models", "vae", "vae_approx"),
)
#: A prompt's text names these, without their endings; all others are named by an input that lists what is there.
EMBEDDINGS = "embeddings"
