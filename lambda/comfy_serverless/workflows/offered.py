"""The choices that ComfyUI declares for what an input sets. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.graph.inputs import InputKind, input_at
from comfy_serverless.workflows.targets import place_of


def common_choices(
    graph: Mapping[str, Any], targets: tuple[str, ...], object_info: Mapping[str, Any] | None
) -> tuple[tuple[object, ...], bool] | None:
    """What all targets offer together, and whether there is more than that; None if none of them says anything."""
    common: tuple[object, ...] | None = None
    is_open = False
    for target in targets:
        place = place_of(graph, target)
        offered = input_at(graph, *place, object_info) if place is not None and object_info else None
        if offered is None or offered.kind is not InputKind.CHOICE or not offered.choices:
            continue
        is_open = is_open or offered.is_open
        keys = set(map(key_of, offered.choices))
        common = offered.choices if common is None else tuple(one for one in common if key_of(one) in keys)
    return None if common is None else (common, is_open)


def key_of(choice: object) -> tuple[type, object]:
    """What two equal choices share: 1 and true are two."""
    return (
        bool if isinstance(choice, bool) else object,
        choice if isinstance(choice, str | int | float) else str(choice),
    )
