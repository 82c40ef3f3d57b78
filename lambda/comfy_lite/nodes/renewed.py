"""The nodes as later releases declare them. The modules beside this one declare them as ComfyUI 0.3.64 does.

What a workflow meets: nodes that save and preview give on what they were given, more samplers, frames counted from the
end. What an editor shows: other names, other places in its menu, inputs that it folds away. And most classes are in
ComfyUI's newer (V3) form. Seen in 0.33.0's `/object_info`; the releases in between were not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from comfy_lite.node import Inputs, InputSpec, NodeResult, NodeType
from comfy_lite.nodes import ALL, load, mask, save
from comfy_lite.nodes.declare import MAX_SIZE
from comfy_lite.nodes.text_to_image import LATER_SAMPLERS
from comfy_lite.releases import Release

#: Classes in the V3 form.
_V3 = frozenset(
    {
        *("SaveAnimatedWEBP", "SaveAnimatedPNG", "RepeatImageBatch", "ImageFromBatch", "ImageCrop", "ImageFlip"),
        *("ImageRotate", "ImageCompositeMasked", "ImageBlend", "SolidMask", "InvertMask", "MaskToImage", "ImageToMask"),
        *("GrowMask", "FeatherMask", "ImageBlur", "ImageSharpen", "ImageQuantize"),
    }
)
_V3_ENTRY: Mapping[str, Any] = {
    "is_input_list": False,
    "output_tooltips": [None],
    "output_matchtypes": None,
    "deprecated": False,
    "experimental": False,
    "dev_only": False,
    "api_node": False,
    "price_badge": None,
    "has_intermediate_output": False,
}
_ENTRY: Mapping[str, Any] = {"is_input_list": False, "has_intermediate_output": False}
_DEPRECATED = ("ImageBatch", "ImageCrop")
#: Nodes that had no output: the type and the name of what they give on.
_OUTPUTS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "SaveAnimatedPNG"), ("IMAGE", "images")),
    "PreviewAny": ("STRING", "STRING"),
}
_FOLDED_AWAY = {"advanced": True}
#: What is new in the options of inputs.
_OPTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "KSamplerAdvanced": dict.fromkeys(
        ("add_noise", "start_at_step", "end_at_step", "return_with_leftover_noise"), _FOLDED_AWAY
    ),
    "SaveAnimatedPNG": {"compress_level": _FOLDED_AWAY},
    "ImagePadForOutpaint": {"feathering": _FOLDED_AWAY},
    "GrowMask": {"tapered_corners": _FOLDED_AWAY},
    "ImageSharpen": dict.fromkeys(("sharpen_radius", "sigma", "alpha"), _FOLDED_AWAY),
    "ImageFromBatch": {"batch_index": {"min": -MAX_SIZE, "max": MAX_SIZE}},
}
_NAMES: Mapping[str, str] = {
    "SaveAnimatedWEBP": "Save Animated WEBP",
    "SaveAnimatedPNG": "Save Animated PNG",
    "SaveImageWebsocket": "Save Image (Websocket)",
    "PreviewAny": "Preview as Text",
    "EmptyImage": "Empty Image",
    "ImageInvert": "Invert Image Colors",
    "ImageBatch": "Batch Images (DEPRECATED)",
    "RepeatImageBatch": "Repeat Image Batch",
    "ImageFromBatch": "Get Image from Batch",
    "ImageCrop": "Crop Image (DEPRECATED)",
    "ImageFlip": "Flip Image",
    "ImageRotate": "Rotate Image",
    "ImageCompositeMasked": "Image Composite Masked",
    "ImageBlend": "Blend Images",
    "SolidMask": "Create Solid Mask",
    "InvertMask": "Invert Mask",
    "GrowMask": "Grow Mask",
    "FeatherMask": "Feather Mask",
    "ImageBlur": "Blur Image",
    "ImageSharpen": "Sharpen Image",
    "ImageQuantize": "Quantize Image",
}
#: By the class, or by the place where it was.
_CATEGORIES: Mapping[str, str] = {
    "LoadImageMask": "image",
    "SaveImageWebsocket": "image",
    "ImageInvert": "image/color",
    "ImageBatch": "image/batch",
    "ImagePadForOutpaint": "image/transform",
    "ImageCompositeMasked": "image/compositing",
    "loaders": "model/loaders",
    "conditioning": "model/conditioning",
    "latent": "model/latent",
    "sampling": "model/sampling",
    "mask": "image/mask",
    "utils": "utilities",
    "image/animation": "image",
    "image/postprocessing": "image/filters",
}


_ANIMATIONS = ("SaveAnimatedWEBP", "SaveAnimatedPNG")
_EXECUTE: Mapping[str, Callable[..., NodeResult]] = {
    "LoadImageMask": load.load_mask,
    "PreviewAny": save.preview_any,
    "FeatherMask": mask.feather,
}


def nodes_of(release: Release) -> Mapping[str, NodeType]:
    """Every node of the embedded engine by class type, as a release declares it."""
    if not release.renews_nodes:
        return ALL
    return {name: _renewed(node) for name, node in ALL.items()}


def _renewed(node: NodeType) -> NodeType:
    name = node.class_type
    entry = dict(_V3_ENTRY if name in _V3 else _ENTRY)
    if name in _DEPRECATED:
        entry["deprecated"] = True
    return replace(
        node,
        display_name=_NAMES.get(name, node.display_name),
        category=_CATEGORIES.get(name) or _CATEGORIES.get(node.category, node.category),
        execute=save.silent_if_still(node.execute) if name in _ANIMATIONS else _EXECUTE.get(name, node.execute),
        required=_inputs(name, node.required),
        optional=_inputs(name, node.optional),
        hidden={key: [kind] for key, kind in node.hidden.items()} if name in _V3 else node.hidden,
        entry=entry,
        returns=(_OUTPUTS[name][0],) if name in _OUTPUTS else node.returns,
        return_names=(_OUTPUTS[name][1],) if name in _OUTPUTS else node.return_names,
    )


def _inputs(class_type: str, inputs: Inputs) -> Inputs:
    """Those that list files have no new options."""
    if callable(inputs):
        return load.mask_inputs if class_type == "LoadImageMask" else inputs
    return {name: _input(class_type, name, spec) for name, spec in inputs.items()}


def _input(class_type: str, name: str, spec: InputSpec) -> InputSpec:
    kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
    options |= _OPTIONS.get(class_type, {}).get(name, {})
    if name == "sampler_name":
        kind = _with_later_samplers(kind)
    if class_type in _V3:
        if isinstance(kind, list):
            return ("COMBO", {"multiselect": False, "options": kind})
        return (kind, {"multiline": False, **options} if kind == "STRING" else options)
    return (kind, options) if options or len(spec) > 1 else (kind,)


def _with_later_samplers(samplers: list[str]) -> list[str]:
    after = samplers.index("heunpp2") + 1
    return [*samplers[:after], *LATER_SAMPLERS, *samplers[after:]]
