"""A pack that has lost a class since 1.0.0."""


class KitKept:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitKept": KitKept}
NODE_DISPLAY_NAME_MAPPINGS = {"KitKept": "KitKept (kit)"}
