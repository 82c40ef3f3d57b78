"""One warm ComfyUI, driven from Python. Nothing in here knows about AWS."""

from __future__ import annotations
