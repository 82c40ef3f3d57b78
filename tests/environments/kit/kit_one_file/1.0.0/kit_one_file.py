"""A pack of one file."""


class KitDarken:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image * 0.5,)


NODE_CLASS_MAPPINGS = {"KitDarken": KitDarken}
NODE_DISPLAY_NAME_MAPPINGS = {"KitDarken": "KitDarken (kit)"}
