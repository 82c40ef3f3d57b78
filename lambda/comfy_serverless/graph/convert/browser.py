"""Values that only a browser can make: cameras, recordings, views of models. No IO."""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.convert.declared import Declared
from comfy_serverless.graph.convert.numbers import is_number
from comfy_serverless.graph.convert.values import Filled
from comfy_serverless.graph.nodes import RENDERED_IN_BROWSER

_MADE_BY = {"WEBCAM": "a camera", "AUDIO_RECORD": "a microphone"}


def maker(class_type: str, entry: Declared) -> str | None:
    """What in a browser makes the value of an input, if there is no other way to have it; None if there is one."""
    if entry.kind == "LOAD_3D" and class_type in RENDERED_IN_BROWSER:
        return "the view of the model"
    return _MADE_BY.get(entry.kind or "")


def first_view(node: Filled) -> dict[str, Any]:
    """The state of a viewer before anybody has turned it, as observed of the official editor 1.49.6."""
    width, height = (node.widgets[side].value if side in node.widgets else None for side in ("width", "height"))
    aspect = width / height if is_number(width) and is_number(height) and height > 0 else 1
    return {
        "camera_info": {
            "aspect": int(aspect) if aspect == int(aspect) else aspect,
            "cameraType": "perspective",
            "far": 10000,
            "fov": 35,
            "frustum": {"bottom": -5, "left": -5, "right": 5, "top": 5},
            "near": 0.01,
            "position": {"x": 10, "y": 10, "z": 10.000000000000002},
            "quaternion": {
                "w": 0.8804762392171493,
                "x": -0.2798481423331213,
                "y": 0.3647051996310008,
                "z": 0.11591689595929511,
            },
            "target": {"x": 0, "y": 0, "z": 0},
            "zoom": 1,
        },
        "image": "",
        "mask": "",
        "model_3d_info": [],
        "normal": "",
        "recording": "",
    }
