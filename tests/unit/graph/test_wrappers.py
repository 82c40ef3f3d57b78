"""The workflow in whatever was sent. That every door reads it so: `test_same_request_everywhere.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.wrappers import WORKFLOW_FIELDS, merged, unwrap
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.shapes import ENVELOPES, shape

GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {}}}
UI: dict[str, Any] = {"nodes": [], "links": []}
LEAVES = st.sampled_from(
    [GRAPH, UI, json.dumps(GRAPH), json.dumps(UI), "name", "", "{", 1, None, [GRAPH], float("nan")]
)
NAMES = st.sampled_from([*WORKFLOW_FIELDS, *ENVELOPES, "extra_data", "images", "inputs", "metadata", "1", "client_id"])
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(NAMES, inner, max_size=4) | st.lists(inner, max_size=2) | inner.map(json.dumps),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(ANYTHING)
def test_anything_is_a_request_with_one_workflow_or_a_refusal(document: object) -> None:
    try:
        request = JobRequest.parse(document)
    except InvalidRequest as error:
        assert len(error.message) > 10, error.message  # noqa: PT017  (either way is right)
    else:
        assert isinstance(request.workflow, dict) or request.workflow  # one without nodes is refused where it is read
        again = JobRequest.parse(request.model_dump(by_alias=True))
        assert again.workflow == request.workflow


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(ANYTHING)
def test_a_graph_in_any_wrapper_is_found(inner: object) -> None:
    for name in WORKFLOW_FIELDS:
        found = unwrap({name: GRAPH, "beside": inner})
        assert found is not None
        assert (found.workflow, dict(found.rest)) == (GRAPH, {"beside": inner})


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_wrappers_may_be_in_wrappers(levels: int) -> None:
    document: Any = {"prompt": GRAPH, "workflow": UI}
    for level in range(levels):
        document = json.dumps({"workflow": document}) if level % 2 else {"prompt": document}
    found = unwrap(document)
    assert found is not None
    assert found.workflow == GRAPH
    assert found.extra_data == {"extra_pnginfo": {"workflow": UI}}


def test_a_document_without_a_bottom_is_read_no_further() -> None:
    document: Any = {}
    for _ in range(50_000):
        document = {"prompt": document}
    assert unwrap(document) is not None
    circle: dict[str, Any] = {}
    circle["workflow"] = circle
    assert unwrap(circle) is None


def test_a_node_may_be_called_like_a_field() -> None:
    node = {"class_type": "EmptyImage", "inputs": {}}
    for name in (*WORKFLOW_FIELDS, *ENVELOPES):
        found = unwrap({name: node})
        assert found is not None
        assert found.workflow == {name: node}


def test_what_was_given_counts_before_what_was_found() -> None:
    given_data = {"extra_pnginfo": {"workflow": 1, "a": 1}}
    found = unwrap({"prompt": GRAPH, "workflow": UI, "extra_data": given_data})
    assert found is not None
    assert found.extra_data == given_data
    assert merged({"a": 1}, {"a": 2, "b": 3}) == {"a": 1, "b": 3}
    assert merged({"extra_pnginfo": None}, {"extra_pnginfo": {"a": 1}})["extra_pnginfo"] is None


def test_what_stands_around_a_second_graph_is_not_lost() -> None:
    found = unwrap({"workflow": {"prompt": GRAPH, "a": 1}, "prompt": {"output": GRAPH, "a": 2, "b": 2}})
    assert found is not None
    assert (found.place, found.within) == ("workflow", {"a": 1, "b": 2})


@pytest.mark.parametrize("name", ENVELOPES)
def test_fields_beside_an_envelope_are_taken_and_others_are_named(name: str) -> None:
    sent = {name: {"workflow": GRAPH, "metadata": {"a": "in"}}, "metadata": {"a": "out"}, "reply": "links", "id": 5}
    shaped = shape(sent, known=JobRequest.field_names())
    assert shaped.fields == {"workflow": GRAPH, "metadata": {"a": "in"}, "reply": "links"}
    assert [("'id'" in warning) for warning in shaped.warnings] == [True]
