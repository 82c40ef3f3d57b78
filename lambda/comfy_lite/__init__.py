"""The embedded engine: a small, wire-compatible ComfyUI for laptops, tests and CI.

``python -m comfy_lite --port 8188`` behaves like ComfyUI 0.3.64 and really executes its model-free image nodes.
"""

from __future__ import annotations

__version__ = "0.1.0"

#: The ComfyUI release that this engine imitates.
COMFYUI_VERSION = "0.3.64"
