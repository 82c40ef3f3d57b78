"""A pack whose library needs a newer Python."""


class KitNewerPython:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitNewerPython": KitNewerPython}
NODE_DISPLAY_NAME_MAPPINGS = {"KitNewerPython": "KitNewerPython (kit)"}
