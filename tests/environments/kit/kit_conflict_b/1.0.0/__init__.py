"""A pack that needs the same library's new version, through another one."""


class KitConflictB:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitConflictB": KitConflictB}
NODE_DISPLAY_NAME_MAPPINGS = {"KitConflictB": "KitConflictB (kit)"}
