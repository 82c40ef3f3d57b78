"""A pack that needs what nobody publishes."""


class KitUnsatisfiable:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitUnsatisfiable": KitUnsatisfiable}
NODE_DISPLAY_NAME_MAPPINGS = {"KitUnsatisfiable": "KitUnsatisfiable (kit)"}
