"""A pack that writes beside itself when it is imported."""

from pathlib import Path

CACHE = Path(__file__).parent / "cache"
CACHE.mkdir(exist_ok=True)
(CACHE / "started.txt").write_text("yes")


class KitWrites:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitWrites": KitWrites}
NODE_DISPLAY_NAME_MAPPINGS = {"KitWrites": "KitWrites (kit)"}
