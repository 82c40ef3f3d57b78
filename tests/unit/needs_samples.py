"""Workflows that need models, packs and keys, as the editor saves them; and what a small ComfyUI declares."""

from __future__ import annotations

from typing import Any

from tests.unit.editor_samples import SUBGRAPH, node, saved

FOX_URL = "https://huggingface.co/somebody/fox/resolve/main/fox.safetensors"
STYLE_URL = "https://civitai.com/api/download/models/123"
SHA256 = "ab" * 32


def combo(*choices: str, **options: Any) -> list[Any]:
    return [list(choices), options]


def declared(required: dict[str, Any], *outputs: str, **more: Any) -> dict[str, Any]:
    return {
        "input": {"required": required},
        "input_order": {"required": list(required)},
        "output": list(outputs),
        "output_node": not outputs,
        **more,
    }


#: It has one checkpoint and one LoRA in a subfolder, and no other models.
OBJECT_INFO: dict[str, Any] = {
    "CheckpointLoaderSimple": declared({"ckpt_name": combo("there.safetensors")}, "MODEL", "CLIP", "VAE"),
    "LoraLoaderModelOnly": declared(
        {
            "model": ["MODEL"],
            "lora_name": combo("styles/ink.safetensors"),
            "strength_model": ["FLOAT", {"default": 1.0}],
        },
        "MODEL",
    ),
    "UNETLoader": declared({"unet_name": combo(), "weight_dtype": combo("default", "fp8")}, "MODEL"),
    "VAELoader": declared({"vae_name": combo("pixel_space")}, "VAE"),
    "CLIPTextEncode": declared(
        {"text": ["STRING", {"multiline": True, "dynamicPrompts": True}], "clip": ["CLIP"]}, "CONDITIONING"
    ),
    "KSampler": declared(
        {
            "model": ["MODEL"],
            "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "sampler_name": combo("euler", "heun"),
        },
        "LATENT",
    ),
    "LoadImage": declared({"image": combo("example.png", image_upload=True)}, "IMAGE", "MASK"),
    "SaveImage": declared({"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}),
    "PackLoader": declared({"file": ["COMBO", {"options": ["there.safetensors"]}], "note": ["STRING", {}]}, "MODEL"),
    "PaidPicture": declared({"prompt": ["STRING", {"multiline": True}]}, "IMAGE", api_node=True),
}


def entry(name: str, url: str = FOX_URL, directory: str = "checkpoints", **more: str) -> dict[str, str]:
    return {"name": name, "url": url, "directory": directory, **more}


def loader(
    node_id: int, class_type: str, values: list[Any] | None, *models: dict[str, Any], **more: Any
) -> dict[str, Any]:
    properties = {"Node name for S&R": class_type, "cnr_id": "comfy-core", "ver": "0.33.0", "models": list(models)}
    return node(node_id, class_type, values, properties=properties, **more)


def with_checkpoint(name: str = "fox.safetensors", **more: Any) -> dict[str, Any]:
    """A checkpoint that the file says the address of."""
    return saved([loader(1, "CheckpointLoaderSimple", [name], entry(name), **more)], [])


def with_subgraph(host_values: list[Any], *, host: dict[str, Any] | None = None, mode: int = 0) -> dict[str, Any]:
    """A host of a subgraph with a loader in it, whose file the host may give by its first value."""
    slot = {"name": "unet_name", "type": "COMBO", "widget": {"name": "unet_name"}, "link": 7}
    inner = loader(10, "UNETLoader", ["inner.safetensors", "default"], entry("inner.safetensors"), inputs=[slot])
    definition = {
        "id": SUBGRAPH,
        "name": "Model",
        "nodes": [inner],
        "links": [{"id": 7, "origin_id": -10, "origin_slot": 0, "target_id": 10, "target_slot": 0, "type": "COMBO"}],
        "inputs": [{"id": "a", "name": "unet_name", "type": "COMBO", "linkIds": [7]}],
        "outputs": [],
    }
    outer = node(
        5, SUBGRAPH, host_values, [{"name": "unet_name", "type": "COMBO", "link": None}], mode=mode, **(host or {})
    )
    return saved([outer], [], definitions={"subgraphs": [definition]})
