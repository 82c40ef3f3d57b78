"""The API under fire: schemathesis makes requests from the contract's document, good and bad ones.

Nothing may be a server error, and every answer has the form the document gives it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from local.dev import DevStack
from tests.patience import PATIENCE_S
from tests.unit import api_contract
from tests.unit.named_world import GRAPH, INPUTS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))

if api_contract.path() is None and "CI" not in os.environ:
    pytest.skip("no contract document: set COMFY_API_CONTRACT", allow_module_level=True)

schema = schemathesis.openapi.from_dict(api_contract.document())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Without workers: what is accepted waits, and nothing else is asked of it here."""
    folder = tmp_path_factory.mktemp("fuzz")
    with DevStack(log_folder=folder, workers=0, environment={"EVENTS_HOLD_S": "0.01", "POLL_HOLD_S": "0"}) as started:
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


@pytest.mark.timeout(1800)
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_api(stack: DevStack, case: schemathesis.Case) -> None:
    case.headers["Authorization"] = f"Bearer {stack.api_key}"
    response = case.call(base_url=stack.url, allow_redirects=False, timeout=30)
    case.validate_response(response, checks=[not_a_server_error, response_schema_conformance, content_type_conformance])


@pytest.fixture(scope="module")
def named(stack: DevStack) -> schemathesis.BaseSchema:
    """Our own description of named workflows, as an owner sees it who has two of them."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    photo = {**GRAPH, "3": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}}}
    for name, body in {"poster": {"workflow": GRAPH, "inputs": INPUTS}, "photo": {"workflow": photo}}.items():
        url = f"{stack.url}/api/v2/workflows/{name}"
        assert requests.put(url, json=body, headers=headers, timeout=PATIENCE_S).status_code == 201
    described = requests.get(f"{stack.url}/openapi.json", headers=headers, timeout=PATIENCE_S).json()
    assert {"/api/v2/workflows/poster/runs", "/api/v2/workflows/photo/runs"} <= described["paths"].keys()
    return schemathesis.openapi.from_dict(described).include(tag=["named workflows", "your workflows"])


@pytest.mark.timeout(1800)
@schemathesis.pytest.from_fixture("named").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_routes_of_named_workflows(stack: DevStack, case: schemathesis.Case) -> None:
    case.headers["Authorization"] = f"Bearer {stack.api_key}"
    response = case.call(base_url=stack.url, allow_redirects=False, timeout=30)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            response_schema_conformance,
            content_type_conformance,
            status_code_conformance,
        ],
    )
