"""A pack written for Python 3.12."""


def first[T](items: list[T]) -> T:
    return items[0]


class KitNewerSyntax:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image,)


NODE_CLASS_MAPPINGS = {"KitNewerSyntax": KitNewerSyntax}
NODE_DISPLAY_NAME_MAPPINGS = {"KitNewerSyntax": "KitNewerSyntax (kit)"}
