"""Our answers agree with the contract itself, and with our own description of the API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit import api_contract
from tests.unit.api_contract import operation_of, problems

pytestmark = pytest.mark.skipif(
    api_contract.path() is None and "CI" not in os.environ, reason="no contract document: set COMFY_API_CONTRACT"
)


def test_the_document_is_there() -> None:
    assert len(api_contract.document()["paths"]) >= 9


def test_a_job_without_a_field_or_with_a_wrong_one_is_noticed() -> None:
    job: dict[str, Any] = {
        "id": "1",
        "status": "queued",
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "completed_at": None,
        "expires_at": "2026-01-01T00:00:00Z",
        "queue_position": None,
        "progress": None,
        "outputs": [],
        "error": None,
        "urls": {"self": "/a", "events": "/b", "cancel": "/c"},
    }
    assert problems("GET", "/api/v2/jobs/1", 200, job) == []
    assert problems("GET", "/api/v2/jobs/1", 200, {**job, "status": "asleep"})
    assert problems("GET", "/api/v2/jobs/1", 200, {name: job[name] for name in job if name != "progress"})
    assert problems("GET", "/api/v2/jobs/1", 200, {**job, "progress": {"value": 2}})
    assert problems("GET", "/api/v2/jobs/1", 418, job)
    assert problems("GET", "/api/v2/jobs/1", 404, {"message": "Not Found"})
    assert problems("GET", "/api/v2/jobs", 200, {"jobs": []}) == [], "a route of the SDK's that the document lacks"


@pytest.fixture(scope="module")
def ours() -> Mapping[str, Any]:
    """The paths that we describe."""
    from tests.unit.api_world import api_world

    with pytest.MonkeyPatch.context() as patch, api_world(patch) as api:
        paths: Mapping[str, Any] = api.request("GET", "/openapi.json").json["paths"]
    return paths


@pytest.mark.parametrize("template", api_contract.document()["paths"] if api_contract.path() else [])
def test_every_operation_of_the_document_is_in_our_own_description(template: str, ours: Mapping[str, Any]) -> None:
    for method in api_contract.document()["paths"][template]:
        assert method in ours.get(template, {}), f"{method} {template}"
        assert operation_of(method.upper(), template) is not None
