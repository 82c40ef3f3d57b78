"""A pack that is pinned to a numpy older than ComfyUI takes."""


class KitOldNumpy:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitOldNumpy": KitOldNumpy}
NODE_DISPLAY_NAME_MAPPINGS = {"KitOldNumpy": "KitOldNumpy (kit)"}
