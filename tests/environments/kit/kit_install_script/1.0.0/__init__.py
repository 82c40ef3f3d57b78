"""A pack with a script of its own, which installs outside any lock."""


class KitBlur:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return ((image + image.roll(1, 1) + image.roll(1, 2)) / 3,)


NODE_CLASS_MAPPINGS = {"KitBlur": KitBlur}
NODE_DISPLAY_NAME_MAPPINGS = {"KitBlur": "KitBlur (kit)"}
