"""What hostile requests cost, and what they are answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware

from comfy_serverless.api.auth import PUBLIC
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import MissingAsset
from comfy_serverless.graph.file_inputs import names_of_others
from comfy_serverless.jobs.links import Links
from comfy_serverless.jobs.request import MAX_LABELS_BYTES
from comfy_serverless.jobs.shapes import MAX_ADDRESSES
from comfy_serverless.table import reader as reader_module
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.job_item import job_pk
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.fakes import WORKFLOW
from tests.unit.table_clock import TableClock

OCTETS = "application/octet-stream"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "body", ['{"workflow": ' + "9" * 5000 + "}", "{", '{"workflow": 1}', json.dumps({"workflow": deep(900)})]
)
def test_without_a_key_nothing_is_read(api: ApiWorld, body: str) -> None:
    for path in ("/api/v2/jobs", "/generate", "/api/v2/assets"):
        assert api.request("POST", path, body=body, owner="").status == 401


def test_without_a_key_no_route_reads_anything_and_each_counts_a_request_once(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("something was read")

    routes = [
        (method.upper(), path)
        for path, entry in json.loads(api.app.get_openapi_json_schema())["paths"].items()
        for method in entry
        if (method.upper(), path) not in PUBLIC
    ]
    assert len(routes) > 10
    for name in ("_request_params_to_args", "_normalize_multi_params"):
        monkeypatch.setattr(f"{OpenAPIRequestValidationMiddleware.__module__}.{name}", read)
    for method, path in routes:
        answer = api.request(method, re.sub(r"{\w+}", "x", path), body="{}", owner="")
        assert answer.status == 401, (method, path, answer.text)
    counted: list[str] = []
    monkeypatch.setattr(ApiKeyStore, "count_request", lambda _keys, key_id, *, limit: counted.append(key_id))
    for method, path in routes:
        answer = api.request(method, re.sub(r"{\w+}", "x", path), body="{}", key={"requests_per_minute": "1"})
        assert answer.status == 429, (method, path, answer.text)
    assert len(counted) == len(routes)


@pytest.mark.parametrize("path", ["/api/v2/health", "/openapi.json", "/docs"])
def test_what_is_for_everybody_needs_no_key(api: ApiWorld, path: str) -> None:
    assert api.request("GET", path, owner="").status == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"workflow": ' + "9" * 5000 + "}",
        json.dumps({"workflow": deep(500)}),
        json.dumps({"workflow": WORKFLOW, "set": {"3.seed": deep(300)}}),
        json.dumps({"workflow": {**WORKFLOW, "3": {**WORKFLOW["3"], "inputs": {"seed": deep(70)}}}}),
    ],
)
def test_numbers_without_end_and_depths_are_refused_and_no_failure(api: ApiWorld, body: str) -> None:
    answer = api.request("POST", "/generate", body=body)
    assert answer.status == 422, answer.text[:300]


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": {str(number): number for number in range(20_000)}},
        {f"field{number}": number for number in range(20_000)},
        {"metadata": {str(number): number for number in range(20_000)}},
        {"models": [{str(number): number for number in range(20_000)}]},
    ],
    ids=["inputs", "fields", "labels", "models"],
)
def test_a_body_of_wrong_entries_is_refused_before_each_becomes_an_error(api: ApiWorld, fields: dict[str, Any]) -> None:
    answer = api.request("POST", "/generate", body={"workflow": WORKFLOW, **fields})
    assert answer.status == 422
    assert "more than 10,000 entries" in answer.text


@pytest.mark.parametrize(
    "wrong",
    [{}, 1, {"class_type": "X", "inputs": {"a": ["none", 0]}}, {"class_type": "X", "inputs": {"a": float("inf")}}],
    ids=["no class", "no node", "a link to nowhere", "no number of JSON"],
)
def test_a_graph_that_is_wrong_at_each_node_is_answered_with_the_first_and_the_number_of_all(
    api: ApiWorld, wrong: Any
) -> None:
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": {str(number): wrong for number in range(50_000)}})
    assert (answer.status, answer.code) == (422, "invalid_workflow")
    error = answer.json["error"]
    assert "'0'" in error["message"]
    assert "and 49980 more" in error["message"]
    assert len(error["details"]["node_errors"]) + error["details"]["more_node_errors"] == 50_000
    assert error["details"]["node_errors"]["0"]["errors"][0]["message"]


def test_addresses_are_counted(api: ApiWorld) -> None:
    many = {f"3.x{number}": 1 for number in range(MAX_ADDRESSES + 1)}
    assert api.request("POST", "/generate", body={"workflow": WORKFLOW, "set": many}).status == 422


def test_a_form_with_an_endless_head_or_endless_parts_is_refused(api: ApiWorld) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="a' + b";" * 16_000 + b'"\r\n\r\n1\r\n'
    part = b'--x\r\nContent-Disposition: form-data; name="tags"\r\n\r\n1\r\n'
    for body in (head + b"--x--", part * 200 + b"--x--"):
        answer = api.request(
            "POST", "/api/v2/assets", body=body, headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert answer.status == 422


def test_labels_are_small_enough_to_be_kept_with_the_job_however_it_ends(api: ApiWorld) -> None:
    large = {str(number): "😀" * 1000 for number in range(3)}
    assert len(json.dumps(large, ensure_ascii=False).encode()) < MAX_LABELS_BYTES
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW, "metadata": large})
    assert answer.status == 201
    canceled = api.request("POST", f"/api/v2/jobs/{answer.json['id']}/cancel")
    assert canceled.json["metadata"] == large
    item = api.services.table.get(job_pk(answer.json["id"]), "job")
    assert "😀" not in str(item and item["document"]), "they are in the item once"
    too_large = {str(number): "😀" * 1000 for number in range(5)}
    refused = api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW, "metadata": too_large})
    assert (refused.status, refused.code) == (422, "metadata_invalid")


@pytest.mark.parametrize("method", ["bad body", "good"])
def test_every_request_of_a_key_counts(api: ApiWorld, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TableClock(monkeypatch)  # they are of one minute
    limit = {"requests_per_minute": "3"}
    body = {"bad": 1} if method == "bad body" else {"workflow": WORKFLOW}
    statuses = [api.request("POST", "/api/v2/jobs", body=body, key=limit).status for _ in range(5)]
    assert statuses[3:] == [429, 429]


@pytest.mark.parametrize(
    ("content_type", "sent", "shown"),
    [
        ("image/png", "image/png", "inline"),
        ("text/plain; charset=utf-8", "text/plain", "inline"),
        ("image/png;a=b", "image/png", "inline"),
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("text/html", "text/html", "attachment"),
        ("application/json", "application/json", "attachment"),
    ],
)
def test_a_link_tells_browsers_one_plain_type(api: ApiWorld, content_type: str, sent: str, shown: str) -> None:
    def query_of(kind: str) -> dict[str, str]:
        link = Links(api.s3, 60).of(S3Address("bucket", "key"), name="a.png", content_type=kind)
        return dict(parse_qsl(urlsplit(link.url).query))

    query = query_of(content_type)
    assert query["response-content-type"] == sent
    assert query["response-content-disposition"].startswith(shown)
    for hidden in (f"{content_type};a=b,text/html", f"{content_type},text/html", ",text/html"):
        query = query_of(hidden)
        assert query["response-content-type"] in {sent, OCTETS}
        assert "html" not in query["response-content-type"] or content_type == "text/html"


def test_a_type_with_a_list_in_it_is_refused(api: ApiWorld) -> None:
    fields = {"file_path": "a.png", "size_bytes": 3}
    for kind in ("image/png;a=b,text/html", 'image/png;a="x"'):
        answer = api.request("POST", "/api/v2/uploads", body={**fields, "content_type": kind})
        assert answer.status == 422, answer.text


def test_a_workflow_that_names_files_without_end_is_refused_before_they_are_looked_up(api: ApiWorld) -> None:
    graph = {
        str(number): {"class_type": "LoadImage", "inputs": {"image": f"{number}.png"}} for number in range(500)
    } | {"s": {"class_type": "SaveImage", "inputs": {"images": ["0", 0]}}}
    before = api.calls["GetItem"]
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": graph})
    assert answer.status == 422
    assert "500 different files" in answer.text
    assert api.calls["GetItem"] - before < 10


@pytest.mark.parametrize(
    "name", ["../output/x.png", "/etc/passwd", "a/../../b.png", "..\\temp\\x.png", "C:\\x.png", "../temp/x.png [input]"]
)
def test_a_file_name_that_leads_out_of_the_input_folder_is_refused(name: str) -> None:
    graph: dict[str, Any] = {"1": {"class_type": "LoadImage", "inputs": {"image": name}}}
    assert list(names_of_others(graph)) == [("1", "image", f"{name!r} is not in ComfyUI's input folder")]
    for harmless in ("a.png", "sub/a..b.png", "s3://bucket/../x", "a.png [input]", "data:image/png;base64,/../"):
        graph["1"]["inputs"]["image"] = harmless
        assert list(names_of_others(graph)) == []


def test_a_search_among_very_many_jobs_ends_and_goes_on_where_it_ended(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_LOOKS", 1)
    query = api.services.table.query
    monkeypatch.setattr(api.services.table, "query", lambda *a, **k: query(*a, **{**k, "limit": 2}), raising=False)
    ids = [
        api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW, "metadata": {"n": str(n)}}).json["id"]
        for n in range(5)
    ]
    seen, cursor, pages = [], "", 0
    while pages < 10:
        page = api.request("GET", "/api/v2/jobs?metadata%5Bn%5D=0" + (f"&cursor={cursor}" if cursor else "")).json
        seen += [job["id"] for job in page["jobs"]]
        pages += 1
        if not (cursor := page.get("next_cursor", "")):
            break
    assert (seen, pages) == ([ids[0]], 3)


def test_a_browser_may_ask_what_a_page_may_do_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "https://app.example"
    with api_world(monkeypatch, cors_origins=(page,)) as api:
        headers = {"Origin": page, "Access-Control-Request-Method": "POST"}
        answer = api.request("OPTIONS", "/api/v2/jobs", headers=headers, owner="")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, page)


def test_an_answer_names_no_account_and_the_log_does(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "arn:aws:iam::123456789012:role/GenerateRole may not read /tmp/comfyui/x.png"

    def refuse(*_: object) -> None:
        raise MissingAsset(told, details={"log_tail": "x", "why": told})

    logged: list[str] = []
    monkeypatch.setattr("comfy_serverless.api.responses.log.warning", lambda *given, **by: logged.append(str(by)))
    monkeypatch.setattr(api.services.node_list.__class__, "check", refuse)
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW})
    assert answer.json["error"]["message"] == "arn:… may not read …/x.png"
    assert answer.json["error"]["details"] == {"why": "arn:… may not read …/x.png"}
    assert told in logged[0]
