"""One warm ComfyUI, driven from Python. Nothing in here knows of AWS."""

from __future__ import annotations
