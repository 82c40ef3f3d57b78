"""A pack that pins what belongs to the base."""


class KitTakesTorch:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitTakesTorch": KitTakesTorch}
NODE_DISPLAY_NAME_MAPPINGS = {"KitTakesTorch": "KitTakesTorch (kit)"}
