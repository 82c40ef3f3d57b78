"""The API with named workflows in it, for the tests of their routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.api_world import Answer, ApiWorld

#: A picture of one color, scaled, saved: it runs on the embedded engine without a model.
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "poster"}},
}
INPUTS = {"color": "1.color", "width": "1.width"}


def push(api: ApiWorld, name: str = "poster", *, owner: str = "team", **body: Any) -> Answer:
    """Push the graph above, or what `body` says."""
    return api.request(
        "PUT", f"/api/v2/workflows/{name}", body={"workflow": GRAPH, "inputs": INPUTS, **body}, owner=owner
    )


def run(
    api: ApiWorld,
    body: object = None,
    *,
    name: str = "poster",
    query: str = "",
    owner: str = "team",
    headers: Mapping[str, str] | None = None,
    key: Mapping[str, str] | None = None,
) -> Answer:
    """Run a workflow by its inputs."""
    path = f"/api/v2/workflows/{name}/runs{'?' if query else ''}{query}"
    return api.request("POST", path, body={} if body is None else body, owner=owner, headers=headers, key=key)


def problems(answer: Answer) -> dict[str, str]:
    """What a refusal says of each field."""
    return {one["field"]: one["problem"] for one in answer.json["error"]["details"]["errors"]}
