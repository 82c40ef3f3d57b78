"""A pack with libraries of the real index: one is a wheel, one comes as sources only."""

import docopt
import torch
import webcolors


class KitTint:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "color": ("STRING", {"default": "orange"})}}

    def run(self, image, color):
        arguments = docopt.docopt("Usage: tint <color>", [color])
        red, green, blue = webcolors.name_to_rgb(arguments["<color>"])
        return (image * torch.tensor([red, green, blue]) / 255,)


NODE_CLASS_MAPPINGS = {"KitTint": KitTint}
