"""A pack with the entry point of ComfyUI's newer interface, and no mappings."""

from comfy_api.latest import ComfyExtension, io


class KitBrighten(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KitBrighten",
            display_name="Brighten (kit)",
            category="kit",
            inputs=[io.Image.Input("image"), io.Float.Input("by", default=0.1, min=0.0, max=1.0, step=0.01)],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, by):
        return io.NodeOutput((image + by).clamp(0.0, 1.0))


class KitExtension(ComfyExtension):
    async def get_node_list(self):
        return [KitBrighten]


async def comfy_entrypoint():
    return KitExtension()
