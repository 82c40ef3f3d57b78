"""What SAM makes of template.yaml: the routes, the alarms and the environment, as they are on AWS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from comfy_serverless.api.auth import PUBLIC
from local.aws import gateway
from tests.unit.template.processed import parse

ROOT = Path(__file__).parents[3]
METHODS = frozenset({"get", "head", "post", "put", "patch", "delete", "options"})
#: What CloudFormation puts in for a `!Ref` or a `!GetAtt`.
SOMETHING = "something"
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/something"
PARAMETERS = {
    "WORKER_MEMORY_MB": "3008",
    "USD_PER_GB_SECOND": "0.0000166667",
    "USD_PER_REQUEST": "",
    "MAX_QUEUED_JOBS": "1000",
    "POWERTOOLS_LOG_LEVEL": "INFO",
    "POWERTOOLS_METRICS_NAMESPACE": "ComfyServerless/stack",
    "MORE_SETTINGS": "",
    "MODELS_MANIFEST": "",
    "HUGGING_FACE_TOKEN_PARAMETER": "/comfy/hf-token",
    "CIVITAI_TOKEN_PARAMETER": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:civitai-AbCdEf",
    "INPUT_CACHE_BYTES": "1",
    "CORS_ORIGINS": "https://app.example",
    "EVENTS_URL": "https://something.execute-api.eu-central-1.amazonaws.com/live",
    "BATCH_STATE_MACHINE": "arn:aws:states:eu-central-1:123456789012:stateMachine:name",
}
#: What a function takes from handlers/wiring*.py, and the variables it cannot do without.
NEEDS = {
    "ApiFunction": ("wiring_api.services", ["JOBS_TABLE", "ASSETS_BUCKET", "OUTPUT_BUCKET", "JOB_QUEUE_URL"]),
    "AuthorizerFunction": ("wiring.keys", ["JOBS_TABLE"]),
    "CaretakerFunction": ("wiring.caretaker", ["JOBS_TABLE", "ASSETS_BUCKET", "JOB_QUEUE_URL"]),
    "IngestFunction": (
        "wiring_ingest.ingest",
        ["JOBS_TABLE", "ASSETS_BUCKET", "OUTPUT_BUCKET", "MANIFEST_QUEUE_URL", "JOB_QUEUE_URL"],
    ),
    "McpFunction": ("wiring_api.services", ["JOBS_TABLE", "ASSETS_BUCKET", "OUTPUT_BUCKET", "JOB_QUEUE_URL"]),
    "OutcomeFunction": ("wiring.settlement", ["JOBS_TABLE", "JOB_QUEUE_URL"]),
    "WebhookFunction": ("wiring.webhook_caller", ["JOBS_TABLE"]),
    "GenerateFunction": ("wiring_worker.journal", ["JOBS_TABLE", "JOB_QUEUE_URL"]),
    "EventsFunction": ("wiring_api.event_streams", ["JOBS_TABLE"]),
}


def deployed() -> dict[str, Any]:
    """The resources that CloudFormation gets."""
    template = parse()
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":  # `sam build` and `sam deploy` say where the image is
            resource["Properties"]["ImageUri"] = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/image:tag"
    session = boto3.Session(region_name="eu-central-1")
    translated = Translator({}, Parser(), boto_session=session).translate(template, {})
    resources: dict[str, Any] = translated["Resources"]
    return resources


RESOURCES = deployed()


def of_type(kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == kind}


FUNCTIONS = of_type("AWS::Lambda::Function")
(API,) = of_type("AWS::ApiGatewayV2::Api").values()


def environment_of(function: str) -> dict[str, str]:
    """A function's variables; what is only known when it is deployed is something."""
    values = FUNCTIONS[function]["Environment"]["Variables"]
    return {
        name: value
        if isinstance(value, str)
        else PARAMETERS.get(name, QUEUE if name.endswith("_QUEUE_URL") else SOMETHING)
        for name, value in values.items()
    }


def route_of(method: str, path: str) -> dict[str, Any] | None:
    """The route that API Gateway takes: the path itself before the longest greedy one."""
    greedy = [known for known in API["Body"]["paths"] if known.endswith("{proxy+}")]
    candidates = [
        path,
        *sorted((known for known in greedy if path.startswith(known[: -len("{proxy+}")])), key=len)[::-1],
    ]
    for candidate in candidates:
        if (route := API["Body"]["paths"].get(candidate, {}).get(method)) is not None:
            return dict(route)
    return None


def operations() -> list[tuple[str, str]]:
    """Every operation that the API's own document describes."""
    from comfy_serverless.api.app import create_app
    from comfy_serverless.handlers import wiring_api

    document = json.loads(create_app(wiring_api.services).get_openapi_json_schema())
    return [(method, path) for path, entry in document["paths"].items() for method in METHODS & entry.keys()]


