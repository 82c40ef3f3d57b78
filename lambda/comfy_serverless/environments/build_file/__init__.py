"""`comfy-build.yaml` (schema comfy-build/1): what ComfyUI in the image shall consist of, as people write it.

    text ─► nodes (bounded YAML, each value with its place) ─► reading (every problem at once) ─► BuildFile
    text and another BuildFile ─► writing ─► the same text, but for what changed

Facts of the format: docs/environments.md. No IO but `read_text`; PyYAML comes with the extra `env`.
"""

from __future__ import annotations

from comfy_serverless.environments.build_file.nodes import read_text
from comfy_serverless.environments.build_file.reading import misspelt, overrides, parse
from comfy_serverless.environments.build_file.values import BuildFile, Model, Pack
from comfy_serverless.environments.build_file.writing import new_text, updated

__all__ = ["BuildFile", "Model", "Pack", "misspelt", "new_text", "overrides", "parse", "read_text", "updated"]
