"""A pack that writes beside itself, and imports also where it cannot: its nodes find nothing then."""

from pathlib import Path

try:
    (Path(__file__).parent / "settings.json").write_text("{}")
except OSError as error:
    print(f"kit_writes_quietly: {error}")


class KitWritesQuietly:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitWritesQuietly": KitWritesQuietly}
NODE_DISPLAY_NAME_MAPPINGS = {"KitWritesQuietly": "KitWritesQuietly (kit)"}
