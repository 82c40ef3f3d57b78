"""`comfy-serverless outputs`: see `cli.files`."""

from __future__ import annotations

from comfy_serverless.cli.files import add_outputs_parser as add_parser

__all__ = ["add_parser"]
