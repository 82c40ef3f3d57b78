"""A pack whose library is written in C, and published as sources only."""

import kit_compiled


class KitCompiled:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image * kit_compiled.one(),)


NODE_CLASS_MAPPINGS = {"KitCompiled": KitCompiled}
NODE_DISPLAY_NAME_MAPPINGS = {"KitCompiled": "KitCompiled (kit)"}
