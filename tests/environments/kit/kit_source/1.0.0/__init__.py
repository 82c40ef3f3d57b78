"""A pack whose library comes as sources only; they need no compiler."""

import kit_source


class KitHalf:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (kit_source.half(image),)


NODE_CLASS_MAPPINGS = {"KitHalf": KitHalf}
NODE_DISPLAY_NAME_MAPPINGS = {"KitHalf": "KitHalf (kit)"}
