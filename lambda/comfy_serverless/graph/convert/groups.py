"""Group nodes: the older way to put nodes together. Each is expanded in its place. No IO."""

from __future__ import annotations

from comfy_serverless.graph.convert.scene import Scene


def expand_groups(scene: Scene) -> None:
    """Replace each active group node by the nodes of its definition."""
