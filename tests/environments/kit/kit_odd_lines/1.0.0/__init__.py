"""A pack whose requirements are no requirements."""


class KitOddLines:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitOddLines": KitOddLines}
NODE_DISPLAY_NAME_MAPPINGS = {"KitOddLines": "KitOddLines (kit)"}
