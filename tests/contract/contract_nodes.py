"""Nodes that sleep, fail and show odd things: counterparts of the nodes that the recordings were made with."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import numpy as np
from leaky_nodes import keep  # type: ignore[import-not-found]
from saver_nodes import BREAKS, CACHES, GOES_ON, SAVES, TRICKS, files_below  # type: ignore[import-not-found]

from comfy_lite.faults import OutOfMemory
from comfy_lite.node import Directories, NodeContext, NodeResult, NodeType, Pixels

NEVER_THE_SAME = float("nan")
BLACK = (1, 8, 8, 3)
#: None of them is ComfyUI's own.
PACK = "custom_nodes.contract_nodes"


def sleep(context: NodeContext, *, seconds: float, steps: int, mode: str, image: Pixels | None = None) -> NodeResult:
    if mode == "silent":
        time.sleep(seconds)
    else:
        for step in range(steps):
            time.sleep(seconds / steps)
            context.report_progress(step + 1, steps)
    return NodeResult((np.zeros(BLACK, np.float32) if image is None else image,))


def fail(context: NodeContext, *, kind: str, message: str, image: Pixels | None = None) -> NodeResult:
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "OOM": OutOfMemory}.get(kind, AssertionError)(
        *([] if kind == "NoMessage" else [message])
    )


def show(context: NodeContext, *, ui: str, image: Pixels | None = None) -> NodeResult:
    shown = json.loads(ui)
    time.sleep(shown.pop("_sleep", 0))
    return NodeResult(ui=shown)


def end_as_comfyui(context: NodeContext, *, kind: str) -> NodeResult:
    """End as ComfyUI does when it cannot send what a node shows: behind the messages before, with these last words."""
    time.sleep(0.3)
    why = "TypeError: Object of type bytes is not JSON serializable"
    print(
        "Traceback (most recent call last):",
        '  File "/ComfyUI/main.py", line 637, in <module>',
        "    event_loop.run_until_complete(x)",
        '  File "/ComfyUI/server.py", line 1402, in publish_loop',
        "    await self.send(*msg)",
        '  File "/ComfyUI/server.py", line 1390, in send_json',
        '  File "/usr/lib/python3.11/json/encoder.py", line 258, in iterencode',
        why,
        sep="\n",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def echo(context: NodeContext, **inputs: object) -> NodeResult:
    return NodeResult(ui={"text": [json.dumps(inputs)]})


def save(context: NodeContext, *, saves: str, filename_prefix: str) -> NodeResult:
    folders = context.directories
    return NodeResult(
        ui=(SAVES | TRICKS | CACHES | BREAKS | GOES_ON)[saves](folders.output, folders.temp, filename_prefix)
    )


def leak(context: NodeContext, *, megabytes: int, name: str) -> NodeResult:
    return NodeResult(ui={"text": [str(keep(megabytes))]})


def take_folder(context: NodeContext, *, directory: str) -> NodeResult:
    return NodeResult(("\n".join(files_below(context.directories.input / directory)),))


def refuse_unless_ok(directories: Directories, mode: str) -> str | None:
    if mode == "raise":
        raise RuntimeError("validator exploded")
    return None if mode == "ok" else f"not allowed: {mode}"


def never_the_same(directories: Directories, **inputs: object) -> float:
    return NEVER_THE_SAME


NODES = {
    node.class_type: replace(node, python_module=PACK)
    for node in (
        NodeType(
            "ContractBadUI",
            "ContractBadUI",
            "contract",
            end_as_comfyui,
            required={"kind": (["nan", "bytes", "set", "tensor", "path"], {})},
            is_output=True,
        ),
        NodeType(
            "ContractSleep",
            "ContractSleep",
            "contract",
            sleep,
            required={
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 600.0}),
                "steps": ("INT", {"default": 10, "min": 1, "max": 10000}),
                "mode": (["progress", "silent"],),
            },
            optional={"image": ("IMAGE",)},
            returns=("IMAGE",),
            fingerprint=never_the_same,
        ),
        NodeType(
            "ContractRaise",
            "ContractRaise",
            "contract",
            fail,
            required={
                "kind": (["ValueError", "OOM", "SystemExit", "KeyboardInterrupt", "Exit", "SegV", "NoMessage"],),
                "message": ("STRING", {"default": "boom"}),
            },
            optional={"image": ("IMAGE",)},
            returns=("IMAGE",),
            fingerprint=never_the_same,
        ),
        NodeType(
            "ContractUI",
            "ContractUI",
            "contract",
            show,
            required={"ui": ("STRING", {"default": "{}"})},
            optional={"image": ("IMAGE",)},
            is_output=True,
            fingerprint=never_the_same,
        ),
        NodeType(
            "ContractLeak",
            "ContractLeak",
            "contract",
            leak,
            required={"megabytes": ("INT", {"default": 0}), "name": ("STRING", {"default": ""})},
            is_output=True,
            fingerprint=never_the_same,
        ),
        NodeType(
            "ContractCombo",
            "ContractCombo",
            "contract",
            echo,
            required={
                "choice": ([f"v{number}" for number in range(25)],),
                "flag": ("BOOLEAN", {"default": False}),
                "x": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.1}),
                "text": ("STRING", {"default": ""}),
            },
            is_output=True,
        ),
        NodeType(
            "ContractValidate",
            "ContractValidate",
            "contract",
            lambda context, mode: NodeResult(ui={"text": [mode]}),
            required={"mode": ("STRING", {"default": "raise"})},
            is_output=True,
            validate=refuse_unless_ok,
        ),
        NodeType(
            "SaverOfAPack",
            "SaverOfAPack",
            "contract",
            save,
            required={
                "saves": ([*SAVES, *TRICKS, *CACHES, *BREAKS, *GOES_ON],),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
            },
            is_output=True,
        ),
        NodeType(
            "PartnerOfAPack",
            "PartnerOfAPack",
            "contract",
            lambda context: NodeResult((np.zeros((1, 8, 8, 3), np.float32),)),
            returns=("IMAGE",),
            entry={"api_node": True},
        ),
        NodeType(
            "FolderOfAPack",
            "FolderOfAPack",
            "contract",
            take_folder,
            required={"directory": ("STRING", {"default": "."})},
            returns=("STRING",),
        ),
    )
}
