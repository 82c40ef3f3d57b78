"""Workflows as the API describes them, for the tests of typed clients: a plain one, and one by a hostile author."""

from __future__ import annotations

from typing import Any

from comfy_serverless.cli.named.client.generate import Described

FILE: dict[str, Any] = {"type": "string", "format": "uri-reference", "minLength": 1, "contentMediaType": "image/*"}
ASSET: dict[str, Any] = {
    "type": "object",
    "properties": {"__type": {"const": "core/ASSET"}, "info": {"type": "object"}},
    "required": ["__type", "info"],
}
#: What ends a string or a docstring, and what nobody sees.
EVIL = 'said """hi""" \\ \\" \'\'\' \\N{DIGIT ONE}\r\n\x00\u2028\u202e\ud800 {0} %s """'

POSTER = Described(
    name="poster",
    number=3,
    alias="live",
    schema={
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "default": "a fox", "description": "What is painted."},
            "seed": {"type": "integer", "minimum": -1, "maximum": 2**64 - 1, "default": -1},
            "cfg": {"type": "number", "minimum": 0, "maximum": 100, "x-step": 0.5, "default": 7},
            "sampler": {"enum": ["euler", "ddim"], "default": "euler"},
            "upscale": {"type": "boolean", "default": False},
            "photo": {"anyOf": [FILE, ASSET]},
            "frames": {"anyOf": [FILE, {"type": "array", "items": FILE}, ASSET], "default": "frame.png"},
        },
        "required": ["photo"],
    },
    outputs={"picture": "9"},
    description="Paints a poster.",
    created_at="2026-11-29T12:00:00.000Z",
)

#: Their names are what an argument cannot be called, or what the client itself has.
NAMES = (
    "class", "self", "from", "inputs", "None", "__debug__", "__init__", "_", "", " ", "1st image", "a-b", "a_b", "a b",
    "提示", "ﬁne", "fine", "str", "default", "not_given", "File", "Literal", "Workflow", "cls", "print", "run", "évil",
    'x"\n"""', "\ud800", "return",
)  # fmt: skip

HOSTILE = Described(
    name="result",
    number=12,
    alias="staging",
    schema={
        "type": "object",
        "properties": {
            **{name: {"type": "string", "default": EVIL, "description": EVIL, "title": EVIL} for name in NAMES},
            "model": {"enum": [f"model {number}.safetensors" for number in range(5000)], "default": "model 7"},
            "odd": {"enum": [EVIL, 1, 2.5, True, None, "x" * 500], "default": EVIL},
            "open": {"type": ["string", "number", "boolean"], "examples": ["a", EVIL], "default": "other"},
            "gone": {"enum": ["a"], "default": "no longer there"},
            "none": {"enum": []},
            "infinite": {"type": "number", "default": float("inf")},
            "other": {"not": {"type": "array"}, "default": 3},
            "whole": {"type": "integer", "default": 2.5},
            "long": {"type": "string", "default": "word " * 5000, "description": "word " * 500},
        },
        "required": ["class", "a-b", "model"],
    },
    outputs={"job": "9", "outputs": "10", "class": "11", EVIL: EVIL, "_of": "12"},
    description=EVIL,
    created_at=EVIL,
)

EMPTY = Described(name="3d-thing", number=1, alias="", schema={"type": "object"}, outputs={})
