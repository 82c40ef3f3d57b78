"""What a workflow needs before it can run: models, node classes, keys of partners, and the values that can be set.

    needs_of(workflow, object_info)
        editor's format ─► editor   (active nodes, packs, `properties.models`, notes)
              └─► graph.convert ─► graph in API format ─► models, inputs
                    └─ refused: the values as the editor wrote them

answer    the values that come out, and their JSON
editor    the editor's format, as far as it can be read without declarations
models    which texts name models, and where these are from

Pure: what is there is told by `object_info`, which is ComfyUI's own answer to `GET /object_info`.
"""

from __future__ import annotations

from comfy_serverless.graph.needs.answer import Model, Needs, NodeClass, Pack, Use
from comfy_serverless.graph.needs.models import Sources
from comfy_serverless.graph.needs.needs import needs_of, sources_in

__all__ = ["Model", "Needs", "NodeClass", "Pack", "Sources", "Use", "needs_of", "sources_in"]
