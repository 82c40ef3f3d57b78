"""From a workflow that the ComfyUI editor saved to a graph in API format, with only `/object_info` at hand. No IO.

What is done is what the official editor does (1.49.6, as shipped with ComfyUI 0.33.0, observed by driving it), except
where that would be wrong: docs/editor-format.md has the list. `convert` is the entry; `to_prompt` is the plain one.

    reading     the file becomes values; what has the wrong form is a reason
    declared    a class, with its inputs in the editor's order
    widgets     which values of a node belong to which input
    values      a node filled in with the file's values and links
    groups, ids, limits       group nodes expanded; ids unique; nothing grows without bound
    hosts, proxies            subgraphs and their promoted widgets
    primitives, sources       values that are written into others; where an input comes from
    texts, names, written     dynamic prompts, names of files, values as the prompt has them
    virtual, packs            what the editor code of packs does
"""

from __future__ import annotations

from comfy_serverless.graph.convert.conversion import Conversion, convert, to_prompt
from comfy_serverless.graph.convert.reading import is_editor_format

__all__ = ["Conversion", "convert", "is_editor_format", "to_prompt"]
