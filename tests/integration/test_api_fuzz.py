"""The API under fire: schemathesis makes requests from the contract's document, good and bad ones.

Nothing may be a server error, and every answer has the form the document gives it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

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

from comfy_serverless.api.app import create_app
from comfy_serverless.api.examples import completed
from comfy_serverless.api.workflow_openapi import TAG, Described, with_workflows
from local.dev import DevStack
from tests.patience import PATIENCE_S
from tests.unit import api_contract
from tests.unit.named_world import GRAPH

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
def test_no_request_breaks_the_api(stack: DevStack, case: schemathesis.Case[Any]) -> None:
    case.headers["Authorization"] = f"Bearer {stack.api_key}"
    response = case.call(base_url=stack.url, allow_redirects=False, timeout=PATIENCE_S)
    case.validate_response(response, checks=[not_a_server_error, response_schema_conformance, content_type_conformance])


def our_lists() -> schemathesis.BaseSchema:
    """Our own description of the lists and of a job's log, with the parameters that are ours."""
    app = create_app(lambda: pytest.fail("nothing is asked"))
    document = completed(json.loads(app.get_openapi_json_schema()))
    paths = r"^/api/v2/(jobs|outputs|assets|jobs/\{id\}/(log|outputs))$"
    return schemathesis.openapi.from_dict(document).include(path_regex=paths, method="GET")


@pytest.mark.timeout(1800)
@our_lists().parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_a_list(stack: DevStack, case: schemathesis.Case[Any]) -> None:
    case.headers["Authorization"] = f"Bearer {stack.api_key}"
    response = case.call(base_url=stack.url, allow_redirects=False, timeout=PATIENCE_S)
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]
    case.validate_response(response, checks=checks)


def our_again() -> schemathesis.BaseSchema:
    """Our own description of a job's second run."""
    app = create_app(lambda: pytest.fail("nothing is asked"))
    document = completed(json.loads(app.get_openapi_json_schema()))
    return schemathesis.openapi.from_dict(document).include(path="/api/v2/jobs/{id}/again")


@pytest.fixture(scope="module")
def a_job(stack: DevStack) -> str:
    """A job's id."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    body = {"workflow": GRAPH, "wait_s": 0}
    made = requests.post(f"{stack.url}/generate", json=body, headers=headers, timeout=PATIENCE_S)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


@pytest.mark.timeout(1800)
@our_again().parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_a_second_run(stack: DevStack, a_job: str, case: schemathesis.Case[Any]) -> None:
    case.headers["Authorization"] = f"Bearer {stack.api_key}"
    case.path_parameters["id"] = a_job
    response = case.call(base_url=stack.url, allow_redirects=False, timeout=PATIENCE_S)
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]
    case.validate_response(response, checks=checks)


def our_own() -> schemathesis.BaseSchema:
    """Our own description of named workflows, as an owner sees it who has one of them."""
    app = create_app(lambda: pytest.fail("nothing is asked"))
    inputs = {
        "color": {"type": "integer", "minimum": 0, "maximum": 0xFFFFFF},
        "width": {"type": "integer", "minimum": 1, "maximum": 512},
    }
    poster = Described(
        name="poster",
        title="",
        description="",
        schema={"type": "object", "properties": inputs, "additionalProperties": False},
        example={"color": 255},
    )
    document = with_workflows(completed(json.loads(app.get_openapi_json_schema())), [poster])
    return schemathesis.openapi.from_dict(document).include(tag=["named workflows", TAG])


@pytest.fixture(scope="module")
def with_poster(stack: DevStack) -> DevStack:
    """The stack with the workflow that is described."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    chosen = {
        "color": {"target": "1.color", "minimum": 0, "maximum": 0xFFFFFF},
        "width": {"target": "1.width", "minimum": 1, "maximum": 512},
    }
    for name in ("poster", "example"):
        url, body = f"{stack.url}/api/v2/workflows/{name}", {"workflow": GRAPH, "inputs": chosen}
        assert requests.put(url, json=body, headers=headers, timeout=PATIENCE_S).status_code == 201
    return stack


@pytest.mark.timeout(1800)
@our_own().parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_routes_of_named_workflows(with_poster: DevStack, case: schemathesis.Case[Any]) -> None:
    case.headers["Authorization"] = f"Bearer {with_poster.api_key}"
    response = case.call(base_url=with_poster.url, allow_redirects=False, timeout=PATIENCE_S)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            response_schema_conformance,
            content_type_conformance,
            status_code_conformance,
        ],
    )
