"""Small workflows as the editor saves them, and the classes that they use. Written by hand.

workflow(
    node(1, "EmptyImage", [64, 64, 1, 0]),
    node(2, "PreviewImage", image=(1, 0)),      # the input `image` is linked to output 0 of node 1
    node(3, "EmptyLatentImage", [8, 8, 1], width=(4, 0)),  # likewise a widget's
)
"""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert import convert


def spec(kind: Any, **options: Any) -> list[Any]:
    return [kind, options]


def declare(
    required: dict[str, Any] | None = None,
    optional: dict[str, Any] | None = None,
    output: tuple[str, ...] = (),
    title: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    inputs = {"required": required or {}, "optional": optional or {}}
    order = {section: [*entries] for section, entries in inputs.items()}
    return {"input": inputs, "input_order": order, "output": [*output], "display_name": title, **more}


_SAMPLERS = ["euler", "heun", "dpmpp_2m"]
_SCHEDULERS = ["simple", "karras", "normal"]
_IMAGE = spec("IMAGE")
_TEXT = spec("STRING", multiline=True, dynamicPrompts=True)


def _size(default: int, least: int = 16) -> list[Any]:
    return spec("INT", default=default, min=least, max=16384, step=8)


_RESIZES = [
    {"key": "to size", "inputs": {"required": {"width": _size(512, 0), "height": _size(512, 0)}}},
    {"key": "by factor", "inputs": {"required": {"factor": spec("FLOAT", default=1.0)}}},
    {
        "key": "like another",
        "inputs": {
            "required": {"like": spec("IMAGE,MASK"), "crop": spec("COMBO", options=["none", "center"])},
            "optional": {
                "more": spec(
                    "COMFY_AUTOGROW_V3",
                    template={"input": {"required": {"more": spec("IMAGE")}}, "prefix": "more", "min": 0, "max": 9},
                )
            },
        },
    },
]

#: Declarations in the form of `/object_info`.
CLASSES: dict[str, Any] = {
    "CheckpointLoaderSimple": declare(
        {"ckpt_name": spec(["a.safetensors", "b.safetensors"])},
        output=("MODEL", "CLIP", "VAE"),
        title="Load Checkpoint",
    ),
    "CLIPTextEncode": declare({"text": _TEXT, "clip": spec("CLIP")}, output=("CONDITIONING",)),
    "EmptyLatentImage": declare(
        {"width": _size(512), "height": _size(512), "batch_size": spec("INT", default=1, min=1, max=4096)},
        output=("LATENT",),
    ),
    "KSampler": declare(
        {
            "model": spec("MODEL"),
            "seed": spec("INT", default=0, min=0, max=2**64 - 1, control_after_generate=True),
            "steps": spec("INT", default=20, min=1, max=10000),
            "cfg": spec("FLOAT", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
            "sampler_name": spec(_SAMPLERS),
            "scheduler": spec(_SCHEDULERS),
            "positive": spec("CONDITIONING"),
            "negative": spec("CONDITIONING"),
            "latent_image": spec("LATENT"),
            "denoise": spec("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01),
        },
        output=("LATENT",),
    ),
    "OldNoise": declare({"noise_seed": spec("INT", default=0)}, output=("NOISE",)),
    "PlainSteps": declare({"steps": spec("INT", default=20, min=1, max=10000)}, output=("INT",)),
    "PlainOverlap": declare({"overlap": spec("INT", default=64, min=0, max=1024, step=8)}, output=("INT",)),
    "Fenced": declare({"overlap": spec("INT", default=64, min=0, max=4096, step=32, advanced=True)}, output=("INT",)),
    "Matched": declare(
        {
            "n": spec("INT", default=3),
            "a": spec("COMFY_MATCHTYPE_V3", template={"template_id": "t", "allowed_types": "IMAGE,MASK,LATENT"}),
        },
        {"b": spec("COMFY_MATCHTYPE_V3", template={"template_id": "t", "allowed_types": "IMAGE,MASK,LATENT"})},
        output=("COMFY_MATCHTYPE_V3",),
    ),
    "Rolled": declare(
        {
            "how": spec(
                "COMFY_DYNAMICCOMBO_V3",
                options=[
                    {"key": "first", "inputs": {"required": {"seed": spec("INT", control_after_generate=True)}}},
                    {"key": "other", "inputs": {"required": {"n": spec("INT", default=0)}}},
                ],
            ),
            "last": spec("STRING"),
        }
    ),
    "Marked": declare({"text": spec("MARKDOWN")}),
    "PlainSeed": declare({"seed": spec("INT", default=0, control_after_generate=False)}, output=("INT",)),
    "VAEDecode": declare({"samples": spec("LATENT"), "vae": spec("VAE")}, output=("IMAGE",)),
    "LoraLoader": declare(
        {
            "model": spec("MODEL"),
            "clip": spec("CLIP"),
            "lora_name": spec(["x.safetensors"]),
            "strength": spec("FLOAT", default=1.0),
        },
        output=("MODEL", "CLIP"),
    ),
    "EmptyImage": declare(
        {
            "width": _size(512, 1),
            "height": _size(512, 1),
            "batch_size": spec("INT", default=1),
            "color": spec("INT", default=0),
        },
        output=("IMAGE",),
    ),
    "ImageInvert": declare({"image": _IMAGE}, output=("IMAGE",), title="Invert Image"),
    "ImageScaleBy": declare(
        {
            "image": _IMAGE,
            "upscale_method": spec(["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]),
            "scale_by": spec("FLOAT", default=1.0, min=0.01, max=8.0, step=0.01),
        },
        output=("IMAGE",),
    ),
    "ImageComposite": declare(
        {"destination": _IMAGE, "source": _IMAGE, "x": spec("INT", default=0)},
        {"mask": spec("MASK")},
        output=("IMAGE",),
    ),
    "MaskToImage": declare({"mask": spec("MASK")}, output=("IMAGE",)),
    "LoadImage": declare({"image": [["example.png"], {"image_upload": True}]}, output=("IMAGE", "MASK")),
    "LoadAudio": declare({"audio": spec("COMBO", options=[], audio_upload=True)}, output=("AUDIO",)),
    "SaveImage": declare({"images": _IMAGE, "filename_prefix": spec("STRING", default="ComfyUI")}, title="Save Image"),
    "PreviewImage": declare({"images": _IMAGE}),
    "PreviewAny": declare({"source": spec("*")}, output=("STRING",)),
    "SaveGLB": declare({"mesh": spec("MESH"), "filename_prefix": spec("STRING", default="3d")}),
    "PrimitiveInt": declare({"value": spec("INT", control_after_generate=True)}, output=("INT",)),
    "PrimitiveFloat": declare({"value": spec("FLOAT")}, output=("FLOAT",)),
    "PrimitiveString": declare({"value": spec("STRING")}, output=("STRING",)),
    "ImageCrop": declare({"image": _IMAGE, "region": spec("BOUNDING_BOX", socketless=True)}, output=("IMAGE",)),
    "ImageCompare": declare({"view": spec("IMAGECOMPARE", socketless=True)}, {"image_a": _IMAGE}),
    "CurveEditor": declare({"curve": spec("CURVE")}, output=("CURVE",)),
    "Painter": declare(
        {"mask": spec("STRING", widgetType="PAINTER", image_upload=True), "bg": spec("COLOR", default="#000000")}
    ),
    "PickMany": declare({"picks": spec("COMBO", options=["A", "B"], multi_select={"chip": True})}),
    "PickRolled": declare(
        {"pick": spec("COMBO", options=["A", "B"], control_after_generate=True), "count": spec("INT", default=3)}
    ),
    "PickRemote": declare({"pick": spec("COMBO", remote={"route": "/x", "refresh_button": True}), "n": spec("INT")}),
    "Forced": declare(
        {
            "first": spec("INT", default=0, forceInput=True),
            "kept": spec("INT", default=1),
            "second": spec("FLOAT", default=0.0, forceInput=True),
        }
    ),
    "DefaultInput": declare(
        {"first": spec("INT", default=4, defaultInput=True)}, {"second": spec("FLOAT", defaultInput=True)}
    ),
    "Resize": declare(
        {
            "input": spec("COMFY_MATCHTYPE_V3", template={"template_id": "t", "allowed_types": "IMAGE,MASK"}),
            "how": spec("COMFY_DYNAMICCOMBO_V3", options=_RESIZES),
            "filter": spec("COMBO", options=["area", "lanczos"]),
        },
        output=("COMFY_MATCHTYPE_V3",),
    ),
    "Switch": declare(
        {
            "switch": spec("BOOLEAN"),
            "on_false": spec("COMFY_MATCHTYPE_V3", template={"template_id": "t", "allowed_types": "*"}),
            "on_true": spec("COMFY_MATCHTYPE_V3", template={"template_id": "t", "allowed_types": "*"}),
        },
        output=("COMFY_MATCHTYPE_V3",),
    ),
    "Batch": declare(
        {
            "images": spec(
                "COMFY_AUTOGROW_V3",
                template={"input": {"required": {"image": spec("IMAGE")}}, "prefix": "image", "min": 1, "max": 3},
            )
        },
        output=("IMAGE",),
    ),
    "CustomCombo": declare({"choice": spec("COMBO", options=[])}, output=("STRING", "INT")),
    "WebcamCapture": declare({"image": spec("WEBCAM"), "width": spec("INT", default=0)}, output=("IMAGE",)),
    "RecordAudio": declare({"audio": spec("AUDIO_RECORD")}, output=("AUDIO",)),
    "Load3D": declare(
        {"model_file": spec("COMBO", options=["none"]), "image": spec("LOAD_3D"), "width": spec("INT", default=1024)},
        output=("IMAGE",),
    ),
    "VHS_VideoCombine": declare(
        {
            "images": spec("IMAGE"),
            "frame_rate": spec("FLOAT,INT", default=8, widgetType="FLOAT"),
            "format": spec(
                ["image/gif", "video/h264"],
                formats={"video/h264": [["pix_fmt", ["yuv420p", "yuv444p"]], ["crf", "INT", {"default": 19}]]},
            ),
            "start": spec("FLOAT", widgetType="VHSTIMESTAMP"),
        },
    ),
    "Anything Everywhere": declare(optional={"anything": spec("*")}),
    "Seed (rgthree)": declare({"seed": spec("INT", default=0)}, output=("INT",)),
    "Power Lora Loader (rgthree)": declare(
        optional={"model": spec("MODEL"), "clip": spec("CLIP")}, output=("MODEL", "CLIP")
    ),
    "ShowText|pysssss": declare({"text": spec("STRING", forceInput=True)}, output=("STRING",)),
}


def node(
    node_id: int | str,
    kind: str,
    values: Any = None,
    *,
    mode: int = 0,
    title: str | None = None,
    properties: dict[str, Any] | None = None,
    outputs: tuple[str, ...] | None = None,
    types: dict[str, str] | None = None,
    **sources: tuple[int | str, int] | None,
) -> dict[str, Any]:
    """A node; `sources` are its linked inputs (`__` stands for a dot in a name, and None for no link)."""
    declared = CLASSES.get(kind, {"output": [], "input": {}})
    made = declared["output"] if outputs is None else outputs
    inputs = [_input(name.replace("__", "."), declared, types or {}, source) for name, source in sources.items()]
    return {
        "id": node_id,
        "type": kind,
        "mode": mode,
        **({} if title is None else {"title": title}),
        **({} if values is None else {"widgets_values": values}),
        "inputs": inputs,
        "outputs": [{"name": name, "type": name, "links": []} for name in made],
        "properties": properties or {},
    }


def _input(name: str, declared: dict[str, Any], types: dict[str, str], source: object) -> dict[str, Any]:
    every = {**(declared["input"].get("required") or {}), **(declared["input"].get("optional") or {})}
    kind, options = [*(every.get(name) or spec("*")), {}][:2]
    kind = types.get(name, "COMBO" if isinstance(kind, list) else kind)
    is_widget = kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not options.get("forceInput")
    return {
        "name": name,
        "type": kind,
        "link": None,
        **({"widget": {"name": name}} if is_widget else {}),
        "from": source,
    }


def workflow(*nodes: dict[str, Any], subgraphs: Any = (), version: float = 0.4, **more: Any) -> dict[str, Any]:
    """A file of the editor."""
    arrays = _links(nodes, first=1)
    links = [_as_object(link) for link in arrays] if version == 1 else arrays
    numbers = [each["id"] for each in nodes if isinstance(each["id"], int)]
    return {
        "last_node_id": max(numbers, default=0),
        "last_link_id": len(links),
        "nodes": [*nodes],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": version,
        **({"definitions": {"subgraphs": [*subgraphs]}} if subgraphs else {}),
        **more,
    }


def subgraph(
    identity: str,
    *nodes: dict[str, Any],
    inputs: dict[str, list[tuple[int, str]]] | None = None,
    outputs: dict[str, tuple[int, int]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A definition: `inputs` say which inner inputs each one feeds, `outputs` which inner output each one leads out."""
    links = _links(nodes, first=1001)
    by_id = {each["id"]: each for each in nodes}
    ins, outs = [], []
    for slot, (name, targets) in enumerate((inputs or {}).items()):
        ids, kind = [], "*"
        for target, input_name in targets:
            entries = by_id[target]["inputs"]
            entry = next((each for each in entries if each["name"] == input_name), None)
            if entry is None:
                entry = _input(input_name, CLASSES.get(by_id[target]["type"], {"input": {}}), {}, None)
                entry.pop("from")
                entries.append(entry)
            kind = entry["type"]
            link = [1001 + len(links), -10, slot, target, entries.index(entry), kind]
            entry["link"] = link[0]
            links.append(link)
            ids.append(link[0])
        ins.append({"id": f"in-{slot}", "name": name, "type": kind, "linkIds": ids})
    for slot, (name, (origin, origin_slot)) in enumerate((outputs or {}).items()):
        made = by_id[origin]["outputs"]
        kind = made[origin_slot]["type"] if origin_slot < len(made) else "*"
        link = [1001 + len(links), origin, origin_slot, -20, slot, kind]
        links.append(link)
        outs.append({"id": f"out-{slot}", "name": name, "type": kind, "linkIds": [link[0]]})
    numbers = [each["id"] for each in nodes if isinstance(each["id"], int)]
    return {
        "id": identity,
        "name": identity[:8],
        "version": 1,
        "revision": 0,
        "config": {},
        "extra": {},
        "groups": [],
        "state": {"lastGroupId": 0, "lastNodeId": max(numbers, default=0), "lastLinkId": 2000, "lastRerouteId": 0},
        "inputNode": {"id": -10, "bounding": [0, 0, 10, 10]},
        "outputNode": {"id": -20, "bounding": [0, 0, 10, 10]},
        "inputs": ins,
        "outputs": outs,
        "widgets": [],
        "nodes": [*nodes],
        "links": [_as_object(link) for link in links],
        **more,
    }


def host(node_id: int | str, definition: dict[str, Any], values: Any = None, **more: Any) -> dict[str, Any]:
    """A host of a definition; `more` as for `node`."""
    types = {port["name"]: port["type"] for port in definition["inputs"]}
    made = tuple(port["type"] for port in definition["outputs"])
    linked = {name.replace(".", "__"): None for name in types}
    return node(
        node_id, definition["id"], values if values is not None else [], outputs=made, types=types, **(linked | more)
    )


def _links(nodes: Any, *, first: int) -> list[list[Any]]:
    by_id = {each["id"]: each for each in nodes}
    links: list[list[Any]] = []
    for each in nodes:
        for slot, entry in enumerate(each["inputs"]):
            source = entry.pop("from", None)
            if source is None:
                continue
            origin, origin_slot = source
            made = by_id[origin]["outputs"] if origin in by_id else []
            kind = made[origin_slot]["type"] if origin_slot < len(made) else "*"
            entry["link"] = first + len(links)
            links.append([entry["link"], origin, origin_slot, each["id"], slot, kind])
            if origin_slot < len(made):
                made[origin_slot]["links"].append(entry["link"])
    return links


def _as_object(link: list[Any]) -> dict[str, Any]:
    return dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))


def prompt(document: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """The inputs of each node of the converted workflow, by id."""
    return {node_id: each["inputs"] for node_id, each in convert(document, CLASSES, **arguments).graph.items()}


def inputs(kind: str, values: Any = None, **more: Any) -> dict[str, Any]:
    """The inputs of a node that is converted alone."""
    found: dict[str, Any] = prompt(workflow(node(1, kind, values, **more)))["1"]
    return found


def warnings(document: dict[str, Any], **arguments: Any) -> str:
    return "\n".join(convert(document, CLASSES, **arguments).warnings)


def reasons(document: dict[str, Any], classes: Any = None, **arguments: Any) -> list[dict[str, Any]]:
    """Why a workflow is refused."""
    with pytest.raises(UiFormatWorkflow) as caught:
        convert(document, CLASSES if classes is None else classes, **arguments)
    found: list[dict[str, Any]] = caught.value.details["reasons"]
    return found
