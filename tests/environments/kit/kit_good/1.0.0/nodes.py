import kit_colors


class KitInvert:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (kit_colors.inverted(image),)


NODE_CLASS_MAPPINGS = {"KitInvert": KitInvert}
NODE_DISPLAY_NAME_MAPPINGS = {"KitInvert": "KitInvert (kit)"}
