"""A pack, the newer version of which has lost a class."""


class KitKept:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


class KitGone:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitKept": KitKept, "KitGone": KitGone}
NODE_DISPLAY_NAME_MAPPINGS = {"KitKept": "KitKept (kit)", "KitGone": "KitGone (kit)"}
