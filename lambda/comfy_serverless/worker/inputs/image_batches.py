"""Puts a batch of several images where a graph has one loader. Does no IO."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from itertools import count, islice
from typing import Any

from comfy_serverless.graph.nodes import IMAGE_JOINER
from comfy_serverless.graph.workflow import is_link


def taken_outputs(graph: Mapping[str, Any], node_id: str) -> set[float]:
    """The outputs of a node that other nodes take."""
    values = (value for node in graph.values() for value in node["inputs"].values())
    return {value[1] for value in values if is_link(value) and value[0] == node_id}


def put_batch(graph: MutableMapping[str, Any], node_id: str, size: int) -> list[str]:
    """Replace a loader by 2 or more like it and the chain of ImageBatch nodes that joins their images.

    The last of the chain has the loader's id, so that every link to it stays. The ids of all others begin with that id
    and a dot, so that a failure of theirs is plainly one of this node. Returns the ids of the loaders, in the order of
    their images.
    """
    loader = graph[node_id]
    free_ids = (new_id for number in count(1) if (new_id := f"{node_id}.{number}") not in graph)
    loader_ids = list(islice(free_ids, size))
    graph.update({loader_id: {**loader, "inputs": dict(loader["inputs"])} for loader_id in loader_ids})
    joined = loader_ids[0]
    for loader_id in loader_ids[1:]:
        is_last = loader_id == loader_ids[-1]
        batch_id = node_id if is_last else next(free_ids)
        inputs = {"image1": [joined, 0], "image2": [loader_id, 0]}
        graph[batch_id] = {**loader, "class_type": IMAGE_JOINER, "inputs": inputs}
        joined = batch_id
    return loader_ids