def test_every_operation_has_a_route_to_the_function_and_needs_a_key() -> None:
    public = {(method.lower(), path) for method, path in PUBLIC}
    assert len(operations()) > len(public)
    for method, path in {*operations(), *public}:
        route = route_of(method, re.sub(r"{\w+}", "x", path))
        assert route is not None, (method, path)
        integration = route["x-amazon-apigateway-integration"]
        assert "${ApiFunctionAliaslive}" in integration["uri"]["Fn::Sub"]
        assert integration["payloadFormatVersion"] == "2.0"
        assert route["security"] == [{"NONE" if (method, path) in public else "ApiKeys": []}], (method, path)


def test_routes_without_a_key_are_the_same_everywhere() -> None:
    open_routes = {
        (method.upper(), path)
        for path, entry in API["Body"]["paths"].items()
        for method in METHODS.intersection(entry)
        if entry[method]["security"] == [{"NONE": []}]
    }
    assert open_routes == PUBLIC | {("OPTIONS", "/{proxy+}")}
    assert set(gateway.PUBLIC) == PUBLIC


@pytest.mark.parametrize("path", ["/api/v2/jobs", "/api/v2/assets/x/content", "/generate"])
def test_a_browser_may_ask_without_a_key_and_no_other_route_takes_its_question(path: str) -> None:
    assert route_of("options", path) == API["Body"]["paths"]["/{proxy+}"]["options"]
    assert not any("x-amazon-apigateway-any-method" in entry for entry in API["Body"]["paths"].values())


def test_every_function_is_asked_after_its_needs() -> None:
    assert NEEDS.keys() == FUNCTIONS.keys()


def test_api_gateway_may_ask_the_authorizer_and_answers_no_browser_itself() -> None:
    permissions = of_type("AWS::Lambda::Permission").values()
    allowed = [entry for entry in permissions if entry["FunctionName"] == {"Fn::GetAtt": ["AuthorizerFunction", "Arn"]}]
    assert [entry["Principal"] for entry in allowed] == ["apigateway.amazonaws.com"]
    assert "CorsConfiguration" not in API
    assert "x-amazon-apigateway-cors" not in API["Body"]


#: Makes what a line asks for, of the line's environment, in a process of its own: a fork, as to load takes a second.
MAKER = """
import functools, json, os, sys, traceback
import boto3, botocore.loaders, botocore.session
from comfy_serverless.handlers import wiring, wiring_api, wiring_ingest, wiring_worker

botocore.session.create_loader = functools.cache(botocore.loaders.create_loader)
for service in ("dynamodb", "s3", "sqs"):  # what clients are made from is read once
    boto3.client(service, region_name="eu-central-1")
for line in sys.stdin:
    what, environment = json.loads(line)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writing, sys.stderr.fileno())
        os.environ.update(environment)
        try:
            eval(what)()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading) as told:
        print(json.dumps([told.read(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]), flush=True)
"""


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[str, dict[str, str]], tuple[str, int]]]:
    """In a process of its own: make this of an environment. What it says of a failure, and its exit code."""
    own = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "lambda"), "AWS_DEFAULT_REGION": "eu-central-1"}
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:

        def made(what: str, environment: dict[str, str]) -> tuple[str, int]:
            assert maker.stdin is not None
            assert maker.stdout is not None
            maker.stdin.write(json.dumps([what, environment]) + "\n")
            maker.stdin.flush()
            told, code = json.loads(maker.stdout.readline())
            return str(told), int(code)

        yield made


@pytest.mark.parametrize("function", NEEDS)
def test_a_function_finds_everything_it_needs_in_its_environment(function: str, make: Any) -> None:
    what, variables = NEEDS[function]
    assert set(variables) <= environment_of(function).keys()
    told, code = make(what, environment_of(function))
    assert code == 0, told


@pytest.mark.parametrize("function", NEEDS)
def test_a_function_names_all_that_it_lacks_at_once(function: str, make: Any) -> None:
    what, variables = NEEDS[function]
    told, code = make(what, {})
    assert code != 0
    assert told.splitlines()[-1].endswith(f": {', '.join(variables)}"), told


def test_the_dashboard_is_a_document_that_names_only_what_there_is() -> None:
    (dashboard,) = of_type("AWS::CloudWatch::Dashboard").values()
    text, of_conditions = dashboard["DashboardBody"]["Fn::Sub"]
    assert of_conditions.keys() <= RESOURCES.keys()
    names = set(re.findall(r"\${(\w+)[.\w]*}", text))
    assert names <= RESOURCES.keys() | {"AWS"}, names
    widgets = json.loads(re.sub(r"\${[^}]*}", SOMETHING, text))["widgets"]
    assert len({widget["properties"]["title"] for widget in widgets}) == len(widgets)
    assert len({(widget["x"], widget["y"]) for widget in widgets}) == len(widgets)


def test_the_template_is_yaml_without_a_key_twice() -> None:
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), node.start_mark
            return super().construct_mapping(node, deep)

    Strict.add_multi_constructor("!", lambda loader, suffix, node: None)
    yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), Strict)
