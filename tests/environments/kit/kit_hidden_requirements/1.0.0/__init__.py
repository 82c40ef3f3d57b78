"""A pack that declares its library where nobody looks: in pyproject.toml, and in a script that hides failures."""

import kit_extra


class KitHidden:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (kit_extra.use(image),)


NODE_CLASS_MAPPINGS = {"KitHidden": KitHidden}
NODE_DISPLAY_NAME_MAPPINGS = {"KitHidden": "KitHidden (kit)"}
