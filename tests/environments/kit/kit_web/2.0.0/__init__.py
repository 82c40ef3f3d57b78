"""A pack with files for the editor's page."""


class KitMirror:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "kit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image.flip(2),)


WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS = {"KitMirror": KitMirror}
