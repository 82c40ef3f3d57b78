"""All that we know of ComfyUI's own node classes, and of a few widespread others: one table.

A class that is not in it is judged by its declaration if there is one, and else by the names of its inputs. A new
release of ComfyUI changes this file and no other; tests compare it with ComfyUI's declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Takes(Enum):
    """The kind of file that an input takes the name of."""

    IMAGE = "image"
    FILE = "file"


#: What the editor calls the pack of ComfyUI's own nodes: their version is that of ComfyUI.
COMFYUI_ITSELF = "comfy-core"
#: The input in which ComfyUI's own savers take the beginning of a name below the output folder.
PREFIX = "filename_prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """Our knowledge of one class.

    Attributes:
        files: its inputs that take the name of a file in ComfyUI's input folder.
        folder: the subfolder of the input folder that it accepts files below; "" for any.
        gives_mask: its first output is the image, and its second is the mask that is in the image's alpha.
        sends_frames: it is an output node that sends its results through the websocket and leaves no file.
        names_preview: it is an output node that chooses the names of its files, in the temp folder, itself.
        judges: inputs that the node judges by itself, so that the list in its declaration is not the law.
        writes_below: the input that says where below the output folder it writes, if that is not `filename_prefix`.
        lists_folder: it takes all files of a folder, whatever they are called.
        reads_output: the input by which it takes what lies in the output folder, where the files of a job never stay.
        gives_text: its first output is a text that it has made; of a constant, `constant` is the input that has it.
        hands_on: its output is what it was given, a text as well as a picture.
    """

    files: Mapping[str, Takes] = field(default_factory=dict)
    folder: str = ""
    gives_mask: bool = False
    sends_frames: bool = False
    names_preview: bool = False
    judges: frozenset[str] = frozenset()
    writes_below: str = PREFIX
    lists_folder: bool = False
    reads_output: str = ""
    gives_text: bool = False
    constant: str = ""
    hands_on: bool = False


_LISTS_FOLDER = KnownNode(lists_folder=True)
_MAKES_TEXT = KnownNode(gives_text=True)
_HANDS_ON = KnownNode(hands_on=True)
_CONSTANT_TEXT = KnownNode(gives_text=True, constant="value")

NODES: Mapping[str, KnownNode] = {
    "ComfySwitchNode": _HANDS_ON,
    "CreateList": _HANDS_ON,
    "ImageCompare": KnownNode(names_preview=True),
    "Load3D": KnownNode(files={"model_file": Takes.FILE}, folder="3d"),
    "Load3DAdvanced": KnownNode(files={"model_file": Takes.FILE}, folder="3d"),
    "Load3DAnimation": KnownNode(files={"model_file": Takes.FILE}, folder="3d"),
    "LoadAudio": KnownNode(files={"audio": Takes.FILE}),
    "LoadImage": KnownNode(files={"image": Takes.IMAGE}, gives_mask=True),
    "LoadImageDataSetFromFolder": _LISTS_FOLDER,
    "LoadImageMask": KnownNode(files={"image": Takes.IMAGE}),
    "LoadImageOutput": KnownNode(files={"image": Takes.IMAGE}, gives_mask=True),
    "LoadImageSetFromFolderNode": _LISTS_FOLDER,
    "LoadImageTextDataSetFromFolder": _LISTS_FOLDER,
    "LoadImageTextSetFromFolderNode": _LISTS_FOLDER,
    "LoadLatent": KnownNode(files={"latent": Takes.FILE}, judges=frozenset({"latent"})),
    "LoadTrainingDataset": KnownNode(reads_output="folder_name"),
    "LoadVideo": KnownNode(files={"file": Takes.FILE}),
    "LoadVideoDataSetFromFolder": _LISTS_FOLDER,
    "LoadVideoTextDataSetFromFolder": _LISTS_FOLDER,
    "MaskPreview": KnownNode(names_preview=True),
    "ModelAttentionBackend": KnownNode(judges=frozenset({"attention"})),
    "Preview3DAdvanced": KnownNode(names_preview=True),
    "PreviewAudio": KnownNode(names_preview=True),
    "PreviewImage": KnownNode(names_preview=True),
    "SaveImageDataSetToFolder": KnownNode(writes_below="folder_name"),
    "SaveImageTextDataSetToFolder": KnownNode(writes_below="folder_name"),
    "SaveImageWebsocket": KnownNode(sends_frames=True),
    "SaveLoRA": KnownNode(writes_below="prefix"),
    "SaveLoRANode": KnownNode(writes_below="prefix"),
    "SaveTrainingDataset": KnownNode(writes_below="folder_name"),
    "SelectCLIPDevice": KnownNode(judges=frozenset({"device"})),
    "SelectModelDevice": KnownNode(judges=frozenset({"device"})),
    "SelectVAEDevice": KnownNode(judges=frozenset({"device"})),
    # Texts. What makes one of others can hide the name of a file; a constant cannot.
    **dict.fromkeys(("PrimitiveString", "PrimitiveStringMultiline"), _CONSTANT_TEXT),
    **dict.fromkeys(
        (
            *("AddTextPrefix", "AddTextSuffix", "CaseConverter", "ConvertArrayToString", "ConvertDictionaryToString"),
            *("CustomCombo", "JsonExtractString", "MergeTextLists", "PreviewAny", "RegexExtract", "RegexReplace"),
            *("ReplaceText", "SaveText", "StringConcatenate", "StringFormat", "StringReplace", "StringSubstring"),
            *(
                "StringTrim",
                "StripWhitespace",
                "TextToLowercase",
                "TextGenerate",
                "TextGenerateLTX2Prompt",
                "TextToUppercase",
                "TruncateText",
            ),
        ),
        _MAKES_TEXT,
    ),
    # From the pack ComfyUI-VideoHelperSuite.
    "VHS_LoadAudioUpload": KnownNode(files={"audio": Takes.FILE}),
    "VHS_LoadVideo": KnownNode(files={"video": Takes.FILE}),
    "VHS_LoadVideoFFmpeg": KnownNode(files={"video": Takes.FILE}),
}
_UNKNOWN = KnownNode()

#: Loaders of images that a mask can be put into, and that can become a batch.
IMAGE_LOADERS = frozenset(name for name, node in NODES.items() if node.gives_mask)
#: The loader that an image dropped for a workflow goes to.
DROPPED_IMAGE_LOADER = "LoadImage"
#: Joins the texts `string_a` and `string_b`.
TEXT_JOINER = "StringConcatenate"
#: Puts `replace` for what `regex_pattern` finds in the text `string`.
TEXT_REPLACER = "RegexReplace"
#: Joins the images `image1` and `image2` of two nodes.
IMAGE_JOINER = "ImageBatch"
#: The node that `find_output_node` of the original ComfyConnector looks for.
IMAGE_SAVER = "SaveImage"
#: Savers in whose `filename_prefix` the editor fills in dates and values of other nodes.
NAMES_OF_EDITOR = frozenset(
    {"SaveImage", "SaveVideo", "SaveAnimatedWEBP", "SaveWEBM", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveGLB"}
    | {"SaveAnimatedPNG", "CLIPSave", "VAESave", "ModelSave", "LoraSave", "SaveLatent", "SaveImageAdvanced"}
    | {"SaveSVGNode", "SaveAudioAdvanced", "Save3DAdvanced", "SaveGaussianSplat", "SavePointCloud"}
)
#: The smallest graph that every ComfyUI runs.
SMALLEST_GRAPH: Mapping[str, Mapping[str, object]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}

#: The editor's own classes of notes, which stand in no graph: texts for people, of which nothing is fetched or drawn.
NOTE = "Note"
NOTES = (NOTE, "MarkdownNote")
#: Classes with a player of sound, and those with a viewer of models, which the editor adds.
AUDIO_PLAYERS = frozenset(
    {"LoadAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveAudioAdvanced", "PreviewAudio"}
)
MODEL_VIEWERS = frozenset({"Preview3D", "SaveGLB"})
#: Classes that are given pictures of a model, or its camera, as it is seen in the browser.
RENDERED_IN_BROWSER = frozenset({"Load3D", "Load3DAdvanced"})
#: Classes of which old files name a sampler as `sample_…`.
SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced"})

#: Inputs that take the name of a file, in classes that are not in the table.
FILE_INPUT_NAMES: Mapping[str, Takes] = {
    "image": Takes.IMAGE,
    "mask": Takes.IMAGE,
    "video": Takes.FILE,
    "audio": Takes.FILE,
    "file": Takes.FILE,
}
#: Inputs that take the name of a model, in all classes.
MODEL_INPUT_NAMES = frozenset(
    (
        *("ckpt_name", "clip_name", "clip_name1", "clip_name2", "clip_name3", "clip_name4", "control_net_name"),
        *("gligen_name", "hypernetwork_name", "lora_name", "model_name", "style_model_name", "unet_name", "vae_name"),
    )
)
_CLIPS = ("clip_name1", "clip_name2", "clip_name3", "clip_name4")
#: By the inputs in the order of their values: the classes that have them.
_LOADERS: tuple[tuple[Mapping[str, str], tuple[str, ...]], ...] = (
    (
        {"ckpt_name": "checkpoints"},
        (
            *("CheckpointLoader", "CheckpointLoaderSimple", "CreateHookModelAsLora", "CreateHookModelAsLoraModelOnly"),
            *("ImageOnlyCheckpointLoader", "LTXVAudioVAELoader", "unCLIPCheckpointLoader"),
        ),
    ),
    (
        {"lora_name": "loras"},
        (
            *("CreateHookLora", "CreateHookLoraModelOnly", "LoraLoader", "LoraLoaderBypass"),
            *("LoraLoaderBypassModelOnly", "LoraLoaderModelOnly"),
        ),
    ),
    ({"existing_lora": "loras"}, ("TrainLoraNode",)),
    ({"clip_name": "text_encoders"}, ("CLIPLoader",)),
    (dict.fromkeys(_CLIPS[:2], "text_encoders"), ("DualCLIPLoader",)),
    (dict.fromkeys(_CLIPS[:3], "text_encoders"), ("TripleCLIPLoader",)),
    (dict.fromkeys(_CLIPS, "text_encoders"), ("QuadrupleCLIPLoader",)),
    ({"text_encoder": "text_encoders", "ckpt_name": "checkpoints"}, ("LTXAVTextEncoderLoader",)),
    ({"audio_encoder_name": "audio_encoders"}, ("AudioEncoderLoader",)),
    ({"bg_removal_name": "background_removal"}, ("LoadBackgroundRemovalModel",)),
    ({"clip_name": "clip_vision"}, ("CLIPVisionLoader",)),
    ({"control_net_name": "controlnet"}, ("ControlNetLoader", "DiffControlNetLoader")),
    ({"gligen_name": "gligen"}, ("GLIGENLoader",)),
    ({"hypernetwork_name": "hypernetworks"}, ("HypernetworkLoader",)),
    ({"model_name": "detection"}, ("LoadMediaPipeFaceLandmarker",)),
    ({"model_name": "frame_interpolation"}, ("FrameInterpolationModelLoader",)),
    ({"model_name": "geometry_estimation"}, ("LoadDA3Model", "LoadMoGeModel")),
    ({"model_name": "latent_upscale_models"}, ("LatentUpscaleModelLoader",)),
    ({"model_name": "optical_flow"}, ("OpticalFlowLoader",)),
    ({"model_name": "upscale_models"}, ("UpscaleModelLoader",)),
    ({"name": "model_patches"}, ("ModelPatchLoader",)),
    ({"photomaker_model_name": "photomaker"}, ("PhotoMakerLoader",)),
    ({"style_model_name": "style_models"}, ("StyleModelLoader",)),
    ({"unet_name": "diffusion_models"}, ("UNETLoader",)),
    ({"vae_name": "vae"}, ("VAELoader",)),
)
#: Of ComfyUI's own loaders: the folder of models that each of these inputs takes a file of.
MODEL_INPUTS: Mapping[str, Mapping[str, str]] = {
    class_type: inputs for inputs, classes in _LOADERS for class_type in classes
}
#: The same for classes of packs, by the name of the input without a number at its end. `model_name` may be of any.
_FOLDERS_BY_NAME: Mapping[str, str] = {
    "ckpt": "checkpoints",
    "ckpt_name": "checkpoints",
    "clip_name": "text_encoders",
    "clip_vision_name": "clip_vision",
    "control_net_name": "controlnet",
    "controlnet_name": "controlnet",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "lora": "loras",
    "lora_name": "loras",
    "style_model_name": "style_models",
    "unet_name": "diffusion_models",
    "upscale_model_name": "upscale_models",
    "vae_name": "vae",
}
#: Folders of models that ComfyUI has renamed: to it, both names are one folder.
RENAMED_FOLDERS: Mapping[str, str] = {"clip": "text_encoders", "unet": "diffusion_models"}
#: Inputs that mean "a random number, please" when they are -1.
SEED_INPUTS = frozenset({"seed", "noise_seed"})


_MODEL_TYPES = frozenset(
    ("MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "STYLE_MODEL", "UPSCALE_MODEL", "GLIGEN", "LORA_MODEL")
)


@dataclass(frozen=True, slots=True)
class Declared:
    """What ComfyUI says of a class, as far as it decides where its results go.

    Attributes:
        is_own: it is ComfyUI's own, and of no pack.
        is_output: it is a node whose results are wanted for themselves.
        may_read: its results may depend on more than its inputs: on folders, on services, on whose key it has.
        inputs: the names of its inputs.
        is_partner: it calls a paid service of somebody else, with the caller's key.
    """

    is_own: bool
    is_output: bool
    may_read: bool
    inputs: frozenset[str]
    is_partner: bool = False


def declared(declaration: Mapping[str, object]) -> Declared:
    """Read the declaration of a class, as `/object_info` has it."""
    module = str(declaration.get("python_module") or "")
    groups = declaration.get("input")
    groups = groups.values() if isinstance(groups, Mapping) else ()
    inputs = {str(name): spec for names in groups if isinstance(names, Mapping) for name, spec in names.items()}
    is_local = module == "nodes" or module.startswith("comfy_extras.")
    return Declared(
        is_own=is_local or module.startswith("comfy_api_nodes."),
        is_output=bool(declaration.get("output_node")),
        may_read=not is_local and not _loads_a_model(inputs.values(), declaration.get("output")),
        inputs=frozenset(inputs),
        is_partner=declaration.get("api_node") is True,
    )


def _loads_a_model(inputs: Iterable[object], outputs: object) -> bool:
    """Whether a node gives models alone, by names that ComfyUI checks against a list of those that are there now.

    To read gigabytes again for each owner would be dear, and no owner can name what another has brought.
    """
    kinds = [spec[0] if isinstance(spec, list) and spec else spec for spec in inputs]
    is_listed = any(isinstance(kind, list) or kind == "COMBO" for kind in kinds)
    gives_models = isinstance(outputs, list) and bool(outputs) and all(kind in _MODEL_TYPES for kind in outputs)
    return is_listed and "STRING" not in kinds and gives_models


def known(class_type: object) -> KnownNode:
    """Our knowledge of a class; an empty one if the class is not in the table."""
    return NODES.get(class_type, _UNKNOWN) if isinstance(class_type, str) else _UNKNOWN


def loaders_in(graph: Mapping[str, Mapping[str, object]]) -> frozenset[str]:
    """The nodes of a graph that take the name of a file of a model: by it they load weights, or patch others.

    What a model costs when it is first used, on its way to the GPU, is spent in the node that uses it.
    """
    return frozenset(
        node_id
        for node_id, node in graph.items()
        if isinstance(inputs := node.get("inputs"), Mapping)
        and any(
            isinstance(value, str) and model_folder(str(node.get("class_type")), str(name))
            for name, value in inputs.items()
        )
    )


def model_folder(class_type: str, input_name: str) -> str:
    """The folder of models that an input takes a file of; "" if it takes none, or one of a folder we do not know."""
    if (inputs := MODEL_INPUTS.get(class_type)) is not None:
        return inputs.get(input_name, "")
    return _FOLDERS_BY_NAME.get(input_name.lower().rstrip("0123456789").rstrip("_"), "")
