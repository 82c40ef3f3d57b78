"""The pack that the contract tests put into a real ComfyUI: nodes that sleep, fail, and show odd things."""

from .nodes import NODE_CLASS_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS"]
