"""Partner nodes run with the caller's key alone: what has none is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.connector.partners import check_partner_nodes
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.nodes import declared

DECLARED = {
    "FluxProNode": declared({"python_module": "comfy_api_nodes.nodes_bfl", "api_node": True, "input": {}}),
    "VoiceSelector": declared({"python_module": "comfy_api_nodes.nodes_voice", "api_node": False, "input": {}}),
    "SaveImage": declared({"python_module": "nodes", "output_node": True, "input": {}}),
    "EmptyImage": declared({"python_module": "nodes", "input": {}}),
}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(source: str) -> dict[str, Any]:
    return {"1": node(source), "2": node("SaveImage", images=["1", 0])}


@pytest.mark.parametrize("extra_data", [None, {}, {"extra_pnginfo": {}}, {"api_key_comfy_org": ""}])
def test_without_a_key_the_node_is_named_and_what_to_do(extra_data: dict[str, Any] | None) -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        check_partner_nodes(graph("FluxProNode"), DECLARED, extra_data)
    assert "Node 1 is a partner node (FluxProNode)" in caught.value.message
    assert "extra_data.api_key_comfy_org" in caught.value.message
    (entry,) = caught.value.details["node_errors"].values()
    assert entry["errors"][0]["type"] == "partner_node_without_key"
    assert not caught.value.retryable


@pytest.mark.parametrize("name", ["api_key_comfy_org", "auth_token_comfy_org"])
def test_with_a_key_it_runs(name: str) -> None:
    check_partner_nodes(graph("FluxProNode"), DECLARED, {name: "key"})


@pytest.mark.parametrize("source", ["EmptyImage", "VoiceSelector"])
def test_nodes_that_call_nobody_need_none(source: str) -> None:
    check_partner_nodes(graph(source), DECLARED, None)


def test_a_partner_node_that_no_output_needs_does_not_run() -> None:
    check_partner_nodes({**graph("EmptyImage"), "9": node("FluxProNode")}, DECLARED, None)


def test_a_class_of_which_nothing_was_said_may_be_an_output() -> None:
    unknown = {"1": node("FluxProNode"), "2": node("SaverOfAPack", images=["1", 0])}
    with pytest.raises(InvalidWorkflow, match="Node 1"):
        check_partner_nodes(unknown, DECLARED, None)


def test_a_link_that_leads_nowhere_or_in_a_circle_is_no_trouble() -> None:
    circle = {"1": node("EmptyImage", a=["2", 0]), "2": node("SaveImage", images=["1", 0], more=["gone", 0])}
    check_partner_nodes(circle, DECLARED, None)
