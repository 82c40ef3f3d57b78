"""A pack that pins a version which its author has taken back."""


class KitYanked:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitYanked": KitYanked}
NODE_DISPLAY_NAME_MAPPINGS = {"KitYanked": "KitYanked (kit)"}
