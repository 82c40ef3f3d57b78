"""A pack that needs a library's old version."""


class KitConflictA:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitConflictA": KitConflictA}
NODE_DISPLAY_NAME_MAPPINGS = {"KitConflictA": "KitConflictA (kit)"}
