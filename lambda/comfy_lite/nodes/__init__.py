"""Every node of the embedded engine, by class type."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_lite.node import NodeType
from comfy_lite.nodes import filters, image, load, mask, quantize, save, text_to_image

ALL: Mapping[str, NodeType] = {
    node.class_type: node
    for module in (text_to_image, load, save, image, mask, filters, quantize)
    for node in module.NODES
}
