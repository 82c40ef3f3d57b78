"""Nodes that tests copy to a real ComfyUI: one that expands into others, and one that makes a mesh."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class ExpandToFrames:
    """Expands into EmptyImage -> SaveImage and SaveImageWebsocket."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "contract"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"prefix": ("STRING", {"default": "x"})}}

    def run(self, prefix: str) -> dict[str, Any]:
        from comfy_execution.graph_utils import GraphBuilder  # type: ignore[import-not-found]

        graph = GraphBuilder()
        image = graph.node("EmptyImage", width=16, height=8, batch_size=2, color=255)
        one = graph.node("ImageFromBatch", image=image.out(0), batch_index=0, length=1)
        graph.node("SaveImage", images=one.out(0), filename_prefix=prefix)
        graph.node("SaveImageWebsocket", images=image.out(0))
        return {"result": (), "expand": graph.finalize()}


class TinyMesh:
    """Makes a mesh."""

    RETURN_TYPES = ("MESH",)
    FUNCTION = "run"
    CATEGORY = "contract"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {}}

    def run(self) -> tuple[object]:
        import torch  # type: ignore[import-not-found]
        from comfy_api.latest import Types  # type: ignore[import-not-found]

        vertices, faces = torch.rand(1, 3, 3), torch.tensor([[[0, 1, 2]]])
        # Before ComfyUI had a class for it, anything with these attributes was a mesh.
        mesh = getattr(Types, "MESH", SimpleNamespace)
        return (mesh(vertices=vertices, faces=faces),)


NODE_CLASS_MAPPINGS = {"ExpandToFrames": ExpandToFrames, "TinyMesh": TinyMesh}
