"""Workflows as the editor saves them, for the tests of every door. They need no model."""

from __future__ import annotations

from typing import Any

#: What the editor names a definition of a subgraph by.
SUBGRAPH = "11111111-1111-4111-8111-000000000001"


def node(
    node_id: int,
    class_type: str,
    values: list[Any] | dict[str, Any] | None = None,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "id": node_id,
        "type": class_type,
        "pos": [0, 0],
        "size": [200, 100],
        "flags": {},
        "order": node_id,
        "mode": 0,
        "inputs": inputs or [],
        "outputs": outputs or [],
        "properties": {"Node name for S&R": class_type},
        **({} if values is None else {"widgets_values": values}),
        **more,
    }


def link_in(name: str, link: int | None, kind: str = "IMAGE") -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link}


def link_out(links: list[int] | None, kind: str = "IMAGE") -> dict[str, Any]:
    return {"name": kind, "type": kind, "links": links}


def saved(nodes: list[dict[str, Any]], links: list[list[Any]], **more: Any) -> dict[str, Any]:
    return {
        "last_node_id": max(each["id"] for each in nodes),
        "last_link_id": max((each[0] for each in links), default=0),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
        **more,
    }


def plain(*, color: int = 255, prefix: str = "editor") -> dict[str, Any]:
    """A picture of one color, saved; and a note."""
    return saved(
        [
            node(1, "EmptyImage", [16, 8, 1, color], outputs=[link_out([1])], title="The canvas"),
            node(2, "SaveImage", [prefix], [link_in("images", 1)]),
            node(3, "MarkdownNote", ["for people"]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )


#: What ComfyUI declares of their classes, in short.
OBJECT_INFO: dict[str, Any] = {
    "EmptyImage": {
        "input": {
            "required": {
                "width": ["INT", {"default": 512}],
                "height": ["INT", {"default": 512}],
                "batch_size": ["INT", {"default": 1}],
                "color": ["INT", {"default": 0}],
            }
        },
        "input_order": {"required": ["width", "height", "batch_size", "color"]},
        "output": ["IMAGE"],
        "name": "EmptyImage",
        "display_name": "Empty Image",
    },
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "input_order": {"required": ["images", "filename_prefix"]},
        "output": [],
        "output_node": True,
        "name": "SaveImage",
        "display_name": "Save Image",
    },
    "CLIPTextEncode": {
        "input": {
            "required": {"text": ["STRING", {"multiline": True, "dynamicPrompts": True}], "clip": ["CLIP", {}]},
        },
        "input_order": {"required": ["text", "clip"]},
        "output": ["CONDITIONING"],
        "name": "CLIPTextEncode",
        "display_name": "CLIP Text Encode (Prompt)",
    },
    "LoadImage": {
        "input": {"required": {"image": [["fox.png"], {"image_upload": True}]}},
        "input_order": {"required": ["image"]},
        "output": ["IMAGE", "MASK"],
        "name": "LoadImage",
        "display_name": "Load Image",
    },
    "ImageInvert": {
        "input": {"required": {"image": ["IMAGE", {}]}},
        "input_order": {"required": ["image"]},
        "output": ["IMAGE"],
        "name": "ImageInvert",
        "display_name": "Invert Image Colors",
    },
    "ImageScaleBy": {
        "input": {
            "required": {
                "image": ["IMAGE", {}],
                "upscale_method": [["nearest-exact", "bilinear"], {}],
                "scale_by": ["FLOAT", {"default": 1.0}],
            }
        },
        "input_order": {"required": ["image", "upscale_method", "scale_by"]},
        "output": ["IMAGE"],
        "name": "ImageScaleBy",
        "display_name": "Upscale Image By",
    },
}

PLAIN = plain()
#: What it is in API format.
PLAIN_GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "editor"}},
}


