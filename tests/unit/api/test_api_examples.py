"""The examples of the OpenAPI document run as they stand, one after the other, as a reader of `/docs` sends them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api.auth import PUBLIC
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import publish
from tests.unit.api_world import ASSETS, Answer, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO

BUILD = Build("worker", "3f2a91c07b5e")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, worker_image=BUILD.image, release_version=BUILD.release) as world:
        yield world


def document(api: ApiWorld) -> dict[str, Any]:
    found: dict[str, Any] = api.request("GET", "/openapi.json", owner="").json
    return found


def operations(api: ApiWorld) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document(api)["paths"].items()
        for method, operation in methods.items()
    ]


def form(example: dict[str, Any]) -> tuple[bytes, str]:
    """A form as the page makes it: the file from its text."""
    parts = []
    for name, value in example.items():
        file = f'; filename="{example["file_path"]}"' if name == "file" else ""
        parts.append(f'--cut\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n')
    return ("".join(parts) + "--cut--\r\n").encode(), "multipart/form-data; boundary=cut"


def send(api: ApiWorld, method: str, path: str, operation: dict[str, Any], ids: dict[str, str]) -> Answer:
    """Send an operation as it is filled in: ids in its path are those of the last answer of their kind."""
    examples = {parameter["name"]: parameter.get("example") for parameter in operation.get("parameters", ())}
    url = re.sub(r"\{(\w+)\}", lambda match: examples[match[1]] or ids[kind(path)], path)
    body: object = None
    headers = {}
    for content_type, content in operation.get("requestBody", {}).get("content", {}).items():
        body = content["example"]
        if content_type != "application/json":
            body, headers["content-type"] = form(content["example"])
    answer = api.request(method.upper(), url, body=body, headers=headers, key={"is_admin": "true"})
    if answer.status < 300 and answer.text.startswith("{") and "id" in answer.json:
        ids["assets" if path.endswith("/complete") else kind(path)] = answer.json["id"]
    return answer


def kind(path: str) -> str:
    match = re.search("generate|jobs|assets|uploads|keys", path)
    return match[0].replace("generate", "jobs") if match else ""


def test_every_operation_succeeds_as_it_is_filled_in(api: ApiWorld) -> None:
    ids: dict[str, str] = {}
    publish(api.s3, ASSETS, BUILD, OBJECT_INFO)  # what a deployment does
    everything = operations(api)
    with_bodies = [entry for entry in everything if "requestBody" in entry[2]]
    assert len(with_bodies) >= 5
    # Of a batch, a job and a key that another one makes.
    with_bodies.sort(key=lambda entry: entry[0] == "patch" or entry[1].endswith(("/retry", "/again")))
    # The upload of a file is the one step between them that is not the API's.
    # A workflow is retired after its alias is dropped.
    last = {"/api/v2/jobs/{id}/cancel", "/api/v2/uploads/{id}/complete", "/api/v2/workflows/{name}"}
    rest = [entry for entry in everything if "requestBody" not in entry[2]]
    rest.sort(key=lambda entry: (entry[0] == "delete", entry[1] in last))
    for method, path, operation in [*with_bodies, *rest]:
        if path.endswith("/complete"):
            upload = api.services.uploads.get("team", ids["uploads"])
            content = next(operation for _, where, operation in with_bodies if where == "/api/v2/assets")
            text = content["requestBody"]["content"]["multipart/form-data"]["example"]["file"]
            api.s3.put_object(Bucket=ASSETS, Key=api.services.uploads.address(upload).key, Body=text.encode())
        answer = send(api, method, path, operation, ids)
        if path.endswith("/retry"):
            assert answer.code in {"not_found", "batch_state"}, "no batch of the examples has ended"
            continue
        assert answer.status < 400, f"{method} {path}: {answer.text}"


def test_no_body_is_without_an_example_and_no_example_is_a_placeholder(api: ApiWorld) -> None:
    for method, path, operation in operations(api):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["example"], f"{method} {path}"
            assert "string" not in str(content["example"])


def test_what_needs_no_key_has_no_lock(api: ApiWorld) -> None:
    described = document(api)
    assert described["security"] == [{"bearerAuth": []}]
    open_ones = {
        (method.upper(), path) for method, path, operation in operations(api) if operation.get("security") == []
    }
    assert open_ones == {entry for entry in PUBLIC if entry[1] in described["paths"]}
    assert open_ones


def test_every_query_that_is_read_is_described(api: ApiWorld) -> None:
    described = document(api)["paths"]
    for path in ("/api/v2/jobs", "/api/v2/outputs"):
        (labels,) = [entry for entry in described[path]["get"]["parameters"] if entry["name"] == "metadata"]
        assert (labels["style"], labels["explode"]) == ("deepObject", True)
    assert "detail" in [entry["name"] for entry in described["/api/v2/health"]["get"]["parameters"]]
    assert "nodes_not_loaded" in api.request("GET", "/api/v2/health?detail").json


def test_the_page_has_a_title_and_an_icon_that_its_policy_lets_in(api: ApiWorld) -> None:
    answer = api.request("GET", "/docs", owner="")
    assert "<title>comfy-serverless: the API</title>" in answer.text
    assert '<link rel="icon" href="data:image/svg+xml,' in answer.text
    assert "img-src data:" in answer.headers["content-security-policy"]
