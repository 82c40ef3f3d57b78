"""A version with an input of every kind, and the declarations of its classes."""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.version import NamedInput, Version

GREATEST_SEED = 2**64 - 1

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 8.0,
            "sampler_name": "euler",
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
            "model": ["4", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "product.png"}, "_meta": {"title": "Load Product Image"}},
}

_TEXT = ["STRING", {"multiline": True, "dynamicPrompts": True}]
OBJECT_INFO: dict[str, Any] = {
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"min": 0, "max": GREATEST_SEED, "control_after_generate": True}],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}],
                "sampler_name": [["euler", "heun", "dpmpp_2m"]],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
            }
        },
        "output": ["LATENT"],
        "display_name": "KSampler",
    },
    "CheckpointLoaderSimple": {
        "input": {"required": {"ckpt_name": [["a.safetensors", "b.safetensors"]]}},
        "output": ["MODEL", "CLIP", "VAE"],
        "display_name": "Load Checkpoint",
    },
    "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"]}}, "output": ["LATENT"]},
    "CLIPTextEncode": {
        "input": {"required": {"text": _TEXT, "clip": ["CLIP"]}},
        "output": ["CONDITIONING"],
        "display_name": "CLIP Text Encode (Prompt)",
    },
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
        "output_node": True,
        "display_name": "Save Image",
    },
    "LoadImage": {
        "input": {"required": {"image": [["product.png"], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
        "display_name": "Load Image",
    },
}

INPUTS = (
    NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, role=Role.PROMPT, default="a fox"),
    NamedInput(
        name="seed",
        targets=("3.seed",),
        kind=InputKind.INTEGER,
        role=Role.SEED,
        default=-1,
        minimum=0,
        maximum=GREATEST_SEED,
    ),
    NamedInput(name="steps", targets=("3.steps",), kind=InputKind.INTEGER, default=20, minimum=1, maximum=10000),
    NamedInput(
        name="cfg", targets=("3.cfg",), kind=InputKind.NUMBER, default=8.0, minimum=0.0, maximum=100.0, step=0.1
    ),
    NamedInput(
        name="sampler",
        targets=("3.sampler_name",),
        kind=InputKind.CHOICE,
        default="euler",
        choices=("euler", "heun", "dpmpp_2m"),
    ),
    NamedInput(name="level", targets=("3.level",), kind=InputKind.CHOICE, default=1, choices=(1, 2.5, True, "1")),
    NamedInput(name="model", targets=("4.x",), kind=InputKind.CHOICE, choices=("a",), is_open=True),
    NamedInput(name="tiled", targets=("3.tiled",), kind=InputKind.BOOLEAN, default=False),
    NamedInput(
        name="photo", targets=("10.image",), kind=InputKind.FILE, role=Role.IMAGE, media="image", is_required=True
    ),
    NamedInput(name="clip", targets=("4.file",), kind=InputKind.FILE, media="video"),
    NamedInput(name="curve", targets=("3.curve",), kind=InputKind.OTHER),
)


def version(*inputs: NamedInput, graph: dict[str, Any] | None = None) -> Version:
    return Version(name="poster", number=1, owner="", graph=graph or GRAPH, inputs=inputs or INPUTS)