def with_loader(name: str = "fox.png") -> dict[str, Any]:
    """A picture is loaded, inverted and saved."""
    return saved(
        [
            node(1, "LoadImage", [name, "image"], outputs=[link_out([1]), link_out(None, "MASK")]),
            node(2, "ImageInvert", None, [link_in("image", 1)], [link_out([2])]),
            node(3, "SaveImage", ["editor"], [link_in("images", 2)]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )


def rolling(text: str = "a {red|green|blue|white|black} {fox|cat|owl|hen|eel}") -> dict[str, Any]:
    """A text with alternatives, encoded for nobody, beside a picture."""
    return saved(
        [
            node(1, "CheckpointLoaderSimple", ["m.safetensors"], outputs=[link_out([1], "CLIP")]),
            node(2, "CLIPTextEncode", [text], [link_in("clip", 1, "CLIP")]),
            node(3, "EmptyImage", [16, 8, 1, 255], outputs=[link_out([2])]),
            node(4, "SaveImage", ["editor"], [link_in("images", 2)]),
        ],
        [[1, 1, 1, 2, 0, "CLIP"], [2, 3, 0, 4, 0, "IMAGE"]],
    )


def with_unknown() -> dict[str, Any]:
    """A node of a pack that nobody has."""
    pack = {"Node name for S&R": "NobodysNode", "cnr_id": "nobodys-pack", "ver": "1.2.3"}
    return saved(
        [
            node(1, "EmptyImage", [16, 8, 1, 255], outputs=[link_out([1])]),
            node(2, "NobodysNode", [], [link_in("image", 1)], [link_out([2])], properties=pack),
            node(3, "SaveImage", ["editor"], [link_in("images", 2)]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )


def with_subgraph(*, color: int = 255, scale: float = 3) -> dict[str, Any]:
    """A picture goes through a subgraph, which inverts it and makes it larger; how much larger its host says."""
    inside = {
        "id": SUBGRAPH,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": 102, "lastLinkId": 1004, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": "Invert and enlarge",
        "inputNode": {"id": -10, "bounding": [0, 0, 120, 60]},
        "outputNode": {"id": -20, "bounding": [400, 0, 120, 60]},
        "inputs": [
            {"id": "i0", "name": "image", "type": "IMAGE", "linkIds": [1001], "pos": [0, 0]},
            {"id": "i1", "name": "scale_by", "type": "FLOAT", "linkIds": [1004], "pos": [0, 0]},
        ],
        "outputs": [{"id": "o0", "name": "IMAGE", "type": "IMAGE", "linkIds": [1003], "pos": [0, 0]}],
        "widgets": [],
        "nodes": [
            node(101, "ImageInvert", None, [link_in("image", 1001)], [link_out([1002])]),
            node(
                102,
                "ImageScaleBy",
                ["nearest-exact", 2],
                [
                    link_in("image", 1002),
                    {**link_in("scale_by", 1004, "FLOAT"), "widget": {"name": "scale_by"}},
                ],
                [link_out([1003])],
            ),
        ],
        "groups": [],
        "links": [
            _inner_link(1001, -10, 0, 101, 0, "IMAGE"),
            _inner_link(1002, 101, 0, 102, 0, "IMAGE"),
            _inner_link(1003, 102, 0, -20, 0, "IMAGE"),
            _inner_link(1004, -10, 1, 102, 1, "FLOAT"),
        ],
        "extra": {},
    }
    host = node(
        2,
        SUBGRAPH,
        [scale],
        [link_in("image", 1), {**link_in("scale_by", None, "FLOAT"), "widget": {"name": "scale_by"}}],
        [link_out([2])],
        properties={},
    )
    return saved(
        [
            node(1, "EmptyImage", [16, 8, 1, color], outputs=[link_out([1])]),
            host,
            node(3, "SaveImage", ["editor"], [link_in("images", 2)]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        definitions={"subgraphs": [inside]},
    )


def _inner_link(
    link_id: int, origin: int, origin_slot: int, target: int, target_slot: int, kind: str
) -> dict[str, Any]:
    return {
        "id": link_id,
        "origin_id": origin,
        "origin_slot": origin_slot,
        "target_id": target,
        "target_slot": target_slot,
        "type": kind,
    }
