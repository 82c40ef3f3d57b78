import kit_nowhere.tools


class KitMissing:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (kit_nowhere.tools.use(image),)


NODE_CLASS_MAPPINGS = {"KitMissing": KitMissing}
NODE_DISPLAY_NAME_MAPPINGS = {"KitMissing": "KitMissing (kit)"}
