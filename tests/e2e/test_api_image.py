"""The image `api`, and what `mcp` has in common with it: small, without an engine, and quick to answer on Lambda."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.aws.stack import LocalStack
from local.aws.template import TABLE
from tests.e2e.lambda_container import LambdaContainer, docker, http_event

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

IMAGES = ("api", "mcp")
CONSOLE = Path(__file__).parents[2] / "lambda/comfy_serverless/api/console"
#: All layers above the base, and the base itself, debian:bookworm-slim, as Debian publishes it: its stand-in on a
#: machine without a network may be larger. Together they now take about 165 and 195 MB.
MAX_BYTES, BASE_BYTES = 250_000_000, 80_000_000
HANDLERS = ("api", "authorizer", "caretaker", "ingest", "outcome", "webhooks", "stream")
#: Routes that answer an owner who has nothing yet.
LISTS = (
    *("/api/v2/me", "/api/v2/jobs?expand=outputs,progress,error", "/api/v2/outputs", "/api/v2/assets"),
    *("/api/v2/batches", "/api/v2/workflows", "/api/v2/usage?by=day"),
)
WARM_REQUESTS = 20


@pytest.fixture(params=IMAGES)
def target(request: pytest.FixtureRequest) -> str:
    """The target of the Dockerfile."""
    return str(request.param)


@pytest.fixture
def image(target: str, request: pytest.FixtureRequest) -> str:
    """Its image."""
    return str(request.getfixturevalue(f"{target}_image"))


@pytest.fixture(scope="module")
def container(
    api_image: str, stack_environment: dict[str, str], named_files: dict[Path, str]
) -> Iterator[LambdaContainer]:
    with LambdaContainer(api_image, stack_environment, files=named_files) as running:
        yield running


def in_image(image: str, *command: str) -> str:
    return docker("run", "--rm", "--entrypoint", command[0], image, *command[1:])


def test_it_starts_its_handler_and_says_what_it_is(target: str, image: str) -> None:
    configuration = json.loads(docker("inspect", "--format", "{{json .Config}}", image))
    assert configuration["Entrypoint"] == ["/opt/worker/bin/python", "-m", "comfy_serverless.handlers.start"]
    assert configuration["Cmd"] == [f"comfy_serverless.handlers.{target}.handler"]
    assert configuration["Labels"]["org.opencontainers.image.title"] == "comfy-serverless"
    assert not configuration.get("User"), "Lambda has a user of its own"


def test_it_stays_below_250_megabytes(image: str, record_property: Callable[[str, object], None]) -> None:
    sizes = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", image).splitlines()
    own_bytes = sum(map(int, sizes[:-1]))  # the last line is the base image
    record_property("own_bytes", own_bytes)
    print(f"own layers: {own_bytes / 1e6:.0f} MB")
    assert own_bytes + BASE_BYTES < MAX_BYTES


def test_it_holds_no_engine_and_nothing_that_only_engines_need(image: str) -> None:
    unwanted = ("torch", "numpy", "PIL", "aiohttp", "websocket", "comfyui", "comfy_lite", "pip", ".git")
    names = " -o ".join(f"-name {name}" for name in unwanted)
    assert in_image(image, "sh", "-c", f"find /opt/worker /opt/comfyui* /var/task {names} 2>/dev/null") == ""
    assert in_image(image, "sh", "-c", "command -v gcc cc git pip pip3 make curl || true") == ""


def test_all_python_is_compiled(image: str) -> None:
    compiled = "sed -E 's,__pycache__/([^/]*)[.]cpython-311[.]pyc$,\\1.py,'"
    sources = "cd /opt/worker/lib && find . -name '*.py' | sort > /tmp/py"
    difference = f"find . -name '*.pyc' | {compiled} | sort | comm -23 /tmp/py -"
    assert in_image(image, "sh", "-c", f"{sources} && {difference}") == ""


@pytest.mark.parametrize("name", HANDLERS)
def test_every_handler_of_the_template_can_be_loaded(
    name: str, api_image: str, stack_environment: dict[str, str]
) -> None:
    variables = [f"--env={variable}={value}" for variable, value in stack_environment.items()]
    code = f"import comfy_serverless.handlers.{name} as module; print(callable(module.handler))"
    python = "/opt/worker/bin/python"
    assert docker("run", "--rm", *variables, "--entrypoint", python, api_image, "-c", code) == "True"


def test_health_answers_cold_and_warm_without_a_writable_root(
    container: LambdaContainer, record_property: Callable[[str, object], None]
) -> None:
    latencies_ms = []
    for _ in range(1 + WARM_REQUESTS):
        begun = time.perf_counter()
        answer = container.invoke(http_event("/api/v2/health", owner=""))
        latencies_ms.append((time.perf_counter() - begun) * 1000)
        assert answer["statusCode"] == 200, container.log()[-4000:]
    cold_ms, warm_ms = latencies_ms[0], sorted(latencies_ms[1:])[WARM_REQUESTS // 2]
    record_property("cold_ms", round(cold_ms))
    record_property("warm_ms", round(warm_ms, 1))
    print(f"health: cold {cold_ms:.0f} ms, warm {warm_ms:.1f} ms (median of {WARM_REQUESTS})")


def test_it_reads_the_table_of_the_template(container: LambdaContainer, local_stack: LocalStack) -> None:
    assert local_stack.environment["JOBS_TABLE"] == TABLE
    begun = time.perf_counter()
    answer = container.invoke(http_event("/api/v2/jobs"))
    print(f"list of jobs: {(time.perf_counter() - begun) * 1000:.1f} ms")
    assert answer["statusCode"] == 200, container.log()[-4000:]


def test_it_tells_the_names_beside_a_workflow_of_its_folder(container: LambdaContainer) -> None:
    answer = container.invoke(http_event("/api/v2/workflows/banner"))
    assert answer["statusCode"] == 200, container.log()[-4000:]
    assert "A plain banner" in answer["body"]
    assert '"length"' in answer["body"]


def test_the_console_is_in_the_image_whole(container: LambdaContainer) -> None:
    page = container.invoke(http_event("/", owner=""))
    assert page["statusCode"] == 200, container.log()[-4000:]
    assert "'strict-dynamic'" in page["headers"]["content-security-policy"]
    named = set(re.findall(r"\./console/([\w.]+)\?(\w+)", page["body"]))
    kept = {path.name for path in CONSOLE.glob("*.js")}
    assert {name for name, _ in named} == kept
    for name, version in sorted(named):
        file = container.invoke(http_event(f"/console/{name}?{version}", owner=""))
        assert file["statusCode"] == 200, name
        assert "immutable" in file["headers"]["cache-control"]


@pytest.mark.parametrize("path", LISTS)
def test_the_consoles_routes_answer_an_owner_who_has_nothing_yet(path: str, container: LambdaContainer) -> None:
    answer = container.invoke(http_event(path, owner="newcomer"))
    assert answer["statusCode"] == 200, f"{answer['body']}\n{container.log()[-4000:]}"


def test_opentelemetry_is_there_and_not_loaded_while_it_is_off(target: str, image: str) -> None:
    code = (
        "import sys; from comfy_serverless.api.app import create_app; from comfy_serverless.handlers import wiring; "
        "loaded = [name for name in sys.modules if name.startswith('opentelemetry')]; "
        "import comfy_serverless.tracing.sdk; print(loaded)"
    )
    assert in_image(image, "/opt/worker/bin/python", "-c", code) == "[]"


def test_a_request_without_a_good_key_is_refused_as_the_contract_says(container: LambdaContainer) -> None:
    answer = container.invoke(http_event("/api/v2/jobs", owner=""))
    assert answer["statusCode"] == 401
    assert json.loads(answer["body"])["error"]["code"] == "unauthorized"


def test_nothing_even_tried_to_write_outside_tmp(container: LambdaContainer) -> None:
    assert "Read-only file system" not in container.log()
    assert "Permission denied" not in container.log()
    assert container.shell("id -u") == "993"
