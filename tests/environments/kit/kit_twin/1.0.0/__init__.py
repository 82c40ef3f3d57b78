"""A pack whose folder another one claims, too."""


class KitTwin:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitTwin": KitTwin}
NODE_DISPLAY_NAME_MAPPINGS = {"KitTwin": "KitTwin (kit)"}
