"""A pack whose library there is for Windows alone."""


class KitOtherPlatform:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitOtherPlatform": KitOtherPlatform}
NODE_DISPLAY_NAME_MAPPINGS = {"KitOtherPlatform": "KitOtherPlatform (kit)"}
