"""A pack whose library was compiled for another numpy: no constraint says so, the import does."""

import kit_native


class KitOldAbi:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (kit_native.use(image),)


NODE_CLASS_MAPPINGS = {"KitOldAbi": KitOldAbi}
NODE_DISPLAY_NAME_MAPPINGS = {"KitOldAbi": "KitOldAbi (kit)"}
