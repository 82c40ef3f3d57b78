"""A pack that asks for a GPU when it is imported."""

import torch

DEVICE = torch.cuda.get_device_name(0)


class KitGpu:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitGpu": KitGpu}
NODE_DISPLAY_NAME_MAPPINGS = {"KitGpu": "KitGpu (kit)"}
