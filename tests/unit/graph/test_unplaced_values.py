"""Values that an editor could not place count when a workflow is converted: so they are looked at like all others."""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.editor_files import values_of, without_addresses

ADDRESS = "https://example.com/fox.png?signature=secret"


def host(value: object) -> dict[str, Any]:
    unplaced = [{"originalEntry": ["-1", "image"], "hostValue": value}]
    return {"id": 1, "type": "a subgraph", "properties": {"proxyWidgetErrorQuarantine": unplaced}}


def test_they_are_among_the_values_of_a_node() -> None:
    reference = {"__type": "core/ASSET", "info": {"id": "x"}}
    assert reference in [*values_of(host(reference))]
    assert [*values_of({"id": 1, "properties": None})] == [None]


def test_their_addresses_go_into_no_picture() -> None:
    found = without_addresses({"nodes": [host(ADDRESS)]}, {ADDRESS})
    assert found == {"nodes": [host("fox.png")]}
