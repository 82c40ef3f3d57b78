"""A pack that fetches something when it is imported."""

import urllib.request

LIST = urllib.request.urlopen("http://models.example.invalid/list.json", timeout=5).read()


class KitNetwork:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitNetwork": KitNetwork}
NODE_DISPLAY_NAME_MAPPINGS = {"KitNetwork": "KitNetwork (kit)"}
