import io
import json
import os
import pathlib
import signal
import time

import comfy.model_management
import comfy.utils
import torch


class Node:
    """What all have in common. Most run anew each time: not-a-number is never what it was before."""

    CATEGORY = "contract"
    FUNCTION = "run"
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        optional = {"image": ("IMAGE",)} if cls.TAKES_IMAGE else {}
        return {"required": cls.REQUIRED, "optional": optional}

    REQUIRED = {}
    TAKES_IMAGE = False


class NeverTheSame(Node):
    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")


class ContractSleep(NeverTheSame):
    """Sleeps: in steps that ComfyUI hears of and may interrupt, or in one go."""

    REQUIRED = {
        "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 600.0}),
        "steps": ("INT", {"default": 10, "min": 1, "max": 10000}),
        "mode": (["progress", "silent"],),
    }
    TAKES_IMAGE = True
    RETURN_TYPES = ("IMAGE",)

    def run(self, seconds, steps, mode, image=None):
        if mode == "silent":
            time.sleep(seconds)
        else:
            progress = comfy.utils.ProgressBar(steps)
            for _ in range(steps):
                time.sleep(seconds / steps)
                progress.update(1)
        return (torch.zeros(1, 8, 8, 3) if image is None else image,)


class ContractRaise(NeverTheSame):
    """Fails, in each way in which nodes do."""

    REQUIRED = {
        "kind": (["ValueError", "OOM", "SystemExit", "KeyboardInterrupt", "Exit", "SegV", "NoMessage"],),
        "message": ("STRING", {"default": "boom"}),
    }
    TAKES_IMAGE = True
    RETURN_TYPES = ("IMAGE",)

    def run(self, kind, message, image=None):
        if kind == "Exit":
            os._exit(7)
        if kind == "SegV":
            os.kill(os.getpid(), signal.SIGSEGV)
        raise {
            "ValueError": lambda: ValueError(message),
            "OOM": lambda: comfy.model_management.OOM_EXCEPTION(message),
            "SystemExit": lambda: SystemExit(3),
            "KeyboardInterrupt": KeyboardInterrupt,
            "NoMessage": AssertionError,
        }[kind]()


class ContractUI(NeverTheSame):
    """Shows what it is given, as JSON."""

    REQUIRED = {"ui": ("STRING", {"default": "{}"})}
    TAKES_IMAGE = True
    OUTPUT_NODE = True

    def run(self, ui, image=None):
        shown = json.loads(ui)
        time.sleep(shown.pop("_sleep", 0))
        return {"ui": shown}


class ContractBadUI(NeverTheSame):
    """Shows what JSON cannot say."""

    REQUIRED = {"kind": (["nan", "bytes", "set", "tensor", "path"],)}
    OUTPUT_NODE = True

    def run(self, kind):
        values = {"nan": float("nan"), "bytes": b"x", "set": {1}, "tensor": torch.ones(2), "path": pathlib.Path("/x")}
        return {"ui": {"values": [values[kind]]}}


class ContractNoise(NeverTheSame):
    """Makes pictures that no format packs well."""

    REQUIRED = {
        "size": ("INT", {"default": 512, "max": 8192}),
        "n": ("INT", {"default": 1, "max": 999}),
        "seed": ("INT", {"default": 0}),
    }
    RETURN_TYPES = ("IMAGE",)

    def run(self, size, n, seed):
        return (torch.rand(n, size, size, 3, generator=torch.Generator().manual_seed(seed)),)


class Drawing:
    def __init__(self, text):
        self.data = [io.BytesIO(text)]


class ContractSVG(Node):
    """Makes a drawing."""

    REQUIRED = {"text": ("STRING", {"default": "x"})}
    RETURN_TYPES = ("SVG",)

    def run(self, text):
        return (Drawing(b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>'),)


class ContractCombo(Node):
    """Has one input of each kind that is checked against a list or a range."""

    REQUIRED = {
        "choice": ([f"v{number}" for number in range(25)],),
        "flag": ("BOOLEAN", {"default": False}),
        "x": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.1}),
        "text": ("STRING", {"default": ""}),
    }
    OUTPUT_NODE = True

    def run(self, **inputs):
        return {"ui": {"text": [json.dumps(inputs)]}}


class ContractValidate(Node):
    """Its own check of the inputs fails, or says no."""

    REQUIRED = {"mode": ("STRING", {"default": "raise"})}
    OUTPUT_NODE = True

    @classmethod
    def VALIDATE_INPUTS(cls, mode):
        if mode == "raise":
            raise RuntimeError("validator exploded")
        return True if mode == "ok" else f"not allowed: {mode}"

    def run(self, mode):
        return {"ui": {"text": [mode]}}


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        *(ContractSleep, ContractRaise, ContractUI, ContractBadUI, ContractNoise),
        *(ContractSVG, ContractCombo, ContractValidate),
    )
}
