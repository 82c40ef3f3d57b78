"""The embedded engine: a small, wire-compatible ComfyUI for laptops, tests and CI.

``python -m comfy_lite --port 8188`` behaves like ComfyUI 0.33.0 (or 0.3.64: see `releases`), and really executes its
model-free image nodes.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    #: The version of the package that it comes with: pyproject.toml has it, and nothing else.
    __version__ = version("comfy-serverless")
except PackageNotFoundError:  # a copy of the source that was not installed
    __version__ = "unknown"
